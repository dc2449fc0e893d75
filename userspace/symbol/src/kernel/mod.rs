//! Names of kernel addresses from `/proc/kallsyms`: the kernel, its modules, BPF programs, trampolines.
//!
//! The file is made anew by the kernel for each reader (5 MB and 80 ms of CPU on 6.18), which a daemon cannot pay in
//! every window. The kernel's own functions stay what they are, so they are kept ([`own`]); modules and BPF programs
//! come and go, and others come to their place, so those that were asked for are kept for some minutes only. blazesym
//! would read the file for each question or keep 12 MB, and knows neither that a symbol may be data nor which of
//! several names of an address is best.

mod kallsyms;
mod own;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::error::SymbolError;
use crate::name::Name;
use kallsyms::{Rank, Symbol};
use own::{Builder, Names, OwnFunctions};

/// How far a symbol may reach: nothing is known of what lies behind the last function of a module.
const MAX_FUNCTION: u64 = 256 * 1024;
/// Functions outside of the kernel itself that are kept at most (about 150 B each).
const MAX_LOADED: usize = 8192;
/// How long a name is believed that may have become another's.
const KEEP_LOADED: Duration = Duration::from_secs(300);

/// Names of the kernel that were read before: the file is read again for what was loaded since.
#[derive(Debug, Default)]
pub struct KernelNames {
    own: Option<OwnFunctions>,
    /// Modules and BPF programs, by the first address of their functions.
    loaded: BTreeMap<u64, Function>,
    /// When the oldest of them was read.
    loaded_since: Option<Instant>,
}

#[derive(Debug)]
struct Function {
    /// The address behind its last one.
    end: u64,
    /// None: nobody knows.
    name: Option<Arc<str>>,
}

impl KernelNames {
    /// Names of `addresses`, by what is remembered and else by the file.
    pub(crate) fn lookup(
        &mut self,
        path: &Path,
        addresses: &[u64],
        max_name_bytes: usize,
    ) -> Result<Vec<Option<Arc<str>>>, SymbolError> {
        if self.loaded_since.is_some_and(|since| since.elapsed() > KEEP_LOADED) {
            self.loaded.clear();
            self.loaded_since = None;
        }
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let unknown: Vec<u64> = sorted.iter().copied().filter(|address| !self.knows(*address)).collect();
        if !unknown.is_empty() {
            self.read(path, &unknown, max_name_bytes)?;
        }
        let names = self.names(&sorted, max_name_bytes);
        Ok(addresses.iter().map(|address| names.get(address).cloned().flatten()).collect())
    }

    fn knows(&self, address: u64) -> bool {
        self.own_function(address).is_some() || self.loaded_function(address).is_some()
    }

    /// The number of the kernel's own function at an address.
    fn own_function(&self, address: u64) -> Option<usize> {
        let (number, at) = self.own.as_ref()?.find(address)?;
        (at < MAX_FUNCTION).then_some(number)
    }

    fn loaded_function(&self, address: u64) -> Option<&Function> {
        let (_, function) = self.loaded.range(..=address).next_back()?;
        (address < function.end).then_some(function)
    }

    /// Names of sorted addresses by what is remembered.
    fn names(&self, addresses: &[u64], max_name_bytes: usize) -> FxHashMap<u64, Option<Arc<str>>> {
        let mut own = self.own.as_ref().map(Names::new);
        // Many addresses of a function, one name.
        let mut last: Option<(usize, Option<Arc<str>>)> = None;
        let mut name = |address: u64| {
            if let Some(function) = self.loaded_function(address) {
                return function.name.clone();
            }
            let number = self.own_function(address)?;
            if let Some((known, name)) = &last
                && *known == number
            {
                return name.clone();
            }
            let name = own.as_mut()?.get(number).and_then(|raw| readable(raw, max_name_bytes));
            last = Some((number, name.clone()));
            name
        };
        addresses.iter().map(|address| (*address, name(*address))).collect()
    }

    /// Reads the file for addresses that are sorted and not known.
    fn read(&mut self, path: &Path, addresses: &[u64], max_name_bytes: usize) -> Result<(), SymbolError> {
        let mut around = Around::new(addresses);
        let mut builder = self.own.is_none().then(Builder::default);
        let read = kallsyms::read(path, |symbol| {
            around.symbol(&symbol);
            match &mut builder {
                Some(builder) if symbol.of_kernel => builder.symbol(&symbol),
                _ => Ok(()),
            }
        });
        let failed = |source| SymbolError::Read { name: path.to_string_lossy().into(), source };
        if !read.map_err(failed)? {
            return Err(SymbolError::KernelAddressesHidden);
        }
        if let Some(builder) = builder {
            self.own = Some(builder.finish().map_err(failed)?);
        }
        // The first time most are the kernel's own, which take no room here. What finds none stays unknown, and is counted so.
        let found = addresses.iter().zip(around.functions());
        let found = found.filter(|(address, _)| self.own_function(**address).is_none());
        let found: Vec<_> = found.take(MAX_LOADED).collect();
        if self.loaded.len() + found.len() > MAX_LOADED {
            self.loaded.clear();
        }
        for (address, found) in found {
            let (start, function) = match found {
                Some((start, end, name)) => {
                    (start, Function { end, name: readable(name.as_bytes(), max_name_bytes) })
                }
                None => (*address, Function { end: address.saturating_add(1), name: None }),
            };
            self.loaded.insert(start, function);
        }
        self.loaded_since.get_or_insert_with(Instant::now);
        Ok(())
    }
}

/// A name as people write it: Rust code in the kernel has mangled ones.
fn readable(raw: &[u8], max_name_bytes: usize) -> Option<Arc<str>> {
    Name::new(raw, max_name_bytes).map(|name| name.function)
}

/// The symbols around each address.
struct Around<'a> {
    addresses: &'a [u64],
    /// The highest symbol up to each address and above the one before, and the lowest above it and up to the next one.
    nearest: Vec<(Option<Below>, Option<u64>)>,
}

/// The symbol that an address belongs to.
#[derive(Clone, Default)]
struct Below {
    start: u64,
    rank: Rank,
    name: String,
}

impl<'a> Around<'a> {
    fn new(addresses: &'a [u64]) -> Self {
        Self { addresses, nearest: vec![(None, None); addresses.len()] }
    }

    fn symbol(&mut self, symbol: &Symbol<'_>) {
        let place = self.addresses.partition_point(|address| *address < symbol.start);
        if let Some((below, _)) = self.nearest.get_mut(place)
            && below.as_ref().is_none_or(|known| (symbol.start, symbol.rank) > (known.start, known.rank))
        {
            // The file is in order: nearly every symbol is nearer than the one before.
            let known = below.get_or_insert_default();
            (known.start, known.rank) = (symbol.start, symbol.rank);
            known.name.clear();
            known.name.push_str(symbol.name);
        }
        if let Some((_, above)) = place.checked_sub(1).and_then(|place| self.nearest.get_mut(place))
            && above.is_none_or(|known| symbol.start < known)
        {
            *above = Some(symbol.start);
        }
    }

    /// Of each address, where its function starts and ends, and its name.
    fn functions(mut self) -> Vec<Option<(u64, u64, String)>> {
        let mut last = None;
        for (below, _) in &mut self.nearest {
            last = below.take().or(last);
            below.clone_from(&last);
        }
        let mut next = None;
        for (_, above) in self.nearest.iter_mut().rev() {
            next = above.or(next);
            *above = next;
        }
        let function = |(address, (below, above)): (&u64, (Option<Below>, Option<u64>))| {
            let Below { start, rank, name } = below?;
            let reach = start.saturating_add(MAX_FUNCTION);
            (rank.is_code && *address < reach)
                .then(|| (start, above.map_or(reach, |end| end.min(reach)), name))
        };
        self.addresses.iter().zip(self.nearest).map(function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const SYMBOLS: &str = "1000 T one\n1100 t two\n1180 d data\n1200 T three\n1300 D _end\n\
                           9000 t loaded\t[module]\n9100 t more\t[module]\n";

    fn file(symbols: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(symbols.as_bytes()).unwrap();
        file
    }

    /// Names of these addresses by what `known` remembers and a file of these symbols.
    fn check(known: &mut KernelNames, symbols: &str, asked: &[u64], names: &[Option<&str>]) {
        let found = known.lookup(file(symbols).path(), asked, 100).unwrap();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), names);
    }

    #[test]
    fn the_file_is_read_once_for_the_kernel_itself() {
        let mut known = KernelNames::default();
        check(&mut known, SYMBOLS, &[0x1010], &[Some("one")]);
        let (two, three) = (Some("two"), Some("three"));
        check(&mut known, "1 T x\n", &[0x1210, 0x1150, 0x1010, 0x1101], &[three, two, Some("one"), two]);
    }

    #[test]
    fn what_was_loaded_is_read_when_it_is_asked_for_and_again_after_some_minutes() {
        let mut known = KernelNames::default();
        check(&mut known, SYMBOLS, &[0x9010, 0x500], &[Some("loaded"), None]);
        let other = "9000 t other\t[module2]\n9100 t another\t[module2]\n";
        check(&mut known, other, &[0x90ff, 0x9100], &[Some("loaded"), Some("another")]);
        check(&mut known, "1 T x\n", &[0x9110], &[Some("another")]);
        known.loaded_since = Instant::now().checked_sub(KEEP_LOADED + Duration::from_secs(1));
        check(&mut known, other, &[0x90ff, 0x1010], &[Some("other"), Some("one")]);
    }

    #[test]
    fn addresses_of_the_kernel_itself_take_no_room_of_what_was_loaded() {
        let mut known = KernelNames::default();
        let own = (0x1000..0x1100).cycle().take(10).chain(0x1_0000..0x1_0000 + MAX_LOADED as u64);
        let asked: Vec<u64> = own.chain([0x9_0000]).collect();
        let symbols = "1000 T one\n10000 T many\n20000 D _end\n90000 t loaded\t[module]\n";
        let found = known.lookup(file(symbols).path(), &asked, 100).unwrap();
        assert_eq!(found.last().cloned().flatten().as_deref(), Some("loaded"));
    }

    #[test]
    fn what_is_not_code_has_no_name() {
        let mut known = KernelNames::default();
        check(&mut known, SYMBOLS, &[0x1190, 0x11ff, 0x1200], &[None, None, Some("three")]);
        check(&mut known, SYMBOLS, &[0x9100 + MAX_FUNCTION], &[None]);
    }
}
