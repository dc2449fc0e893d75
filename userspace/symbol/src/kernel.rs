//! Names of kernel addresses from `/proc/kallsyms`: the kernel, its modules, BPF programs, trampolines.
//!
//! blazesym looks the names up. Two things it does not know: that a symbol may be data (lines are `ADDRESS TYPE NAME
//! [MODULE]`), and which of several names of an address is best. So it is given a copy in memory with the best name of
//! each address, where what is not code has none. There are about 120 000 symbols; copy and blazesym's own table take
//! about 12 MB and are gone after the call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustc_hash::FxHashMap;

use crate::error::SymbolError;
use crate::name::Name;

/// Bytes read of the file.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of a line (`KSYM_NAME_LEN` is 512).
const MAX_LINE: u64 = 4096;
/// How far a symbol may reach: nothing is known of what lies behind the last function of a module.
const MAX_FUNCTION: u64 = 256 * 1024;
/// The name of what is not code; no kernel symbol has it.
const NOT_CODE: &str = "-";

/// Functions that are remembered at most (about 150 B each); a busy machine has some hundreds.
const MAX_REMEMBERED: usize = 8192;

/// Names of kernel addresses that were asked for before: the file is read for new functions only.
#[derive(Debug, Default)]
pub struct KernelNames {
    /// By their first address.
    functions: BTreeMap<u64, Function>,
}

#[derive(Debug)]
struct Function {
    /// The address behind its last one.
    end: u64,
    /// None: nobody knows.
    name: Option<Arc<str>>,
}

impl KernelNames {
    /// The name of an address; the outer none: it was not asked for.
    fn get(&self, address: u64) -> Option<Option<Arc<str>>> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.end).then(|| function.name.clone())
    }

    /// Names of `addresses`, by what is remembered and else by the file.
    pub(crate) fn lookup(
        &mut self,
        path: &Path,
        addresses: &[u64],
        max_name_bytes: usize,
    ) -> Result<Vec<Option<Arc<str>>>, SymbolError> {
        let known: Vec<_> = addresses.iter().map(|address| self.get(*address)).collect();
        let unknown = addresses.iter().zip(&known).filter(|(_, known)| known.is_none());
        let mut unknown: Vec<u64> = unknown.map(|(address, _)| *address).collect();
        if unknown.is_empty() {
            return Ok(known.into_iter().map(Option::flatten).collect());
        }
        unknown.sort_unstable();
        unknown.dedup();
        let found = read(path, &unknown, max_name_bytes)?;
        let fresh: FxHashMap<u64, Option<Arc<str>>> =
            unknown.iter().copied().zip(found.iter().map(|(_, name)| name.clone())).collect();
        if self.functions.len() + found.len() > MAX_REMEMBERED {
            self.functions.clear();
        }
        for (range, name) in found.into_iter().take(MAX_REMEMBERED) {
            self.functions.insert(range.start, Function { end: range.end, name });
        }
        let name = |(address, known): (&u64, Option<Option<Arc<str>>>)| {
            known.unwrap_or_else(|| fresh.get(address).cloned().flatten())
        };
        Ok(addresses.iter().zip(known).map(name).collect())
    }
}

/// Addresses that have the same name, and that.
type Named = (Range<u64>, Option<Arc<str>>);

/// Names of addresses, sorted and each once, with the addresses that have the same.
fn read(path: &Path, addresses: &[u64], max_name_bytes: usize) -> Result<Vec<Named>, SymbolError> {
    let name: Arc<str> = path.to_string_lossy().into();
    let mut around = Around::new(addresses);
    let copy = copy(path, &mut around).map_err(|source| SymbolError::Read { name: name.clone(), source })?;
    let copy = copy.ok_or(SymbolError::KernelAddressesHidden)?;
    let source = Source::Kernel(Kernel {
        kallsyms: MaybeDefault::Some(PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd()))),
        vmlinux: MaybeDefault::None,
        debug_syms: false,
        ..Kernel::default()
    });
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(false)
        .enable_demangling(false)
        .build();
    let asked = catch_unwind(AssertUnwindSafe(|| symbolizer.symbolize(&source, Input::AbsAddr(addresses))));
    let failed = |reason| SymbolError::Symbolizer { name: name.clone(), reason };
    let found =
        asked.map_err(|_| failed("it panicked".into()))?.map_err(|error| failed(error.to_string()))?;
    let named = addresses.iter().zip(found).zip(around.ends()).map(|((address, found), end)| {
        let alone = *address..address.saturating_add(1);
        let Symbolized::Sym(symbol) = found else { return (alone, None) };
        let covers = address.checked_sub(symbol.addr).is_some_and(|at| at < MAX_FUNCTION);
        if !covers || symbol.name == NOT_CODE {
            return (alone, None);
        }
        // Rust code in the kernel has mangled names.
        let name = Name::new(symbol.name.as_bytes(), max_name_bytes).map(|name| name.function);
        // Modules and BPF programs come and go, and others come to their place.
        let range = match end {
            Some(end) => symbol.addr..end.min(symbol.addr.saturating_add(MAX_FUNCTION)),
            None => alone,
        };
        (range, name)
    });
    Ok(named.collect())
}

/// The symbols around each address: where its function ends, and whether both are the kernel's own.
struct Around<'a> {
    addresses: &'a [u64],
    /// The highest symbol up to each address and above the one before, and the lowest above it and up to the next one.
    nearest: Vec<[Option<Near>; 2]>,
}

/// Where a symbol is, and whether it is the kernel's own.
type Near = (u64, bool);

impl<'a> Around<'a> {
    fn new(addresses: &'a [u64]) -> Self {
        Self { addresses, nearest: vec![[None; 2]; addresses.len()] }
    }

    /// There is a symbol.
    fn symbol(&mut self, start: u64, of_kernel: bool) {
        let place = self.addresses.partition_point(|address| *address < start);
        if let Some([begin, _]) = self.nearest.get_mut(place)
            && begin.is_none_or(|(known, _)| start > known)
        {
            *begin = Some((start, of_kernel));
        }
        if let Some([_, end]) = place.checked_sub(1).and_then(|place| self.nearest.get_mut(place))
            && end.is_none_or(|(known, _)| start < known)
        {
            *end = Some((start, of_kernel));
        }
    }

    /// Of each address, where the next symbol is, if that and its own are the kernel's own.
    fn ends(mut self) -> Vec<Option<u64>> {
        let mut last = None;
        for [begin, _] in &mut self.nearest {
            last = begin.or(last);
            *begin = last;
        }
        let mut next = None;
        for [_, end] in self.nearest.iter_mut().rev() {
            next = end.or(next);
            *end = next;
        }
        let of_kernel = |around: &[Option<Near>; 2]| match around {
            [Some((_, true)), Some((end, true))] => Some(*end),
            _ => None,
        };
        self.nearest.iter().map(of_kernel).collect()
    }
}

/// The best symbol of each address; `None` if the kernel hides addresses. Names of one address stand together.
fn copy(path: &Path, around: &mut Around<'_>) -> io::Result<Option<File>> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?.take(MAX_BYTES));
    let copy = File::from(memfd_create(c"descry-kallsyms", MFdFlags::MFD_CLOEXEC)?);
    let mut out = BufWriter::with_capacity(64 * 1024, copy);
    let mut line = Vec::new();
    let mut best = Best::default();
    let mut any = false;
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some((start, kind, name, of_kernel)) = parse(&line).filter(|(start, ..)| *start != 0) else {
            continue;
        };
        any = true;
        around.symbol(start, of_kernel);
        let rank = (matches!(kind, b't' | b'T' | b'w' | b'W'), kind.is_ascii_uppercase());
        if start != best.start {
            best.write(&mut out)?;
            best.start = start;
        } else if rank <= best.rank {
            continue;
        }
        best.rank = rank;
        best.name.clear();
        best.name.push_str(name);
    }
    best.write(&mut out)?;
    let copy = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(any.then_some(copy))
}

#[derive(Default)]
struct Best {
    start: u64,
    /// Code before data, global before local.
    rank: (bool, bool),
    name: String,
}

impl Best {
    fn write(&self, out: &mut BufWriter<File>) -> io::Result<()> {
        if self.start == 0 {
            return Ok(());
        }
        let name = if self.rank.0 { &*self.name } else { NOT_CODE };
        writeln!(out, "{:x} t {name}", self.start)
    }
}

/// Address, type and name of a symbol, and whether it is the kernel's own: of a module, a fourth word names it.
fn parse(line: &[u8]) -> Option<(u64, u8, &str, bool)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = *words.next()?.as_bytes().first()?;
    Some((start, kind, words.next()?, words.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is remembered after addresses were asked for, in a file of these symbols.
    fn check(symbols: &str, asked: &[u64], names: &[Option<&str>], remembered: &[(u64, u64)]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(symbols.as_bytes()).unwrap();
        let mut known = KernelNames::default();
        for _ in 0..2 {
            let found = known.lookup(file.path(), asked, 100).unwrap();
            assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), names);
            // The second time nothing is read.
            file.as_file().set_len(0).unwrap();
        }
        let functions = known.functions.iter().map(|(start, function)| (*start, function.end));
        assert_eq!(functions.collect::<Vec<_>>(), remembered);
    }

    #[test]
    fn a_function_of_the_kernel_is_remembered_whole_and_one_of_a_module_by_address() {
        let symbols = "1000 T one\n1100 t two\n1180 d data\n1200 T three\n\
                       9000 t loaded\t[module]\n9100 t more\t[module]\n";
        check(symbols, &[0x1010], &[Some("one")], &[(0x1000, 0x1100)]);
        check(symbols, &[0x1150, 0x1010], &[Some("two"), Some("one")], &[(0x1000, 0x1100), (0x1100, 0x1180)]);
        check(symbols, &[0x1190], &[None], &[(0x1190, 0x1191)]);
        check(symbols, &[0x1210], &[Some("three")], &[(0x1210, 0x1211)]);
        check(symbols, &[0x9010], &[Some("loaded")], &[(0x9010, 0x9011)]);
        check(symbols, &[0x500], &[None], &[(0x500, 0x501)]);
    }
}
