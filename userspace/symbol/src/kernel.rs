//! Names of kernel addresses from `/proc/kallsyms`: the kernel, its modules, BPF programs, trampolines.
//!
//! blazesym looks the names up. Two things it does not know: that a symbol may be data (lines are `ADDRESS TYPE NAME
//! [MODULE]`), and which of several names of an address is best. So it is given a copy in memory with the best name of
//! each address, where what is not code has none. There are about 120 000 symbols; copy and blazesym's own table take
//! about 12 MB and are gone after the call.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use nix::sys::memfd::{MFdFlags, memfd_create};

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

/// Names of `addresses`.
pub(crate) fn lookup(
    path: &Path,
    addresses: &[u64],
    max_name_bytes: usize,
) -> Result<Vec<Option<Arc<str>>>, SymbolError> {
    let name: Arc<str> = path.to_string_lossy().into();
    let copy = copy(path).map_err(|source| SymbolError::Read { name: name.clone(), source })?;
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
    let named = addresses.iter().zip(found).map(|(address, found)| {
        let Symbolized::Sym(symbol) = found else { return None };
        let covers = address.checked_sub(symbol.addr).is_some_and(|at| at < MAX_FUNCTION);
        if !covers || symbol.name == NOT_CODE {
            return None;
        }
        // Rust code in the kernel has mangled names.
        Name::new(symbol.name.as_bytes(), max_name_bytes).map(|name| name.function)
    });
    Ok(named.collect())
}

/// The best symbol of each address; `None` if the kernel hides addresses. Names of one address stand together.
fn copy(path: &Path) -> io::Result<Option<File>> {
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
        let Some((start, kind, name)) = parse(&line).filter(|(start, ..)| *start != 0) else { continue };
        any = true;
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

fn parse(line: &[u8]) -> Option<(u64, u8, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = *words.next()?.as_bytes().first()?;
    Some((start, kind, words.next()?))
}
