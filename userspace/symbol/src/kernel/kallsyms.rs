//! Lines of `/proc/kallsyms`: `ADDRESS TYPE NAME`, and for what was loaded later a fourth word that names its module.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

/// Bytes read of the file.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of a line (`KSYM_NAME_LEN` is 512).
const MAX_LINE: u64 = 4096;

/// A symbol of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    /// Its first address; never zero.
    pub start: u64,
    /// As the linker knows it.
    pub name: &'a str,
    /// Of several names of an address, that with the highest rank: code before data, global before local.
    pub rank: Rank,
    /// Of the kernel itself, not of a module or a BPF program.
    pub of_kernel: bool,
}

/// Whether a symbol is code, and whether it is global.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub is_code: bool,
    is_global: bool,
}

/// Calls `each` with every symbol of the file. Returns whether there was one: a kernel that hides addresses shows
/// zeros.
pub(super) fn read(path: &Path, mut each: impl FnMut(Symbol<'_>) -> io::Result<()>) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?.take(MAX_BYTES));
    let mut line = Vec::new();
    let mut any = false;
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(any);
        }
        if let Some(symbol) = parse(&line) {
            any = true;
            each(symbol)?;
        }
    }
}

fn parse(line: &[u8]) -> Option<Symbol<'_>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok().filter(|start| *start != 0)?;
    let kind = *words.next()?.as_bytes().first()?;
    let rank =
        Rank { is_code: matches!(kind, b't' | b'T' | b'w' | b'W'), is_global: kind.is_ascii_uppercase() };
    Some(Symbol { start, name: words.next()?, rank, of_kernel: words.next().is_none() })
}
