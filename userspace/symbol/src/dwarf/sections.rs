//! The debug sections of a file, decompressed where they are compressed.

use std::io::Read;
use std::rc::Rc;

use flate2::bufread::ZlibDecoder;
use gimli::{Dwarf, SectionId};
use object::elf;

use crate::budget::Budget;
use crate::elf::{ElfFile, Section, u32_at, u64_at};
use crate::error::SymbolError;
use crate::options::Limits;
use crate::reader::SectionReader;

/// Sections that name functions and lines; all others (types' locations, macros) are never read.
const WANTED: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];
/// `Elf64_Chdr`: type (u32), reserved (u32), size (u64), alignment (u64).
const COMPRESSION_HEADER_LEN: u64 = 24;
/// zstd's window of a section, as its command line allows without `--long` (2^27 bytes).
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Opens the debug sections.
pub(super) fn load(
    elf: &ElfFile,
    limits: &Limits,
    budget: &Rc<Budget>,
) -> Result<Dwarf<SectionReader>, SymbolError> {
    let sections = || WANTED.iter().filter_map(|id| elf.section(id.name()));
    let size = sections().fold(0u64, |sum, section| sum.saturating_add(section.size));
    if size > limits.max_debug_bytes {
        return Err(SymbolError::TooLarge { name: elf.name.clone(), size, limit: limits.max_debug_bytes });
    }
    let mut room = limits.max_decompressed_bytes;
    Dwarf::load(|id| {
        let Some(section) = WANTED.contains(&id).then(|| elf.section(id.name())).flatten() else {
            return Ok(SectionReader::from_memory(Vec::new(), budget));
        };
        if !section.is_compressed() {
            return Ok(SectionReader::from_file(&elf.file, section.offset, section.size, budget));
        }
        let bytes = decompress(elf, section, id.name(), room, limits)?;
        room = room.saturating_sub(bytes.len() as u64);
        Ok(SectionReader::from_memory(bytes, budget))
    })
}

fn decompress(
    elf: &ElfFile,
    section: &Section,
    section_name: &'static str,
    room: u64,
    limits: &Limits,
) -> Result<Vec<u8>, SymbolError> {
    let bad =
        |reason: String| SymbolError::Compressed { name: elf.name.clone(), section: section_name, reason };
    let header = elf
        .file
        .read_vec(section.offset, COMPRESSION_HEADER_LEN as usize)
        .map_err(|error| bad(error.to_string()))?;
    let size = u64_at(&header, 8);
    if size > room {
        return Err(SymbolError::TooLarge {
            name: elf.name.clone(),
            size,
            limit: limits.max_decompressed_bytes,
        });
    }
    let packed_len =
        section.size.checked_sub(COMPRESSION_HEADER_LEN).ok_or_else(|| bad("it is empty".into()))?;
    let packed =
        FileSpan { elf, at: section.offset.saturating_add(COMPRESSION_HEADER_LEN), left: packed_len };
    let packed = std::io::BufReader::with_capacity(64 * 1024, packed);
    let mut bytes = Vec::with_capacity(size as usize);
    // The header's size is a promise that the stream may break: read one byte more at most.
    let read = match u32_at(&header, 0) {
        kind if kind == elf::ELFCOMPRESS_ZLIB.0 => {
            ZlibDecoder::new(packed).take(size + 1).read_to_end(&mut bytes)
        }
        kind if kind == elf::ELFCOMPRESS_ZSTD.0 => {
            zstd::Decoder::with_buffer(packed).and_then(|mut decoder| {
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                decoder.take(size + 1).read_to_end(&mut bytes)
            })
        }
        kind => return Err(bad(format!("compression {kind} is unknown"))),
    };
    read.map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 != size {
        return Err(bad(format!("its header says {size} bytes, it holds {}", bytes.len())));
    }
    Ok(bytes)
}

/// A part of a file as a stream.
struct FileSpan<'a> {
    elf: &'a ElfFile,
    at: u64,
    left: u64,
}

impl Read for FileSpan<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.elf.file.read_at(buffer.get_mut(..len).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
