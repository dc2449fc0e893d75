//! Names of kernel addresses from `/proc/kallsyms`: the kernel, its modules, BPF programs, trampolines.
//!
//! The file has about 120 000 lines, `ADDRESS TYPE NAME [MODULE]`, and no sizes. It is read as a stream; memory grows
//! with the addresses asked for. A symbol covers up to the next one, of any type.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::error::SymbolError;
use crate::name::Name;

/// Bytes read of the file.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes of a line (`KSYM_NAME_LEN` is 512).
const MAX_LINE: u64 = 4096;
/// How far a symbol may reach: nothing is known of what lies behind the last function of a module.
const MAX_FUNCTION: u64 = 256 * 1024;

/// The symbol with the highest address at or below an asked one.
#[derive(Clone, Debug, Default)]
struct Nearest {
    start: u64,
    is_text: bool,
    is_global: bool,
    name: String,
}

impl Nearest {
    /// How well it fits: greater is better.
    fn rank(&self) -> (u64, bool, bool) {
        (self.start, self.is_text, self.is_global)
    }
}

/// Names of `addresses` (sorted, without duplicates).
pub(crate) fn lookup(
    path: &Path,
    addresses: &[u64],
    max_name_bytes: usize,
) -> Result<Vec<Option<Arc<str>>>, SymbolError> {
    let read_error = |source| SymbolError::Read { name: path.to_string_lossy().into(), source };
    let mut reader =
        BufReader::with_capacity(64 * 1024, File::open(path).map_err(read_error)?.take(MAX_BYTES));
    let mut nearest = vec![Nearest::default(); addresses.len()];
    let mut any_address = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(read_error)? == 0 {
            break;
        }
        let Some((start, kind, name)) = parse(&line) else { continue };
        any_address |= start != 0;
        let index = addresses.partition_point(|address| *address < start);
        let Some(slot) = nearest.get_mut(index).filter(|_| start != 0) else { continue };
        let is_text = matches!(kind, b't' | b'T' | b'w' | b'W');
        let is_global = kind.is_ascii_uppercase();
        if (start, is_text, is_global) > slot.rank() {
            slot.start = start;
            slot.is_text = is_text;
            slot.is_global = is_global;
            slot.name.clear();
            slot.name.push_str(name);
        }
    }
    if !any_address {
        return Err(SymbolError::KernelAddressesHidden);
    }
    let mut names = Vec::with_capacity(addresses.len());
    let mut last = Nearest::default();
    for (address, slot) in addresses.iter().zip(nearest) {
        if slot.start != 0 {
            last = slot;
        }
        let covers = last.is_text && address.saturating_sub(last.start) < MAX_FUNCTION;
        // Rust code in the kernel has mangled names.
        let name = covers.then(|| Name::new(last.name.as_bytes(), max_name_bytes)).flatten();
        names.push(name.map(|name| name.function));
    }
    Ok(names)
}

fn parse(line: &[u8]) -> Option<(u64, u8, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = *words.next()?.as_bytes().first()?;
    Some((start, kind, words.next()?))
}
