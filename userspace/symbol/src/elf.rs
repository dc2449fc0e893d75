//! The headers of an ELF file (64-bit, little-endian): which sections there are.
//!
//! Layouts: System V ABI, chapter 4, "ELF Header" and "Sections". Only section headers are read here; nothing is kept
//! but one small record a section.

use std::rc::Rc;
use std::sync::Arc;

use object::elf;

use crate::error::SymbolError;
use crate::file::ObjectFile;

/// Section headers read at most (a linker writes fewer than a hundred; `-ffunction-sections` objects are not run).
const MAX_SECTIONS: usize = 16_384;
/// Bytes of the section name table read at most.
const MAX_NAME_TABLE: u64 = 1 << 20;
const HEADER_LEN: usize = 64;
const SECTION_LEN: usize = 64;

/// One section.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: Box<str>,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    /// First address (ELF).
    pub(crate) address: u64,
    /// Position in the file (bytes).
    pub(crate) offset: u64,
    /// Size (bytes).
    pub(crate) size: u64,
    pub(crate) link: u32,
}

impl Section {
    /// Whether it holds code.
    pub(crate) fn is_code(&self) -> bool {
        let wanted = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
        self.flags & wanted == wanted
    }

    /// Whether the address lies in it.
    pub(crate) fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|at| at < self.size)
    }

    /// Whether the file holds bytes for it.
    pub(crate) fn has_bytes(&self) -> bool {
        self.kind != elf::SHT_NOBITS.0 && self.size > 0
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.flags & elf::SHF_COMPRESSED.0 != 0
    }
}

/// The sections of one file.
#[derive(Debug)]
pub(crate) struct ElfFile {
    pub(crate) file: Rc<ObjectFile>,
    pub(crate) name: Arc<str>,
    /// `e_type`.
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) sections: Vec<Section>,
}

impl ElfFile {
    /// Reads the headers.
    pub(crate) fn parse(file: ObjectFile, name: &Arc<str>) -> Result<Self, SymbolError> {
        let bad = |reason| SymbolError::Elf { name: name.clone(), reason };
        let header = file.read_vec(0, HEADER_LEN).map_err(|_| bad("it is shorter than an ELF header"))?;
        if header.get(..4) != Some(&elf::ELFMAG[..]) {
            return Err(bad("it does not begin with \\x7fELF"));
        }
        if header.get(4..6) != Some(&[elf::ELFCLASS64.0, elf::ELFDATA2LSB.0][..]) {
            return Err(bad("only 64-bit little-endian files are read"));
        }
        let file = Rc::new(file);
        let (kind, machine) = (u16_at(&header, 16), u16_at(&header, 18));
        let table_offset = u64_at(&header, 40);
        let entry_len = u16_at(&header, 58);
        let count = usize::from(u16_at(&header, 60));
        let names_index = usize::from(u16_at(&header, 62));
        if table_offset == 0 || count == 0 {
            return Ok(Self { file, name: name.clone(), kind, machine, sections: Vec::new() });
        }
        if usize::from(entry_len) != SECTION_LEN || count > MAX_SECTIONS {
            return Err(bad("its section headers are of an unknown kind"));
        }
        let table = file
            .read_vec(table_offset, count * SECTION_LEN)
            .map_err(|_| bad("its section headers lie outside of the file"))?;
        let headers: Vec<&[u8]> = table.chunks_exact(SECTION_LEN).collect();
        let names = headers.get(names_index).map_or_else(Vec::new, |header| {
            let len = u64_at(header, 32).min(MAX_NAME_TABLE);
            file.read_vec(u64_at(header, 24), len as usize).unwrap_or_default()
        });
        let sections = headers
            .iter()
            .map(|header| Section {
                name: name_at(&names, u32_at(header, 0)),
                kind: u32_at(header, 4),
                flags: u64_at(header, 8),
                address: u64_at(header, 16),
                offset: u64_at(header, 24),
                size: u64_at(header, 32),
                link: u32_at(header, 40),
            })
            .collect();
        Ok(Self { file, name: name.clone(), kind, machine, sections })
    }

    /// The first section of this name that has bytes.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| &*section.name == name && section.has_bytes())
    }

    /// The code section that holds an address.
    pub(crate) fn code_section(&self, address: u64) -> Option<&Section> {
        self.sections.iter().find(|section| section.is_code() && section.contains(address))
    }

    /// A symbol table that has symbols, and its strings.
    pub(crate) fn table(&self, name: &str) -> Option<(&Section, &Section)> {
        let table = self.section(name)?;
        let strings = self.sections.get(table.link as usize)?;
        (strings.kind == elf::SHT_STRTAB.0 && strings.has_bytes()).then_some((table, strings))
    }

    /// Whether it holds debug information of functions.
    pub(crate) fn has_dwarf(&self) -> bool {
        self.section(".debug_info").is_some() && self.section(".debug_abbrev").is_some()
    }
}

fn name_at(names: &[u8], offset: u32) -> Box<str> {
    let bytes = names.get(offset as usize..).unwrap_or_default();
    let len = bytes.iter().take(256).position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into()
}

/// The little-endian number at `at`; 0 outside of the bytes.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u16::from_le_bytes(*chunk))
}

/// The little-endian number at `at`; 0 outside of the bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The little-endian number at `at`; 0 outside of the bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
