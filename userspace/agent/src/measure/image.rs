//! Only the parts of a binary that unwinding needs.
//!
//! A file of the system is mapped: what is not read of it takes no memory. Of another one, which others may make
//! shorter, an image is made: as long as the file, but all zeros outside of the headers and the sections that were asked
//! for. Zeros that were never written take no memory, so a program of 100 MB costs what its unwind tables do.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use descry_probe::map_file;
use descry_process::object::{DebugFile, ElfError, Object, Segment};
use descry_symbol::is_of_the_system;
use descry_unwind::cfi::Bytes;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf, pod};

/// A longer file is not looked at.
const MAX_LEN: u64 = 4 << 30;
/// Longer sections, and longer tables of headers, are left out.
const MAX_PART: u64 = 256 << 20;

/// Sections that hold call frame information, or that its addresses are relative to (those by their headers alone).
const UNWIND_SECTIONS: [&[u8]; 4] = [b".eh_frame", b".eh_frame_hdr", b".debug_frame", b".zdebug_frame"];

type Header = elf::FileHeader64<Endianness>;

/// A binary's unwind tables.
pub fn of_unwind_tables(object: &Object) -> Result<Bytes, ElfError> {
    match object.file() {
        Some(file) => mapped_or_image(file, Some(object)),
        None => Ok(Arc::new(object.read_all(MAX_PART)?)),
    }
}

/// The unwind tables of a separate debug file.
pub fn of_debug_file(debug: &DebugFile) -> Result<Bytes, ElfError> {
    mapped_or_image(&debug.file, None)
}

fn mapped_or_image(file: &File, object: Option<&Object>) -> Result<Bytes, ElfError> {
    let metadata = file.metadata().map_err(|source| ElfError::Read { offset: 0, len: 0, source })?;
    if is_of_the_system(&metadata)
        && let Ok(mapped) = map_file(file)
    {
        return Ok(Arc::new(mapped));
    }
    Ok(Arc::new(image(file, object.map_or(metadata.len(), Object::len), object)?))
}

fn image(file: &File, len: u64, object: Option<&Object>) -> Result<Vec<u8>, ElfError> {
    let too_large = || ElfError::TooLarge { what: "the file".to_owned(), len, limit: MAX_LEN };
    let image_len = usize::try_from(len).ok().filter(|_| len <= MAX_LEN).ok_or_else(too_large)?;
    let mut image = Image { file, object, bytes: vec![0; image_len] };
    image.fill(0..size_of::<Header>() as u64)?;
    for part in image.header_tables() {
        image.fill(part)?;
    }
    for part in image.section_names() {
        image.fill(part)?;
    }
    let sections = image.unwind_sections();
    // A file without section headers still says where its tables are; where they end it does not.
    let by_program_header = sections.is_empty().then(|| image.loaded_around_eh_frame_header()).flatten();
    for part in sections.into_iter().chain(by_program_header) {
        image.fill(part)?;
    }
    Ok(image.bytes)
}

struct Image<'a> {
    file: &'a File,
    object: Option<&'a Object>,
    bytes: Vec<u8>,
}

impl Image<'_> {
    /// Copies a part of the file to its place. Parts outside of the file, and too large ones, are left out.
    fn fill(&mut self, part: Range<u64>) -> Result<(), ElfError> {
        let len = part.end.saturating_sub(part.start);
        let (Ok(start), Ok(end)) = (usize::try_from(part.start), usize::try_from(part.end)) else {
            return Ok(());
        };
        if let Some(to) = self.bytes.get_mut(start..end).filter(|_| len <= MAX_PART) {
            let read = self.file.read_exact_at(to, part.start);
            read.map_err(|source| ElfError::Read { offset: part.start, len, source })?;
        }
        Ok(())
    }

    fn header(&self) -> Option<(&Header, Endianness)> {
        let header = Header::parse(self.bytes.as_slice()).ok()?;
        Some((header, header.endian().ok()?))
    }

    /// Where the program headers and section headers are.
    fn header_tables(&self) -> Vec<Range<u64>> {
        let Some((header, endian)) = self.header() else { return Vec::new() };
        let table = |offset: u64, count: u16, size: u16| {
            offset..offset.saturating_add(u64::from(count) * u64::from(size))
        };
        // A file with more than 65,279 sections says so in its first section header; such are no linked programs.
        vec![
            table(header.e_phoff(endian), header.e_phnum(endian), header.e_phentsize(endian)),
            table(header.e_shoff(endian), header.e_shnum(endian), header.e_shentsize(endian)),
        ]
    }

    fn section_headers(&self) -> Option<(&Header, Endianness, &[elf::SectionHeader64<Endianness>])> {
        let (header, endian) = self.header()?;
        let start = usize::try_from(header.e_shoff(endian)).ok()?;
        let table = self.bytes.get(start..)?;
        let (headers, _) = pod::slice_from_bytes(table, header.e_shnum(endian).into()).ok()?;
        Some((header, endian, headers))
    }

    /// Where the names of the sections are.
    fn section_names(&self) -> Vec<Range<u64>> {
        let Some((header, endian, sections)) = self.section_headers() else { return Vec::new() };
        let names = sections.get(usize::from(header.e_shstrndx(endian).0));
        names.and_then(|section| file_range(section, endian)).into_iter().collect()
    }

    /// The loaded segment that `PT_GNU_EH_FRAME` points into: `.eh_frame` lies in the same one.
    fn loaded_around_eh_frame_header(&self) -> Option<Range<u64>> {
        let object = self.object?;
        let header = object.eh_frame_header?;
        let holds = |segment: &&Segment| {
            header.file_offset.checked_sub(segment.file_offset).is_some_and(|into| into < segment.file_size)
        };
        let segment = object.segments.iter().find(holds)?;
        Some(segment.file_offset..segment.file_offset.checked_add(segment.file_size)?)
    }

    /// Where the unwind sections are.
    fn unwind_sections(&self) -> Vec<Range<u64>> {
        let Some((header, endian, sections)) = self.section_headers() else { return Vec::new() };
        let names = sections.get(usize::from(header.e_shstrndx(endian).0));
        let Some(names) = names.and_then(|section| file_range(section, endian)) else { return Vec::new() };
        let is_wanted = |section: &&elf::SectionHeader64<Endianness>| {
            let start = names.start.checked_add(section.sh_name(endian).into());
            let name = start.and_then(|start| self.bytes.get(usize::try_from(start).ok()?..));
            let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
            UNWIND_SECTIONS.contains(&name)
        };
        sections.iter().filter(is_wanted).filter_map(|section| file_range(section, endian)).collect()
    }
}

/// Where the bytes of a section are in the file.
fn file_range(section: &elf::SectionHeader64<Endianness>, endian: Endianness) -> Option<Range<u64>> {
    let (offset, len) = section.file_range(endian)?;
    Some(offset..offset.checked_add(len)?)
}
