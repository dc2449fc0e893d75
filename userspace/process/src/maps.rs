//! `/proc/PID/maps`: which code a process has in memory.
//!
//! Only executable mappings are kept. The parser works on bytes: paths need not be UTF-8. The kernel writes a newline
//! in a path as `\012` (`show_map_vma` in fs/proc/task_mmu.c) and nothing else escaped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use descry_decode::ids::{FileOffset, RuntimeAddress, Tgid};

use crate::error::ProcessError;
use crate::{proc_file, target};

/// Executable mappings kept of one process.
pub const MAX_MAPPINGS: usize = 16_384;
/// Bytes of a line; a path is at most 4096, each byte of which may be written as four.
const MAX_LINE: u64 = 4 * 4096 + 256;

/// A device number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// Which driver; 0: a file system without a block device (overlayfs, btrfs, tmpfs).
    pub major: u32,
    /// Which device of it.
    pub minor: u32,
}

impl Device {
    /// From stat(2)'s `st_dev`.
    pub fn from_stat(st_dev: u64) -> Self {
        // Linux has 12 bits of major and 20 of minor numbers.
        Self { major: nix::sys::stat::major(st_dev) as u32, minor: nix::sys::stat::minor(st_dev) as u32 }
    }
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingSource {
    /// A file.
    File {
        /// As the process saw it when it was mapped.
        path: PathBuf,
        /// Whether it has no name any more.
        deleted: bool,
    },
    /// The kernel's code for userspace.
    Vdso,
    /// The fixed page of old system calls (x86_64).
    Vsyscall,
    /// Memory without a file: code made at run time.
    Anonymous,
    /// Anything else that the kernel names, such as `[uprobes]`.
    Special(String),
}

impl MappingSource {
    /// From the name in `/proc/PID/maps` or in a perf `MMAP2` record (there without ` (deleted)`).
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"" | b"//anon" | b"[heap]" => return Self::Anonymous,
            b"[vdso]" => return Self::Vdso,
            b"[vsyscall]" => return Self::Vsyscall,
            _ => {}
        }
        // Shared memory without a file has an invisible one in the kernel, and its name shows.
        let anonymous: [&[u8]; 7] =
            [b"[anon:", b"[anon_shmem:", b"[stack", b"/dev/zero", b"/anon_hugepage", b"/SYSV", b"/[aio]"];
        if anonymous.iter().any(|prefix| name.starts_with(prefix)) {
            return Self::Anonymous;
        }
        if !name.starts_with(b"/") {
            return Self::Special(String::from_utf8_lossy(name).into_owned());
        }
        let (path, deleted) = match name.strip_suffix(b" (deleted)") {
            Some(path) => (path, true),
            None => (name, false),
        };
        Self::File { path: PathBuf::from(OsString::from_vec(path.to_vec())), deleted }
    }
}

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: RuntimeAddress,
    /// First address after it.
    pub end: RuntimeAddress,
    /// Where in the file `start` lies.
    pub offset: FileOffset,
    /// Device of the file.
    pub device: Device,
    /// Inode number of the file; 0: no file.
    pub inode: u64,
    /// What is mapped.
    pub source: MappingSource,
}

/// The executable mappings of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// By rising address.
    pub mappings: Vec<Mapping>,
    /// Lines that could not be parsed.
    pub malformed: u64,
    /// Executable mappings after the first [`MAX_MAPPINGS`].
    pub beyond_limit: u64,
}

/// Reads `/proc/PID/maps`. Empty for a kernel thread or a process that ended but was not waited for.
pub fn read(tgid: Tgid) -> Result<Maps, ProcessError> {
    let maps = read_file(tgid, "maps")?;
    if !maps.mappings.is_empty() {
        return Ok(maps);
    }
    // Where the main thread has ended before the others, these still tell.
    let other = target::tids(tgid)?.into_iter().filter(|tid| tid.0 != tgid.0).find_map(|tid| {
        let maps = read_file(tgid, &format!("task/{tid}/maps")).ok()?;
        (!maps.mappings.is_empty()).then_some(maps)
    });
    Ok(other.unwrap_or(maps))
}

fn read_file(tgid: Tgid, file: &str) -> Result<Maps, ProcessError> {
    File::open(proc_file::path(tgid, file))
        .and_then(|opened| parse(BufReader::with_capacity(64 << 10, opened)))
        .map_err(|source| ProcessError::from_io(tgid, file, source))
}

/// Parses the text of `/proc/PID/maps`. Fails only where `reader` does.
pub fn parse(mut reader: impl BufRead) -> io::Result<Maps> {
    let mut maps = Maps::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(maps);
        }
        match parse_line(line.strip_suffix(b"\n").unwrap_or(&line)) {
            Line::Executable(_) if maps.mappings.len() >= MAX_MAPPINGS => maps.beyond_limit += 1,
            Line::Executable(mapping) => maps.mappings.push(mapping),
            Line::Data => {}
            Line::Malformed => maps.malformed += 1,
        }
    }
}

enum Line {
    Executable(Mapping),
    Data,
    Malformed,
}

/// `START-END PERMS OFFSET MAJOR:MINOR INODE    NAME`, proc_pid_maps(5); all numbers but the inode are hexadecimal.
fn parse_line(line: &[u8]) -> Line {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let (Some(range), Some(permissions)) = (fields.next(), fields.next()) else { return Line::Malformed };
    match permissions {
        [_, _, b'x', _] => {}
        [_, _, b'-', _] => return Line::Data,
        _ => return Line::Malformed,
    }
    let mapping = (|| {
        let (start, end) = pair(range, b'-')?;
        let offset = hexadecimal(fields.next()?)?;
        let (major, minor) = pair(fields.next()?, b':')?;
        let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let name = fields.next().unwrap_or(b"").trim_ascii_start();
        (start < end).then(|| Mapping {
            start: RuntimeAddress(start),
            end: RuntimeAddress(end),
            offset: FileOffset(offset),
            device: Device { major: major as u32, minor: minor as u32 },
            inode,
            source: MappingSource::from_name(&unescape(name)),
        })
    })();
    mapping.map_or(Line::Malformed, Line::Executable)
}

fn pair(field: &[u8], separator: u8) -> Option<(u64, u64)> {
    let at = field.iter().position(|byte| *byte == separator)?;
    let (left, right) = (field.get(..at)?, field.get(at + 1..)?);
    Some((hexadecimal(left)?, hexadecimal(right)?))
}

fn hexadecimal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut unescaped = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            unescaped.push(b'\n');
            rest = after;
        } else {
            unescaped.push(first);
            rest = tail;
        }
    }
    unescaped
}
