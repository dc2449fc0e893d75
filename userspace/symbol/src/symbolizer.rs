//! Addresses of files and of the kernel to frames.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use descry_decode::ids::{ElfAddress, RuntimeAddress};
use lru::LruCache;
use rustc_hash::FxHashMap;

use crate::budget::{Budget, Exhausted};
use crate::counters::Counters;
use crate::dwarf::{self, DebugFrames, Place};
use crate::elf::ElfFile;
use crate::error::{Outcome, SymbolError};
use crate::file::ObjectFile;
use crate::frame::{FrameKind, SourceFrame, Symbolized};
use crate::name::Name;
use crate::options::{ObjectSource, Options};
use crate::{gopclntab, kernel, plt, symtab};

/// Kernel addresses remembered (about 100 B each); the same few thousand come again and again.
const KERNEL_CACHE: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// Demangled names remembered within one call.
const MAX_NAMES: usize = 1 << 16;

/// Turns addresses into functions, files and lines. Keeps nothing of a file after the call that read it.
#[derive(Debug)]
pub struct Symbolizer {
    options: Options,
    kallsyms: PathBuf,
    kernel: LruCache<u64, Option<Arc<str>>>,
    counters: Counters,
}

impl Symbolizer {
    /// A symbolizer for this machine.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            kernel: LruCache::new(KERNEL_CACHE),
            counters: Counters::default(),
        }
    }

    /// Reads kernel symbols from another file than `/proc/kallsyms`.
    pub fn with_kallsyms(mut self, path: &Path) -> Self {
        self.kallsyms = path.to_path_buf();
        self.kernel.clear();
        self
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Names addresses of one file. Return addresses must have been made to point into their call (minus one).
    ///
    /// Preferred are, in this order: debug information in the file, in `debug_path`, `.symtab` of either, `.dynsym`, the
    /// linkage table, Go's own table. Whatever the file holds, this neither panics nor takes more than the limits.
    pub fn symbolize_object(&mut self, source: &ObjectSource, addresses: &[ElfAddress]) -> Outcome {
        let mut sorted: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut problems = Vec::new();
        let found = Object::new(source, &self.options, &mut problems, &mut self.counters).run(&sorted);
        let kind = match (source.is_go, source.is_rust) {
            (true, _) => FrameKind::Go,
            (_, true) => FrameKind::Rust,
            _ => FrameKind::Native,
        };
        let symbols = addresses
            .iter()
            .map(|address| {
                let index = sorted.binary_search(&address.0).ok();
                let symbol = index.and_then(|index| found.get(index)).cloned();
                symbol.unwrap_or(Symbolized { frames: Vec::new(), kind })
            })
            .collect();
        self.finish(symbols, problems)
    }

    /// Names addresses of the kernel, its modules and its BPF programs.
    pub fn symbolize_kernel(&mut self, addresses: &[RuntimeAddress]) -> Outcome {
        let mut missing: Vec<u64> = addresses
            .iter()
            .map(|address| address.0)
            .filter(|address| !self.kernel.contains(address))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let mut problems = Vec::new();
        let mut fresh = FxHashMap::default();
        if !missing.is_empty() {
            match kernel::lookup(&self.kallsyms, &missing, self.options.limits.max_name_bytes) {
                Ok(names) => {
                    for (address, name) in missing.into_iter().zip(names) {
                        self.kernel.put(address, name.clone());
                        fresh.insert(address, name);
                    }
                }
                Err(error) => problems.push(error),
            }
        }
        let symbols: Vec<Symbolized> = addresses
            .iter()
            .map(|address| {
                // A call with more addresses than the cache holds has its names in `fresh`.
                let known = self.kernel.get(&address.0).or_else(|| fresh.get(&address.0)).cloned().flatten();
                let frames = known.map(plain_frame).into_iter().collect::<Vec<_>>();
                self.counters.by_kallsyms += frames.len() as u64;
                Symbolized { frames, kind: FrameKind::Kernel }
            })
            .collect();
        self.finish(symbols, problems)
    }

    /// Forgets the names of kernel addresses: a module was loaded or removed.
    pub fn forget_kernel(&mut self) {
        self.kernel.clear();
    }

    fn finish(&mut self, symbols: Vec<Symbolized>, problems: Vec<SymbolError>) -> Outcome {
        self.counters.addresses += symbols.len() as u64;
        self.counters.unknown += symbols.iter().filter(|symbol| symbol.frames.is_empty()).count() as u64;
        self.counters.problems += problems.len() as u64;
        Outcome { symbols, problems }
    }
}

fn plain_frame(function: Arc<str>) -> SourceFrame {
    SourceFrame { function, system_name: None, file: None, line: None, column: None, inlined: false }
}

/// One call for one object.
struct Object<'a> {
    source: &'a ObjectSource,
    options: &'a Options,
    problems: &'a mut Vec<SymbolError>,
    counters: &'a mut Counters,
    budget: Rc<Budget>,
    names: FxHashMap<Arc<[u8]>, Option<Name>>,
}

impl<'a> Object<'a> {
    fn new(
        source: &'a ObjectSource,
        options: &'a Options,
        problems: &'a mut Vec<SymbolError>,
        counters: &'a mut Counters,
    ) -> Self {
        let budget = Rc::new(Budget::new(options.limits.max_work));
        Self { source, options, problems, counters, budget, names: FxHashMap::default() }
    }

    /// One entry for each address, or none at all if no file could be read.
    fn run(mut self, addresses: &[u64]) -> Vec<Symbolized> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let main = self.open(&self.source.open_path, self.source.name.clone());
        let debug =
            self.source.debug_path.as_deref().and_then(|path| self.open(path, path.to_string_lossy().into()));
        let with_dwarf = [&main, &debug].into_iter().flatten().find(|elf| elf.has_dwarf());
        let described = match with_dwarf {
            Some(elf) => dwarf::lookup(elf, addresses, self.options, &self.budget, self.problems),
            None => vec![DebugFrames::default(); addresses.len()],
        };
        // Line tables alone (`-g1`, `line-tables-only`) name functions of C++ and Rust without their namespace; the symbol
        // table has it. C's names need no help, and the table's would carry `.constprop.0` and the like.
        let open: Vec<u64> = addresses
            .iter()
            .zip(&described)
            .filter(|(_, frames)| {
                frames.functions.last().is_none_or(|function| {
                    function.name.is_none() || (!function.is_linkage && (frames.is_cpp || frames.is_rust))
                })
            })
            .map(|(address, _)| *address)
            .collect();
        let mut symbols = FxHashMap::default();
        if self.look_in_tables(&main, &debug, &open, &mut symbols).is_err() || self.budget.is_exhausted() {
            let (name, limit) = (self.source.name.clone(), self.options.limits.max_work);
            self.problems.push(SymbolError::TooMuchWork { name, limit });
        }
        addresses
            .iter()
            .zip(described)
            .map(|(address, frames)| self.frame(frames, symbols.get(address)))
            .collect()
    }

    fn open(&mut self, path: &Path, name: Arc<str>) -> Option<ElfFile> {
        match ObjectFile::open(path, &name).and_then(|file| ElfFile::parse(file, &name)) {
            Ok(elf) => Some(elf),
            Err(error) => {
                self.problems.push(error);
                None
            }
        }
    }

    /// Names of `open` (sorted) by the tables of the files, into `symbols`.
    fn look_in_tables(
        &mut self,
        main: &Option<ElfFile>,
        debug: &Option<ElfFile>,
        open: &[u64],
        symbols: &mut FxHashMap<u64, Arc<[u8]>>,
    ) -> Result<(), Exhausted> {
        let mut open = open.to_vec();
        for (elf, table) in [(main, ".symtab"), (debug, ".symtab"), (main, ".dynsym")] {
            let Some(elf) = elf else { continue };
            let Some(section) = elf.section(table).filter(|_| !open.is_empty()) else { continue };
            let found = symtab::lookup(elf, section, &open, self.options.limits.max_symbols, &self.budget)?;
            self.counters.by_symbol_table += take(&mut open, found, symbols);
        }
        let Some(elf) = main else { return Ok(()) };
        let mut found = Vec::with_capacity(open.len());
        for address in &open {
            found.push(plt::lookup(elf, *address, &self.budget)?);
        }
        self.counters.by_plt += take(&mut open, found, symbols);
        // Position-independent Go programs keep it among what is relocated.
        let table = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|name| elf.section(name));
        if let Some(section) = table.filter(|_| !open.is_empty()) {
            let found = gopclntab::lookup(elf, section, &open, &self.budget)?;
            self.counters.by_go_table += take(&mut open, found, symbols);
        }
        Ok(())
    }

    fn frame(&mut self, described: DebugFrames, symbol: Option<&Arc<[u8]>>) -> Symbolized {
        let symbol = symbol.and_then(|raw| self.name(raw));
        let DebugFrames { functions, place, is_rust, .. } = described;
        let mut is_rust = is_rust && !functions.is_empty();
        let mut frames = Vec::with_capacity(functions.len().max(1));
        let last = functions.len().saturating_sub(1);
        self.counters.by_dwarf += u64::from(!functions.is_empty());
        for (index, function) in functions.into_iter().enumerate() {
            let name = function.name.as_ref().and_then(|raw| self.name(raw));
            // The symbol table's name, where it was looked up and mangled, says more than debug information does.
            let better =
                symbol.as_ref().filter(|s| index == last && (name.is_none() || s.system_name.is_some()));
            let name = better.cloned().or(name);
            is_rust |= name.as_ref().is_some_and(|name| name.kind == FrameKind::Rust);
            let (function_name, system_name) = match name {
                Some(name) => (name.function, name.system_name),
                // An inlined function that debug information leaves without a name still has a place.
                None => ("[unnamed]".into(), None),
            };
            frames.push(source_frame(function_name, system_name, function.place, index != last));
        }
        if let (true, Some(name)) = (frames.is_empty(), symbol) {
            is_rust |= name.kind == FrameKind::Rust;
            frames.push(source_frame(name.function, name.system_name, place, false));
        }
        is_rust |= frames.iter().any(|frame| frame.file.as_ref().is_some_and(|file| file.ends_with(".rs")));
        is_rust |= frames.is_empty() && self.source.is_rust;
        let kind = match (self.source.is_go, is_rust) {
            (true, _) => FrameKind::Go,
            (_, true) => FrameKind::Rust,
            _ => FrameKind::Native,
        };
        Symbolized { frames, kind }
    }

    fn name(&mut self, raw: &Arc<[u8]>) -> Option<Name> {
        if let Some(known) = self.names.get(raw) {
            return known.clone();
        }
        let name = Name::new(raw, self.options.limits.max_name_bytes);
        if self.names.len() < MAX_NAMES {
            self.names.insert(raw.clone(), name.clone());
        }
        name
    }
}

fn source_frame(
    function: Arc<str>,
    system_name: Option<Arc<str>>,
    place: Place,
    inlined: bool,
) -> SourceFrame {
    SourceFrame { function, system_name, file: place.file, line: place.line, column: place.column, inlined }
}

/// Moves what was found for `open` to `symbols`, leaves the rest in `open`, and counts what was moved.
fn take(open: &mut Vec<u64>, found: Vec<Option<Vec<u8>>>, symbols: &mut FxHashMap<u64, Arc<[u8]>>) -> u64 {
    let mut left = Vec::new();
    let before = symbols.len();
    for (address, name) in open.drain(..).zip(found) {
        match name {
            Some(name) => {
                symbols.insert(address, name.into());
            }
            None => left.push(address),
        }
    }
    *open = left;
    (symbols.len() - before) as u64
}
