//! Small ELF files with hand-assembled call frame information.

/// Address of the code of every file made here; [`CODE_LEN`] bytes long.
pub const CODE: u64 = 0x1000;
pub const CODE_LEN: u64 = 0x10000;
const EH_FRAME: u64 = 0x20000;
const EH_FRAME_HDR: u64 = 0x80000;

pub const X86_64: u16 = 62;
pub const AARCH64: u16 = 183;

/// `.eh_frame` or `.debug_frame` under construction.
#[derive(Clone, Default)]
pub struct Table {
    pub bytes: Vec<u8>,
    pub debug: bool,
    /// (start, offset of the FDE).
    pub functions: Vec<(u64, usize)>,
}

impl Table {
    pub fn eh_frame() -> Self {
        Self::default()
    }

    pub fn debug_frame() -> Self {
        Self { debug: true, ..Self::default() }
    }

    fn entry(&mut self, id: u32, body: &[u8]) -> usize {
        let at = self.bytes.len();
        let padding = (4 - body.len() % 4) % 4;
        self.bytes.extend(((4 + body.len() + padding) as u32).to_le_bytes());
        self.bytes.extend(id.to_le_bytes());
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len() + padding, 0);
        at
    }

    /// Alignment factors 1 and -8; addresses are absolute.
    pub fn cie(&mut self, augmentation: &str, return_address: u8, instructions: &[u8]) -> usize {
        let mut body = vec![1];
        body.extend(augmentation.as_bytes());
        body.extend([0, 1, 0x78, return_address]);
        if augmentation.starts_with('z') {
            let encodings = augmentation.contains('R').then_some(0);
            body.push(encodings.iter().len() as u8);
            body.extend(encodings);
        }
        body.extend(instructions);
        self.entry(if self.debug { u32::MAX } else { 0 }, &body)
    }

    /// The usual CIE of x86_64: CFA = rsp + 8, return address at CFA - 8.
    pub fn x86_64(&mut self) -> usize {
        self.cie("", 16, &[0x0c, 7, 8, 0x90, 1])
    }

    pub fn signal_frame(&mut self, return_address: u8) -> usize {
        self.cie("zRS", return_address, &[])
    }

    pub fn fde(&mut self, cie: usize, start: u64, len: u64, instructions: &[u8]) -> usize {
        let mut body = [start.to_le_bytes(), len.to_le_bytes()].concat();
        // The length of the augmentation data, where the CIE has a "z".
        body.extend((self.bytes.get(cie + 9) == Some(&b'z')).then_some(0));
        body.extend(instructions);
        let at = self.bytes.len();
        self.functions.push((start, at));
        self.entry(if self.debug { cie } else { (at + 4).wrapping_sub(cie) } as u32, &body)
    }

    /// The binary search table for [`EH_FRAME`].
    fn header(&self) -> Vec<u8> {
        let mut functions = self.functions.clone();
        functions.sort_unstable();
        let mut bytes = vec![1, 0x1b, 0x03, 0x3b];
        bytes.extend((EH_FRAME.wrapping_sub(EH_FRAME_HDR + 4) as u32).to_le_bytes());
        bytes.extend((functions.len() as u32).to_le_bytes());
        for (start, offset) in functions {
            bytes.extend((start.wrapping_sub(EH_FRAME_HDR) as u32).to_le_bytes());
            bytes.extend(((EH_FRAME + offset as u64).wrapping_sub(EH_FRAME_HDR) as u32).to_le_bytes());
        }
        bytes
    }
}

/// What a file holds.
#[derive(Clone, Default)]
pub struct Elf {
    pub machine: u16,
    pub eh_frame: Option<Table>,
    pub debug_frame: Option<Table>,
    /// Whether to write the search table of `.eh_frame`.
    pub header: bool,
    /// Whether to leave out all section headers.
    pub stripped: bool,
    /// Address of `__kernel_rt_sigreturn` in the dynamic symbols.
    pub trampoline: Option<u64>,
}

impl Elf {
    pub fn x86_64(eh_frame: Table) -> Self {
        Self { machine: X86_64, eh_frame: Some(eh_frame), ..Self::default() }
    }

    pub fn aarch64(eh_frame: Table) -> Self {
        Self { machine: AARCH64, eh_frame: Some(eh_frame), ..Self::default() }
    }

    /// The bytes of the file: ELF header, three program headers, sections, section headers.
    pub fn bytes(&self) -> Vec<u8> {
        let header = self.eh_frame.as_ref().filter(|_| self.header).map(Table::header);
        let table = |table: &Option<Table>| table.as_ref().map(|table| table.bytes.clone());
        let symbols = self.trampoline.map(|address| {
            // The first symbol is empty; the other's name is at 1, it is a global function in section 1.
            let mut symbols = vec![0; 24];
            symbols.extend([1, 0, 0, 0, 0x12, 0, 1, 0]);
            symbols.extend([address.to_le_bytes(), 8u64.to_le_bytes()].concat());
            symbols
        });
        let symbol_names = self.trampoline.map(|_| b"\0__kernel_rt_sigreturn\0".to_vec());
        let sections = [
            (".eh_frame", 1u32, EH_FRAME, table(&self.eh_frame)),
            (".debug_frame", 1, 0, table(&self.debug_frame)),
            (".eh_frame_hdr", 1, EH_FRAME_HDR, header),
            (".dynstr", 3, 0, symbol_names),
            (".dynsym", 11, 0, symbols),
        ];
        let mut file = vec![0; 64 + 3 * 56];
        // name, type, address, offset, size
        let mut headers = vec![(0u32, 0u32, 0u64, 0u64, 0u64)];
        let mut names = vec![0u8];
        for (name, kind, address, content) in sections {
            let Some(content) = content else { continue };
            headers.push((names.len() as u32, kind, address, file.len() as u64, content.len() as u64));
            names.extend(name.as_bytes());
            names.push(0);
            file.extend(content);
        }
        let (name, at) = (names.len() as u32, file.len() as u64);
        names.extend(b".shstrtab\0");
        headers.push((name, 3, 0, at, names.len() as u64));
        file.extend(names);

        let find =
            |address| headers.iter().find(|h| h.2 == address && h.1 == 1).map_or((0, 0), |h| (h.3, h.4));
        let (eh_frame, eh_frame_hdr) = (find(EH_FRAME), find(EH_FRAME_HDR));
        let mut segments = Vec::new();
        for (kind, flags, (offset, size), address, memory) in [
            (1u32, 5u32, (0, 0), CODE, CODE_LEN),
            (1, 4, eh_frame, EH_FRAME, eh_frame.1),
            (0x6474_e550, 4, eh_frame_hdr, EH_FRAME_HDR, eh_frame_hdr.1),
        ] {
            segments.extend(kind.to_le_bytes());
            segments.extend(flags.to_le_bytes());
            for word in [offset, address, address, size, memory, 8] {
                segments.extend(u64::to_le_bytes(word));
            }
        }
        file[64..64 + 3 * 56].copy_from_slice(&segments);

        let section_headers = file.len() as u64;
        let count = if self.stripped { 0 } else { headers.len() as u16 };
        for (number, (name, kind, address, offset, size)) in
            headers.into_iter().take(usize::from(count)).enumerate()
        {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            // The symbols' names are in the section before them.
            let (link, entry) = if kind == 11 { (number as u64 - 1, 24) } else { (0, 0) };
            for word in [2, address, offset, size, link, 8, entry] {
                file.extend(u64::to_le_bytes(word));
            }
        }
        let mut start = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for half in [3, self.machine, 1, 0] {
            start.extend(half.to_le_bytes());
        }
        for word in [0, 64, if count == 0 { 0 } else { section_headers }] {
            start.extend(u64::to_le_bytes(word));
        }
        start.extend([0; 4]);
        for half in [64, 56, 3, 64, count, count.saturating_sub(1)] {
            start.extend(u16::to_le_bytes(half));
        }
        file[..64].copy_from_slice(&start);
        file
    }
}

/// `DW_CFA_def_cfa_expression` of an expression.
pub fn cfa_expression(expression: &[u8]) -> Vec<u8> {
    [&[0x0f, expression.len() as u8], expression].concat()
}

/// `DW_CFA_expression`: the register is saved where the expression says.
pub fn saved_at(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x10, register, expression.len() as u8], expression].concat()
}
