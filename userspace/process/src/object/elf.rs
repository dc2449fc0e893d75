//! What descry wants to know of an ELF file, by bounded reads of headers and notes.
//!
//! Layouts are those of the System V ABI (gABI chapters 4 and 5), by the crate `object`. A file that lies costs at most
//! [`MAX_NOTES`] and [`MAX_SECTIONS`] and a typed error.

use descry_decode::ids::ElfAddress;
use object::read::elf::{CompressionHeader, FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::read::{CompressedData, CompressionFormat};
use object::{Endianness, elf, pod};

use crate::object::content::Content;
use crate::object::error::ElfError;

/// Program headers of a file at most.
const MAX_SEGMENTS: u16 = 1024;
/// Section headers of a file at most. Linked files have some 40.
const MAX_SECTIONS: u64 = 16_384;
/// Bytes of section names at most.
const MAX_SECTION_NAMES: u64 = 1 << 20;
/// Bytes of one section name at most; longer ones are cut.
const MAX_SECTION_NAME: usize = 128;
/// Bytes of all notes of a file at most.
const MAX_NOTES: u64 = 1 << 20;
/// Bytes of `.comment` that are searched.
const MAX_COMMENT: u64 = 64 << 10;
/// Bytes of a build id at most. GNU's are 20, Go's 83.
const MAX_BUILD_ID: usize = 256;

/// A part of the file that is loaded (`PT_LOAD`), or that describes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_offset` (bytes).
    pub file_offset: u64,
    /// `p_vaddr`.
    pub vaddr: ElfAddress,
    /// `p_filesz` (bytes).
    pub file_size: u64,
    /// `p_memsz` (bytes).
    pub mem_size: u64,
    /// `PF_X`.
    pub executable: bool,
}

/// What instruction set the code is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `EM_X86_64`, 64-bit addresses.
    X86_64,
    /// `EM_AARCH64`, 64-bit addresses.
    Aarch64,
    /// Another one: `e_machine`.
    Other(u16),
}

/// The headers of a file, read.
#[derive(Debug)]
pub(crate) struct Headers {
    pub architecture: Architecture,
    pub segments: Vec<Segment>,
    pub eh_frame_header: Option<Segment>,
    pub gnu_build_id: Option<Vec<u8>>,
    pub go_build_id: Option<String>,
    pub is_go: bool,
    pub is_rust: bool,
    pub bad_sections: bool,
}

/// A section with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `sh_addr`.
    pub address: ElfAddress,
    /// Its content, decompressed where it was compressed.
    pub data: Vec<u8>,
}

struct SectionEntry {
    name: Vec<u8>,
    kind: elf::SectionType,
    address: u64,
    offset: u64,
    size: u64,
    align: u64,
    compressed: bool,
}

fn malformed(what: impl Into<String>) -> ElfError {
    ElfError::Malformed { what: what.into() }
}

/// Reads the headers.
pub(crate) fn headers(content: &Content) -> Result<Headers, ElfError> {
    match class(content)? {
        elf::ELFCLASS64 => headers_of::<elf::FileHeader64<Endianness>>(content),
        _ => headers_of::<elf::FileHeader32<Endianness>>(content),
    }
}

/// Reads the section of this name; `None` where there is none, or where it takes no place in the file.
pub(crate) fn section(content: &Content, name: &str, limit: u64) -> Result<Option<Section>, ElfError> {
    match class(content)? {
        elf::ELFCLASS64 => section_of::<elf::FileHeader64<Endianness>>(content, name, limit),
        _ => section_of::<elf::FileHeader32<Endianness>>(content, name, limit),
    }
}

fn class(content: &Content) -> Result<elf::FileClass, ElfError> {
    let ident = content.read(0, 16).map_err(|_| ElfError::NoHeader)?;
    match ident.as_slice() {
        [0x7f, b'E', b'L', b'F', class @ (1 | 2), ..] => Ok(elf::FileClass(*class)),
        _ => Err(ElfError::NoHeader),
    }
}

type Parsed<E> = (E, Endianness);

fn file_header<E: FileHeader<Endian = Endianness>>(content: &Content) -> Result<Parsed<E>, ElfError> {
    let bytes = content.read_aligned(0, size_of::<E>() as u64).map_err(|_| ElfError::NoHeader)?;
    let header = E::parse(bytes.as_slice()).map_err(|_| ElfError::NoHeader)?;
    Ok((*header, header.endian().map_err(|_| ElfError::NoHeader)?))
}

fn headers_of<E: FileHeader<Endian = Endianness>>(content: &Content) -> Result<Headers, ElfError> {
    let (header, endian) = file_header::<E>(content)?;
    let architecture = match (header.e_machine(endian), header.is_type_64()) {
        (elf::EM_X86_64, true) => Architecture::X86_64,
        (elf::EM_AARCH64, true) => Architecture::Aarch64,
        (other, _) => Architecture::Other(other.0),
    };
    let mut headers = Headers {
        architecture,
        segments: Vec::new(),
        eh_frame_header: None,
        gnu_build_id: None,
        go_build_id: None,
        is_go: false,
        is_rust: false,
        bad_sections: false,
    };
    let mut notes_left = MAX_NOTES;
    let mut notes = Vec::new();
    let count = header.e_phnum(endian);
    if count > MAX_SEGMENTS {
        return Err(malformed(format!("e_phnum is {count}; at most {MAX_SEGMENTS} make sense")));
    }
    if count > 0 && usize::from(header.e_phentsize(endian)) != size_of::<E::ProgramHeader>() {
        return Err(malformed(format!("e_phentsize is {}", header.e_phentsize(endian))));
    }
    let table = content.read_aligned(
        header.e_phoff(endian).into(),
        u64::from(count) * size_of::<E::ProgramHeader>() as u64,
    )?;
    let (programs, _) = pod::slice_from_bytes::<E::ProgramHeader>(table.as_slice(), count.into())
        .map_err(|()| malformed("the program headers cannot be read"))?;
    for program in programs {
        let segment = Segment {
            file_offset: program.p_offset(endian).into(),
            vaddr: ElfAddress(program.p_vaddr(endian).into()),
            file_size: program.p_filesz(endian).into(),
            mem_size: program.p_memsz(endian).into(),
            executable: program.p_flags(endian).contains(elf::PF_X),
        };
        match program.p_type(endian) {
            elf::PT_LOAD => headers.segments.push(segment),
            elf::PT_GNU_EH_FRAME => headers.eh_frame_header = Some(segment),
            elf::PT_NOTE => {
                notes.push((segment.file_offset, segment.file_size, program.p_align(endian).into()))
            }
            _ => {}
        }
    }
    // Sections may be stripped, or garbage while the program headers are good: then the notes of segments do.
    let sections = sections_of(content, &header, endian);
    headers.bad_sections = sections.is_err();
    let sections = sections.unwrap_or_default();
    for section in &sections {
        match section.name.as_slice() {
            b".gopclntab" | b".data.rel.ro.gopclntab" | b".go.buildinfo" => headers.is_go = true,
            b".comment" => {
                let comment = content.read(section.offset, section.size.min(MAX_COMMENT)).unwrap_or_default();
                headers.is_rust = contains(&comment, b"rustc version");
            }
            _ => {}
        }
        if section.kind == elf::SHT_NOTE {
            notes.push((section.offset, section.size, section.align));
        }
    }
    for (offset, size, align) in notes {
        if size <= notes_left {
            notes_left -= size;
            // One bad note does not spoil the file.
            let Ok(bytes) = content.read_aligned(offset, size) else { continue };
            build_ids(bytes.as_slice(), align, endian, &mut headers);
        }
    }
    headers.is_go |= headers.go_build_id.is_some();
    Ok(headers)
}

fn build_ids(bytes: &[u8], align: u64, endian: Endianness, headers: &mut Headers) {
    // Notes look the same in both classes; binutils takes an alignment of 8 as such and everything else as 4.
    let align = if align == 8 { 8 } else { 4 };
    let Ok(notes) = NoteIterator::<elf::FileHeader32<Endianness>>::new(endian, align, bytes) else { return };
    for note in notes.map_while(Result::ok) {
        let id = note.desc();
        if id.is_empty() || id.len() > MAX_BUILD_ID {
            continue;
        }
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
            headers.gnu_build_id.get_or_insert_with(|| id.to_vec());
        } else if note.name() == elf::ELF_NOTE_GO && note.n_type(endian) == elf::NT_GO_BUILD_ID {
            headers.go_build_id.get_or_insert_with(|| String::from_utf8_lossy(id).into_owned());
        }
    }
}

fn sections_of<E: FileHeader<Endian = Endianness>>(
    content: &Content,
    header: &E,
    endian: Endianness,
) -> Result<Vec<SectionEntry>, ElfError> {
    let offset: u64 = header.e_shoff(endian).into();
    let entry = size_of::<E::SectionHeader>() as u64;
    if offset == 0 {
        return Ok(Vec::new());
    }
    if u64::from(header.e_shentsize(endian)) != entry {
        return Err(malformed(format!("e_shentsize is {}", header.e_shentsize(endian))));
    }
    let count = u64::from(header.e_shnum(endian));
    if count > MAX_SECTIONS {
        return Err(malformed(format!("e_shnum is {count}; at most {MAX_SECTIONS} make sense")));
    }
    let table = content.read_aligned(offset, count * entry)?;
    let (raw, _) = pod::slice_from_bytes::<E::SectionHeader>(table.as_slice(), count as usize)
        .map_err(|()| malformed("the section headers cannot be read"))?;
    let names = raw
        .get(usize::from(header.e_shstrndx(endian).0))
        .ok_or_else(|| malformed("e_shstrndx names no section"))?;
    let names_size: u64 = names.sh_size(endian).into();
    let names = content.read(names.sh_offset(endian).into(), names_size.min(MAX_SECTION_NAMES))?;
    Ok(raw
        .iter()
        .map(|section| SectionEntry {
            name: name_at(&names, section.sh_name(endian)),
            kind: section.sh_type(endian),
            address: section.sh_addr(endian).into(),
            offset: section.sh_offset(endian).into(),
            size: section.sh_size(endian).into(),
            align: section.sh_addralign(endian).into(),
            compressed: section.sh_flags(endian).contains(elf::SHF_COMPRESSED),
        })
        .collect())
}

fn name_at(names: &[u8], offset: u32) -> Vec<u8> {
    let name = names.get(offset as usize..).unwrap_or(&[]);
    name.iter().take(MAX_SECTION_NAME).take_while(|byte| **byte != 0).copied().collect()
}

fn section_of<E: FileHeader<Endian = Endianness>>(
    content: &Content,
    name: &str,
    limit: u64,
) -> Result<Option<Section>, ElfError> {
    let (header, endian) = file_header::<E>(content)?;
    let sections = sections_of(content, &header, endian)?;
    let wanted = |section: &&SectionEntry| {
        section.name == name.as_bytes() && section.kind != elf::SHT_NOBITS && section.kind != elf::SHT_NULL
    };
    let Some(section) = sections.iter().find(wanted) else { return Ok(None) };
    let within = |len: u64| {
        if len <= limit { Ok(()) } else { Err(ElfError::TooLarge { what: name.to_owned(), len, limit }) }
    };
    within(section.size)?;
    let address = ElfAddress(section.address);
    if !section.compressed {
        return Ok(Some(Section { address, data: content.read(section.offset, section.size)? }));
    }
    let bytes = content.read_aligned(section.offset, section.size)?;
    let compressed = compressed_data::<E>(bytes.as_slice(), endian)
        .ok_or_else(|| malformed(format!("{name} has a bad compression header")))?;
    within(compressed.uncompressed_size)?;
    let data = compressed
        .decompress()
        .map_err(|error| malformed(format!("{name} cannot be decompressed: {error}")))?
        .into_owned();
    Ok(Some(Section { address, data }))
}

fn compressed_data<E: FileHeader<Endian = Endianness>>(
    bytes: &[u8],
    endian: Endianness,
) -> Option<CompressedData<'_>> {
    let (header, data) = pod::from_bytes::<E::CompressionHeader>(bytes).ok()?;
    let format = match header.ch_type(endian) {
        elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
        elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
        _ => return None,
    };
    Some(CompressedData { format, data, uncompressed_size: header.ch_size(endian).into() })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
