//! Unwind tables: rows, their index by page of code, and the mappings of a process.
//!
//! All three live in one pool of 8-byte slots, cut into chunks of [`crate::limits::CHUNK_SLOTS`]. A slot number is
//! global: `chunk = slot / CHUNK_SLOTS`, `place = slot % CHUNK_SLOTS`.
//!
//! ```text
//! process  -> {generation, first slot of its mappings, how many}
//! mapping  -> {start, end, bias, first page, pages, first slot of the index}    sorted by start
//! index    -> one slot a 256-byte page of code: {first slot of its rows, how many}
//! row      -> {pc_low, CFA rule, frame pointer rule}                            sorted by pc
//! ```
//!
//! The first row of a page is the one in force at the page's first byte, whatever its `pc_low`; the others of a page
//! lie inside the page, so the low 16 bits of the address order them. The rows of one page lie in one chunk, and so
//! do the mappings of one process.

/// Bits of an address inside one page of the index.
pub const PAGE_SHIFT: u32 = 8;
/// Rows of one page at most: one for each byte, and the one in force at its start.
pub const MAX_PAGE_ROWS: u32 = (1 << PAGE_SHIFT) + 1;

/// How the canonical frame address (CFA) follows from the registers. `words` is [`Row::cfa_words`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CfaKind {
    /// Nothing is known of this address: try the frame pointer.
    None = 0,
    /// CFA = sp + 8 * words.
    Sp = 1,
    /// CFA = fp + 8 * words.
    Fp = 2,
    /// The lazy PLT of x86_64: CFA = sp + 8 + 8 * ((pc & 15) >= words).
    Plt = 3,
    /// A signal trampoline: the interrupted registers lie in the `rt_sigframe` at sp.
    Signal = 4,
    /// The outermost frame: its return address is undefined.
    End = 5,
    /// CFA = *(sp + 8 * offset) + 8 * addend; see [`Row::deref_parts`].
    SpDeref = 6,
    /// CFA = *(fp + 8 * offset) + 8 * addend; see [`Row::deref_parts`].
    FpDeref = 7,
    /// A rule that a row cannot express: walked in userspace with all registers.
    Complex = 8,
    /// CFA = sp + [`FAR`] + 8 * words: a frame of 512 KiB or more.
    SpFar = 9,
}

/// What [`CfaKind::SpFar`] adds (bytes): the first offset that [`Row::cfa_words`] cannot hold.
pub const FAR: u64 = 8 << 16;

impl CfaKind {
    /// The kind of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::None,
            1 => Self::Sp,
            2 => Self::Fp,
            3 => Self::Plt,
            4 => Self::Signal,
            5 => Self::End,
            6 => Self::SpDeref,
            7 => Self::FpDeref,
            8 => Self::Complex,
            9 => Self::SpFar,
            _ => return None,
        })
    }
}

/// Where the caller's frame pointer (rbp, x29) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FpKind {
    /// Still in its register.
    Same = 0,
    /// At CFA + 8 * [`Row::fp_words`]. On aarch64 the return address is then in the word above it.
    AtCfa = 1,
    /// Lost: the caller's value cannot be known.
    Undefined = 2,
    /// aarch64 only: in its register, and the return address in x30.
    SameReturnInRegister = 3,
    /// x86_64 only: at fp + 8 * [`Row::fp_words`], with this frame's own frame pointer. Compilers say so where they
    /// realigned the stack, and the distance to the CFA is not known.
    AtFp = 4,
}

impl FpKind {
    /// The kind of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Same,
            1 => Self::AtCfa,
            2 => Self::Undefined,
            3 => Self::SameReturnInRegister,
            4 => Self::AtFp,
            _ => return None,
        })
    }
}

/// The rule in force from one address to the next row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Row {
    /// The low 16 bits of the first address (in the ELF file's own addresses).
    pub pc_low: u16,
    /// A [`CfaKind`].
    pub cfa_kind: u8,
    /// A [`FpKind`].
    pub fp_kind: u8,
    /// Operand of the CFA rule, in words of 8 bytes.
    pub cfa_words: u16,
    /// Operand of the frame pointer rule, in words of 8 bytes.
    pub fp_words: i16,
}
const _: () = assert!(size_of::<Row>() == 8);

impl Row {
    /// The row as one slot.
    pub const fn to_slot(self) -> u64 {
        self.pc_low as u64
            | (self.cfa_kind as u64) << 16
            | (self.fp_kind as u64) << 24
            | (self.cfa_words as u64) << 32
            | (self.fp_words as u16 as u64) << 48
    }

    /// The row in a slot.
    pub const fn from_slot(slot: u64) -> Self {
        Self {
            pc_low: slot as u16,
            cfa_kind: (slot >> 16) as u8,
            fp_kind: (slot >> 24) as u8,
            cfa_words: (slot >> 32) as u16,
            fp_words: (slot >> 48) as i16,
        }
    }

    /// Packs the operand of a `*Deref` rule: a signed offset of 12 bits and an addend of 4 bits, both in words.
    pub const fn deref_words(offset: i16, addend: u8) -> Option<u16> {
        if offset < -2048 || offset > 2047 || addend > 15 {
            return None;
        }
        Some((offset as u16 & 0x0fff) | (addend as u16) << 12)
    }

    /// (offset, addend) of a `*Deref` rule, both in words.
    pub const fn deref_parts(words: u16) -> (i64, u64) {
        ((((words << 4) as i16) >> 4) as i64, (words >> 12) as u64)
    }
}

/// The rows of one 256-byte page of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IndexEntry {
    /// Slot of the first row.
    pub first: u32,
    /// How many rows; 0: nothing is known of this page.
    pub count: u32,
}
const _: () = assert!(size_of::<IndexEntry>() == 8);

impl IndexEntry {
    /// The entry as one slot.
    pub const fn to_slot(self) -> u64 {
        self.first as u64 | (self.count as u64) << 32
    }

    /// The entry in a slot.
    pub const fn from_slot(slot: u64) -> Self {
        Self { first: slot as u32, count: (slot >> 32) as u32 }
    }
}

/// [`Mapping::index`]: this code has no rows (JIT, Go, a stripped table): use the frame pointer.
pub const INDEX_FRAME_POINTER: u32 = u32::MAX;
/// [`Mapping::index`]: rows exist but are not in the pool now: ship the stack.
pub const INDEX_NOT_LOADED: u32 = u32::MAX - 1;

/// One executable mapping of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// First runtime address.
    pub start: u64,
    /// First runtime address after it.
    pub end: u64,
    /// ELF address = runtime address - bias (wrapping).
    pub bias: u64,
    /// Slot of the index entry of `first_page`, or one of the `INDEX_*` constants.
    pub index: u32,
    /// Entries of the index.
    pub pages: u32,
    /// ELF address >> [`PAGE_SHIFT`] of the first index entry.
    pub first_page: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Mapping>() == 40);

/// Slots of one [`Mapping`].
pub const MAPPING_SLOTS: usize = size_of::<Mapping>() / 8;

impl Mapping {
    /// The mapping as slots.
    pub const fn to_slots(self) -> [u64; MAPPING_SLOTS] {
        [
            self.start,
            self.end,
            self.bias,
            self.index as u64 | (self.pages as u64) << 32,
            self.first_page as u64 | (self.reserved as u64) << 32,
        ]
    }
}

/// A process whose mappings are known. Key: its tgid (u32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    /// Changes with every change of the mappings or of the rows that they point at; never the same for two processes.
    pub generation: u32,
    /// Slot of the first mapping.
    pub mappings: u32,
    /// How many; all in one chunk.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Process>() == 16);
