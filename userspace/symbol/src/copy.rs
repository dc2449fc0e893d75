//! A copy of what blazesym needs of a file: its symbol tables and debug sections, decompressed, and nothing else.
//!
//! Nobody else can change the copy while it is mapped, its sections decompress to what their headers say and no more,
//! and it refers to no other file (`.gnu_debuglink`, `.gnu_debugaltlink`, `.debug_sup` and `.gnu_debugdata` stay behind).
//! Up to 32 MiB it lies in memory; a larger one in a file without a name in `/var/tmp`, whose pages the kernel can write out.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use flate2::bufread::ZlibDecoder;
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::elf;

use crate::elf::{ElfFile, Section, u32_at, u64_at};
use crate::error::SymbolError;
use crate::file::ObjectFile;
use crate::options::Limits;

/// Debug sections that name functions and lines; all others (types' locations, macros) are never read.
pub(crate) const DEBUG_SECTIONS: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];
/// Symbol tables and the names of their strings, by which blazesym finds them.
const TABLES: [(&str, &str); 2] = [(".symtab", ".strtab"), (".dynsym", ".dynstr")];
/// `Elf64_Chdr`: type (u32), reserved (u32), size (u64), alignment (u64).
const COMPRESSION_HEADER_LEN: u64 = 24;
/// zstd's window of a section, as its command line allows without `--long` (2^27 bytes).
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes of a copy that lies in memory.
const MAX_IN_MEMORY: u64 = 32 << 20;
const HEADER_LEN: u64 = 64;
const SECTION_LEN: u16 = 64;
/// Where a section begins: symbols are read where they lie, as numbers of 8 bytes.
const ALIGNMENT: u64 = 16;

/// One section of the copy.
struct Part<'a> {
    name: &'static str,
    section: &'a Section,
    /// Size in the copy (bytes).
    size: u64,
}

/// Copies symbol tables and, if asked for, debug sections.
pub(crate) fn copy(from: &ElfFile, with_debug: bool, limits: &Limits) -> Result<ElfFile, SymbolError> {
    let mut parts = Vec::new();
    for (table, strings) in TABLES {
        if let Some((symbols, names)) = from.table(table) {
            parts.push(Part { name: table, section: symbols, size: symbols.size });
            parts.push(Part { name: strings, section: names, size: names.size });
        }
    }
    for name in DEBUG_SECTIONS.into_iter().filter(|_| with_debug) {
        let Some(section) = from.section(name) else { continue };
        let size = if section.is_compressed() { unpacked_size(from, section, name)? } else { section.size };
        parts.push(Part { name, section, size });
    }
    let size = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.size));
    if size > limits.max_decompressed_bytes {
        let limit = limits.max_decompressed_bytes;
        return Err(SymbolError::TooLarge { name: from.name.clone(), size, limit });
    }
    let copy_error = |source| SymbolError::Copy { name: from.name.clone(), source };
    let mut out = BufWriter::with_capacity(64 * 1024, new_file(size).map_err(copy_error)?);
    let placed = write_parts(from, &parts, &mut out)?;
    let file = write_headers(from, &parts, &placed, out).and_then(ObjectFile::private).map_err(copy_error)?;
    ElfFile::parse(file, &from.name)
}

fn new_file(size: u64) -> io::Result<File> {
    if size > MAX_IN_MEMORY {
        return tempfile::tempfile_in(Path::new("/var/tmp"));
    }
    Ok(memfd_create(c"descry-symbols", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Writes the contents of all parts; gives the offset of each.
fn write_parts(
    from: &ElfFile,
    parts: &[Part<'_>],
    out: &mut BufWriter<File>,
) -> Result<Vec<u64>, SymbolError> {
    let copy_error = |source| SymbolError::Copy { name: from.name.clone(), source };
    let mut placed = Vec::with_capacity(parts.len());
    let mut at = HEADER_LEN;
    for part in parts {
        at = at.next_multiple_of(ALIGNMENT);
        out.seek(SeekFrom::Start(at)).map_err(copy_error)?;
        if part.section.is_compressed() {
            unpack(from, part, out)?;
        } else {
            let mut span = FileSpan { elf: from, at: part.section.offset, left: part.size };
            let copied = io::copy(&mut span, out).map_err(copy_error)?;
            if copied != part.size {
                return Err(SymbolError::Elf {
                    name: from.name.clone(),
                    reason: "a section ends outside of the file",
                });
            }
        }
        placed.push(at);
        at += part.size;
    }
    Ok(placed)
}

/// Writes section headers and the ELF header (System V ABI, chapter 4).
fn write_headers(
    from: &ElfFile,
    parts: &[Part<'_>],
    placed: &[u64],
    mut out: BufWriter<File>,
) -> io::Result<File> {
    let mut names = vec![0];
    let mut name_offsets = Vec::with_capacity(parts.len() + 1);
    for name in parts.iter().map(|part| part.name).chain([".shstrtab"]) {
        name_offsets.push(names.len() as u32);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    let names_at = out.seek(SeekFrom::End(0))?.next_multiple_of(ALIGNMENT);
    out.seek(SeekFrom::Start(names_at))?;
    out.write_all(&names)?;
    let table_at = (names_at + names.len() as u64).next_multiple_of(ALIGNMENT);
    out.seek(SeekFrom::Start(table_at))?;
    out.write_all(&[0; SECTION_LEN as usize])?;
    let mut section = |name: u32, kind: u32, offset: u64, size: u64, link: u32, entry: u64| {
        out.write_all(&name.to_le_bytes())?;
        out.write_all(&kind.to_le_bytes())?;
        // sh_flags, sh_addr: nothing of this is loaded.
        out.write_all(&[0; 16])?;
        out.write_all(&offset.to_le_bytes())?;
        out.write_all(&size.to_le_bytes())?;
        out.write_all(&link.to_le_bytes())?;
        out.write_all(&[0; 4])?;
        out.write_all(&ALIGNMENT.to_le_bytes())?;
        out.write_all(&entry.to_le_bytes())
    };
    for (index, ((part, at), name)) in parts.iter().zip(placed).zip(&name_offsets).enumerate() {
        let is_table = TABLES.iter().any(|(table, _)| *table == part.name);
        // A table's strings follow it; section 0 is the empty one.
        let (link, entry) = if is_table { (index as u32 + 2, 24) } else { (0, 0) };
        section(*name, part.section.kind, *at, part.size, link, entry)?;
    }
    let last_name = name_offsets.last().copied().unwrap_or(0);
    section(last_name, elf::SHT_STRTAB.0, names_at, names.len() as u64, 0, 0)?;

    let count = parts.len() as u16 + 2;
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&elf::ELFMAG)?;
    out.write_all(&[elf::ELFCLASS64.0, elf::ELFDATA2LSB.0, 1])?;
    out.write_all(&[0; 9])?;
    out.write_all(&elf::ET_DYN.0.to_le_bytes())?;
    out.write_all(&from.machine.to_le_bytes())?;
    out.write_all(&1u32.to_le_bytes())?;
    // e_entry, e_phoff: no program headers.
    out.write_all(&[0; 16])?;
    out.write_all(&table_at.to_le_bytes())?;
    out.write_all(&[0; 4])?;
    for half in [HEADER_LEN as u16, 56, 0, SECTION_LEN, count, count - 1] {
        out.write_all(&half.to_le_bytes())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// What the header of a compressed section says of its size.
fn unpacked_size(elf: &ElfFile, section: &Section, section_name: &'static str) -> Result<u64, SymbolError> {
    let header = compression_header(elf, section, section_name)?;
    Ok(u64_at(&header, 8))
}

fn compression_header(
    elf: &ElfFile,
    section: &Section,
    section_name: &'static str,
) -> Result<Vec<u8>, SymbolError> {
    elf.file
        .read_vec(section.offset, COMPRESSION_HEADER_LEN as usize)
        .map_err(|error| compressed(elf, section_name, error.to_string()))
}

fn compressed(elf: &ElfFile, section: &'static str, reason: String) -> SymbolError {
    SymbolError::Compressed { name: elf.name.clone(), section, reason }
}

/// Decompresses a section into the copy.
fn unpack(elf: &ElfFile, part: &Part<'_>, out: &mut BufWriter<File>) -> Result<(), SymbolError> {
    let bad = |reason: String| compressed(elf, part.name, reason);
    let header = compression_header(elf, part.section, part.name)?;
    let packed_len =
        part.section.size.checked_sub(COMPRESSION_HEADER_LEN).ok_or_else(|| bad("it is empty".into()))?;
    let at = part.section.offset.saturating_add(COMPRESSION_HEADER_LEN);
    let packed = io::BufReader::with_capacity(64 * 1024, FileSpan { elf, at, left: packed_len });
    // The header's size is a promise that the stream may break: write one byte more at most.
    let most = part.size.saturating_add(1);
    let written = match u32_at(&header, 0) {
        kind if kind == elf::ELFCOMPRESS_ZLIB.0 => io::copy(&mut ZlibDecoder::new(packed).take(most), out),
        kind if kind == elf::ELFCOMPRESS_ZSTD.0 => {
            zstd::Decoder::with_buffer(packed).and_then(|mut decoder| {
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                io::copy(&mut decoder.take(most), out)
            })
        }
        kind => return Err(bad(format!("compression {kind} is unknown"))),
    };
    let written = written.map_err(|error| bad(error.to_string()))?;
    if written != part.size {
        return Err(bad(format!("its header says {} bytes, it holds {written} or more", part.size)));
    }
    Ok(())
}

/// A part of a file as a stream.
struct FileSpan<'a> {
    elf: &'a ElfFile,
    at: u64,
    left: u64,
}

impl Read for FileSpan<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.elf.file.read_at(buffer.get_mut(..len).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
