//! Finds the tables of call frame information in an ELF file.
//!
//! Sections are taken by name; a file without section headers is searched through `PT_GNU_EH_FRAME`, as the runtime's
//! own unwinder does. Nothing is copied but what is compressed.

use crate::Error;
use crate::report::{Limits, Report};
use crate::search_table::SearchTable;
use crate::section::Format;
use object::elf::{PF_X, PT_GNU_EH_FRAME};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{
    CompressionFormat, Endianness, Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags,
};
use std::ops::Range;

/// The instruction sets that the unwinder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// x86_64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// Where the bytes of a table are.
pub(crate) enum Content {
    /// In the file itself.
    File(Range<usize>),
    /// In its debug file.
    DebugFile(Range<usize>),
    /// Decompressed.
    Owned(Vec<u8>),
}

/// One table of call frame information.
pub(crate) struct Table {
    pub(crate) format: Format,
    pub(crate) content: Content,
    pub(crate) bases: gimli::BaseAddresses,
    /// Whether the table ends at its first terminator, because its length is not known.
    pub(crate) terminated: bool,
}

impl Table {
    /// Address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.bases.eh_frame.section.unwrap_or_default()
    }

    pub(crate) fn data<'a>(&'a self, file: &'a [u8], debug: &'a [u8]) -> &'a [u8] {
        match &self.content {
            Content::File(range) => file.get(range.clone()).unwrap_or_default(),
            Content::DebugFile(range) => debug.get(range.clone()).unwrap_or_default(),
            Content::Owned(bytes) => bytes,
        }
    }
}

/// What an ELF file says about its frames.
pub(crate) struct Frames {
    pub(crate) architecture: Architecture,
    /// Addresses of executable segments; empty: the file has no segments.
    pub(crate) code: Vec<Range<u64>>,
    /// In the order of rank: an address is described by the first table that knows it.
    pub(crate) tables: Vec<Table>,
    /// Bytes and address of `.eh_frame_hdr`.
    header: Option<(Range<usize>, u64)>,
    /// The signal trampoline of an aarch64 vdso, which has no call frame information since Linux 5.8.
    pub(crate) trampoline: Option<Range<u64>>,
}

impl Frames {
    /// Finds the tables of `file`, then those of its separate debug file.
    pub(crate) fn find(
        file: &[u8],
        debug: Option<&[u8]>,
        limits: &Limits,
        report: &mut Report,
    ) -> Result<Self, Error> {
        let elf = parse(file)?;
        let architecture = architecture(&elf)?;
        let mut frames = Self {
            architecture,
            code: code(&elf),
            tables: Vec::new(),
            header: section_range(&elf, ".eh_frame_hdr"),
            trampoline: (architecture == Architecture::Aarch64).then(|| trampoline(&elf)).flatten(),
        };
        frames.add_tables(&elf, Content::File, limits, report);
        if !frames.tables.iter().any(|table| table.format == Format::EhFrame) {
            frames.add_by_program_header(&elf, file);
        }
        if let Some(debug) = debug {
            match parse(debug) {
                Ok(elf) if self::architecture(&elf).ok() == Some(architecture) => {
                    frames.add_tables(&elf, Content::DebugFile, limits, report);
                }
                _ => report.bad_debug_files += 1,
            }
        }
        if frames.tables.is_empty() && frames.trampoline.is_none() {
            return Err(Error::NoCallFrameInformation);
        }
        Ok(frames)
    }

    /// The search table of `.eh_frame_hdr`, if the first table is the one that it points into.
    pub(crate) fn search_table(&self, file: &[u8]) -> Option<SearchTable> {
        let (range, address) = self.header.clone()?;
        let table = self.tables.first()?;
        let ours = table.format == Format::EhFrame && matches!(table.content, Content::File(_));
        SearchTable::find(file, range, address).filter(|search| ours && search.eh_frame() == table.address())
    }

    fn add_tables(
        &mut self,
        elf: &Elf<'_>,
        place: fn(Range<usize>) -> Content,
        limits: &Limits,
        report: &mut Report,
    ) {
        for (name, format) in [(".eh_frame", Format::EhFrame), (".debug_frame", Format::DebugFrame)] {
            // `section_by_name` also finds the older `.zdebug_frame`.
            let Some(section) = elf.section_by_name(name) else { continue };
            let content = match content(&section, place, limits) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(()) => {
                    report.bad_sections += 1;
                    continue;
                }
            };
            self.tables.push(Table {
                format,
                content,
                bases: bases(elf, section.address()),
                terminated: false,
            });
        }
    }

    /// `.eh_frame` by way of `PT_GNU_EH_FRAME`: its end is unknown, so it reaches to the end of its segment; the walk
    /// through it stops at its terminator.
    fn add_by_program_header(&mut self, elf: &Elf<'_>, file: &[u8]) {
        let endian = elf.endian();
        let Some(segment) = elf.elf_program_headers().iter().find(|s| s.p_type(endian) == PT_GNU_EH_FRAME)
        else {
            return;
        };
        let address = segment.p_vaddr(endian);
        let (offset, size) = segment.file_range(endian);
        let Some(range) = byte_range(offset, size) else { return };
        let Some(data) = file.get(range.clone()) else { return };
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(address);
        let parsed = gimli::EhFrameHdr::new(data, gimli::LittleEndian).parse(&bases, 8);
        let Ok(gimli::Pointer::Direct(start)) = parsed.map(|header| header.eh_frame_ptr()) else { return };
        let Some(content) = elf.segments().find_map(|segment| {
            let (offset, size) = segment.file_range();
            let inside = start.checked_sub(segment.address()).filter(|inside| *inside < size)?;
            byte_range(offset.checked_add(inside)?, size - inside)
        }) else {
            return;
        };
        self.header = Some((range, address));
        self.tables.insert(
            0,
            Table {
                format: Format::EhFrame,
                content: Content::File(content),
                bases: self::bases(elf, start),
                terminated: true,
            },
        );
    }
}

type Elf<'a> = ElfFile64<'a, Endianness>;

fn parse(file: &[u8]) -> Result<Elf<'_>, Error> {
    ElfFile64::parse(file).map_err(|reason| Error::Elf { reason })
}

fn architecture(elf: &Elf<'_>) -> Result<Architecture, Error> {
    match (elf.architecture(), elf.is_little_endian()) {
        (object::Architecture::X86_64, true) => Ok(Architecture::X86_64),
        (object::Architecture::Aarch64, true) => Ok(Architecture::Aarch64),
        (other, little) => Err(Error::Machine {
            machine: format!("{other:?} ({})", if little { "little-endian" } else { "big-endian" }),
        }),
    }
}

fn code(elf: &Elf<'_>) -> Vec<Range<u64>> {
    elf.segments()
        .filter(|s| matches!(s.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X.0 != 0))
        .map(|s| s.address()..s.address().saturating_add(s.size()))
        .collect()
}

fn bases(elf: &Elf<'_>, table: u64) -> gimli::BaseAddresses {
    let mut bases = gimli::BaseAddresses::default().set_eh_frame(table);
    if let Some(section) = elf.section_by_name(".text") {
        bases = bases.set_text(section.address());
    }
    if let Some(section) = elf.section_by_name(".got") {
        bases = bases.set_got(section.address());
    }
    bases
}

fn byte_range(offset: u64, size: u64) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(size)?).ok()?;
    Some(start..end)
}

fn section_range(elf: &Elf<'_>, name: &str) -> Option<(Range<usize>, u64)> {
    let section = elf.section_by_name(name)?;
    let (offset, size) = section.file_range()?;
    Some((byte_range(offset, size)?, section.address()))
}

/// The bytes of a section; `None` when it has none in this file.
fn content<'a>(
    section: &impl ObjectSection<'a>,
    place: fn(Range<usize>) -> Content,
    limits: &Limits,
) -> Result<Option<Content>, ()> {
    let compressed = section.compressed_data().map_err(|_| ())?;
    if compressed.data.is_empty() {
        return Ok(None);
    }
    if compressed.format == CompressionFormat::None {
        let (offset, size) = section.file_range().ok_or(())?;
        return byte_range(offset, size).map(place).map(Some).ok_or(());
    }
    if compressed.uncompressed_size > limits.section_bytes {
        return Err(());
    }
    Ok(Some(Content::Owned(compressed.decompress().map_err(|_| ())?.into_owned())))
}

/// `__kernel_rt_sigreturn` and the instruction before it: the kernel returns to its first instruction, and return
/// addresses are looked up minus one.
fn trampoline(elf: &Elf<'_>) -> Option<Range<u64>> {
    let symbol = elf.dynamic_symbols().find(|s| s.name_bytes() == Ok(b"__kernel_rt_sigreturn"))?;
    let start = symbol.address();
    Some(start.checked_sub(4)?..start.checked_add(8)?)
}
