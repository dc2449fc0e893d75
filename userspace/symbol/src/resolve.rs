//! One call for one file with code: which of its tables are asked for which address, and what becomes of the answers.

use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use object::elf::ET_REL;
use rustc_hash::FxHashMap;

use crate::budget::{Budget, Exhausted};
use crate::copy::{DEBUG_SECTIONS, copy};
use crate::counters::Counters;
use crate::elf::ElfFile;
use crate::error::SymbolError;
use crate::file::ObjectFile;
use crate::frame::{FrameKind, SourceFrame, Symbolized};
use crate::lookup::{Failure, Found, Lookup, Place};
use crate::name::Name;
use crate::options::{ObjectSource, Options};
use crate::vet::{self, Refused};
use crate::{alias, gopclntab, plt};

/// Demangled names remembered within one call.
const MAX_NAMES: usize = 1 << 16;
/// Stack of the thread; only what is used of it takes memory. A test nests functions as deeply as [`vet`] lets pass.
const STACK: usize = 16 << 20;
/// Sections by which a file refers to others, or that blazesym cannot read as it is built here.
const LINKS: [&str; 4] = [".gnu_debuglink", ".gnu_debugaltlink", ".debug_sup", ".gnu_debugdata"];

/// One entry for each address (sorted, without duplicates), or none at all if no file could be read.
pub(crate) fn symbolize(
    source: &ObjectSource,
    addresses: &[u64],
    options: &Options,
    problems: &mut Vec<SymbolError>,
    counters: &mut Counters,
) -> Vec<Symbolized> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let on_thread = || Object::new(source, options).run(addresses);
    let answer = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("symbols".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, on_thread)?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    });
    match answer {
        Ok((symbols, mut found_problems, found)) => {
            problems.append(&mut found_problems);
            counters.by_dwarf += found.by_dwarf;
            counters.by_symbol_table += found.by_symbol_table;
            counters.by_plt += found.by_plt;
            counters.by_go_table += found.by_go_table;
            counters.panics += found.panics;
            counters.copies += found.copies;
            symbols
        }
        Err(source_error) => {
            problems.push(SymbolError::Thread { name: source.name.clone(), source: source_error });
            Vec::new()
        }
    }
}

/// A file, and what blazesym may see of it.
struct Opened {
    elf: Rc<ElfFile>,
    /// The file itself or a copy of it; `None` if neither may be used.
    visible: Option<Rc<ElfFile>>,
    /// Whether debug information may be used.
    has_debug: bool,
}

struct Object<'a> {
    source: &'a ObjectSource,
    options: &'a Options,
    problems: Vec<SymbolError>,
    counters: Counters,
    budget: Budget,
    names: FxHashMap<Arc<[u8]>, Option<Name>>,
}

impl<'a> Object<'a> {
    fn new(source: &'a ObjectSource, options: &'a Options) -> Self {
        Self {
            source,
            options,
            problems: Vec::new(),
            counters: Counters::default(),
            budget: Budget::new(options.limits.max_work),
            names: FxHashMap::default(),
        }
    }

    fn run(mut self, addresses: &[u64]) -> (Vec<Symbolized>, Vec<SymbolError>, Counters) {
        let main = self.open(&self.source.open_path, self.source.name.clone());
        let debug =
            self.source.debug_path.as_deref().and_then(|path| self.open(path, path.to_string_lossy().into()));
        let mut files: Vec<Opened> = [main, debug].into_iter().flatten().collect();
        // What is outside of all code has no name.
        let code: Vec<u64> = addresses
            .iter()
            .copied()
            .filter(|address| files.iter().any(|file| file.elf.code_section(*address).is_some()))
            .collect();
        let with_debug = files.iter().position(|file| self.options.debug_info && file.elf.has_dwarf());
        for (index, file) in files.iter_mut().enumerate() {
            self.prepare(file, with_debug == Some(index));
        }
        let mut described = FxHashMap::default();
        if let Some(file) = files.iter().find(|file| file.has_debug) {
            described = self.ask(file, &code, true);
        }
        // Line tables alone (`-g1`, `line-tables-only`) name functions of C++ and Rust without their namespace; the symbol
        // table has it. Functions of C are named alike by both. And what has no place has its name from a table.
        let mut open: Vec<u64> = code
            .iter()
            .copied()
            .filter(|address| {
                let found = described.get(address).filter(|found: &&Found| found.place.is_some());
                let name = found.map(|found| found.name.clone()).and_then(|name| self.name(&name));
                name.is_none_or(|name| name.system_name.is_none())
            })
            .collect();
        // A stripped file with a debug file has only its exported symbols; the debug file has all.
        files.sort_by_key(|file| file.elf.table(".symtab").is_none());
        let mut symbols = FxHashMap::default();
        let looked = self.look_in_tables(&files, &described, &mut open, &mut symbols);
        if looked.is_err() || self.budget.is_exhausted() {
            let (name, limit) = (self.source.name.clone(), self.options.limits.max_work);
            self.problems.push(SymbolError::TooMuchWork { name, limit });
        }
        let mut all = Vec::with_capacity(addresses.len());
        for address in addresses {
            let symbolized = self.frames(described.remove(address), symbols.get(address));
            all.push(symbolized);
        }
        (all, self.problems, self.counters)
    }

    fn open(&mut self, path: &Path, name: Arc<str>) -> Option<Opened> {
        match ObjectFile::open(path, &name).and_then(|file| ElfFile::parse(file, &name)) {
            Ok(elf) => Some(Opened { elf: Rc::new(elf), visible: None, has_debug: false }),
            Err(error) => {
                self.problems.push(error);
                None
            }
        }
    }

    /// Decides what blazesym may see of a file.
    fn prepare(&mut self, file: &mut Opened, wants_debug: bool) {
        if wants_debug {
            match self.with_debug(&file.elf) {
                Ok(visible) => {
                    (file.visible, file.has_debug) = (Some(visible), true);
                    return;
                }
                Err(problem) => self.problems.extend(problem),
            }
        }
        match self.visible(&file.elf, false) {
            Ok(visible) => file.visible = Some(visible),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// The file with its debug information, if that may be used. No reason is given if the budget is the reason.
    fn with_debug(&mut self, elf: &Rc<ElfFile>) -> Result<Rc<ElfFile>, Option<SymbolError>> {
        let limit = self.options.limits.max_debug_bytes;
        let sections = DEBUG_SECTIONS.iter().filter_map(|name| elf.section(name));
        let size = sections.fold(0u64, |sum, section| sum.saturating_add(section.size));
        if size > limit {
            return Err(Some(SymbolError::TooLarge { name: elf.name.clone(), size, limit }));
        }
        let visible = self.visible(elf, true)?;
        match vet::check(&visible, !elf.file.is_fixed(), &self.budget) {
            Ok(()) => Ok(visible),
            Err(Refused::Exhausted) => Err(None),
            Err(refused) => {
                Err(Some(SymbolError::Dwarf { name: elf.name.clone(), reason: refused.to_string() }))
            }
        }
    }

    /// The file itself if blazesym may map it, else a copy.
    fn visible(&mut self, elf: &Rc<ElfFile>, with_debug: bool) -> Result<Rc<ElfFile>, SymbolError> {
        let limits = &self.options.limits;
        let tables = [".symtab", ".dynsym"].into_iter().filter_map(|name| elf.table(name));
        let symbols = tables.map(|(table, _)| table.size / 24).max().unwrap_or(0);
        if symbols > limits.max_symbols {
            return Err(SymbolError::Elf {
                name: elf.name.clone(),
                reason: "it has more symbols than allowed",
            });
        }
        let mut tables = [".symtab", ".dynsym"].into_iter().filter_map(|name| elf.table(name));
        if !tables.all(|(_, strings)| vet::strings_end(elf, strings)) {
            return Err(SymbolError::Elf {
                name: elf.name.clone(),
                reason: "a name of its symbols has no end",
            });
        }
        let has_compressed =
            || DEBUG_SECTIONS.iter().filter_map(|n| elf.section(n)).any(|section| section.is_compressed());
        let links = || LINKS.iter().any(|name| elf.section(name).is_some());
        if elf.file.is_fixed() && elf.kind != ET_REL.0 && !links() && !(with_debug && has_compressed()) {
            return Ok(elf.clone());
        }
        self.counters.copies += 1;
        copy(elf, with_debug, limits).map(Rc::new)
    }

    /// What blazesym finds at addresses (sorted).
    fn ask(&mut self, file: &Opened, addresses: &[u64], use_debug: bool) -> FxHashMap<u64, Found> {
        let Some(visible) = &file.visible else { return FxHashMap::default() };
        let (mut reason, mut panics) = (None, 0);
        let found = Lookup::new(visible, self.options, &self.budget).run(
            addresses,
            &file.elf,
            use_debug,
            |failure| match failure {
                Failure::Exhausted => {}
                Failure::Refused(text) => reason = reason.take().or(Some(text)),
                Failure::Panicked(text) => {
                    panics += 1;
                    reason = Some(format!("it panicked: {text}"));
                }
            },
        );
        self.counters.panics += panics;
        let name = file.elf.name.clone();
        self.problems.extend(reason.map(|reason| match (panics, use_debug) {
            (0, true) => SymbolError::Dwarf { name, reason },
            _ => SymbolError::Symbolizer { name, reason },
        }));
        addresses.iter().zip(found).filter_map(|(address, found)| Some((*address, found?))).collect()
    }

    /// Names of `open` (sorted) by tables, into `symbols`; what has none is left in `open`.
    fn look_in_tables(
        &mut self,
        files: &[Opened],
        described: &FxHashMap<u64, Found>,
        open: &mut Vec<u64>,
        symbols: &mut FxHashMap<u64, Arc<[u8]>>,
    ) -> Result<(), Exhausted> {
        for file in files {
            let found = self.ask(file, open, false);
            let places = || found.values().map(|found| (found.start, found.size.unwrap_or(0)));
            let max_symbols = self.options.limits.max_symbols;
            let mut best = alias::names(&file.elf, ".symtab", places(), max_symbols, &self.budget)?;
            let unnamed = places().filter(|place| !best.contains_key(place));
            let exported = alias::names(&file.elf, ".dynsym", unnamed, max_symbols, &self.budget)?;
            best.extend(exported);
            let best: FxHashMap<_, Arc<[u8]>> =
                best.into_iter().map(|(place, name)| (place, name.into())).collect();
            let names = open.iter().map(|address| {
                let found = found.get(address)?;
                Some(best.get(&(found.start, found.size.unwrap_or(0))).unwrap_or(&found.name).clone())
            });
            let names: Vec<_> = names.collect();
            let is_plain = |address| described.get(address).is_none_or(|found| found.place.is_none());
            let plain =
                open.iter().zip(&names).filter(|(address, name)| name.is_some() && is_plain(*address));
            self.counters.by_symbol_table += plain.count() as u64;
            take(open, names, symbols);
        }
        let Some(file) = files.iter().find(|file| file.elf.section(".rela.plt").is_some()) else {
            return self.look_in_go_table(files, open, symbols);
        };
        let mut names = Vec::with_capacity(open.len());
        for address in open.iter() {
            names.push(plt::lookup(&file.elf, *address, &self.budget)?.map(Into::into));
        }
        self.counters.by_plt += take(open, names, symbols);
        self.look_in_go_table(files, open, symbols)
    }

    fn look_in_go_table(
        &mut self,
        files: &[Opened],
        open: &mut Vec<u64>,
        symbols: &mut FxHashMap<u64, Arc<[u8]>>,
    ) -> Result<(), Exhausted> {
        // Position-independent Go programs keep it among what is relocated.
        let names = [".gopclntab", ".data.rel.ro.gopclntab"];
        let table = files
            .iter()
            .find_map(|file| Some((&file.elf, names.iter().find_map(|name| file.elf.section(name))?)));
        if let Some((elf, section)) = table.filter(|_| !open.is_empty()) {
            let found = gopclntab::lookup(elf, section, open, &self.budget)?;
            let found = found.into_iter().map(|name| name.map(Into::into)).collect();
            self.counters.by_go_table += take(open, found, symbols);
        }
        Ok(())
    }

    fn frames(&mut self, described: Option<Found>, symbol: Option<&Arc<[u8]>>) -> Symbolized {
        let symbol = symbol.and_then(|raw| self.name(raw));
        let mut frames = Vec::new();
        let mut is_rust = false;
        if let Some(found) = described {
            self.counters.by_dwarf += u64::from(found.place.is_some());
            for (raw, place) in found.inlined.into_iter().rev() {
                let name = self.name(&raw);
                is_rust |= name.as_ref().is_some_and(|name| name.kind == FrameKind::Rust);
                frames.push(frame(name, place, true));
            }
            let name = self.name(&found.name);
            // The symbol table's name says more if it is mangled; and it is the better of several if debug information has
            // none, in which case blazesym took any of the symbol table.
            let better = symbol
                .filter(|symbol| name.is_none() || found.place.is_none() || symbol.system_name.is_some());
            let name = better.or(name);
            is_rust |= name.as_ref().is_some_and(|name| name.kind == FrameKind::Rust);
            frames.push(frame(name, found.place.unwrap_or_default(), false));
        } else if let Some(name) = symbol {
            is_rust |= name.kind == FrameKind::Rust;
            frames.push(frame(Some(name), Place::default(), false));
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
        let is_full = self.names.len() >= MAX_NAMES;
        match self.names.entry(raw.clone()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => {
                let name = Name::new(raw, self.options.limits.max_name_bytes);
                if !is_full {
                    place.insert(name.clone());
                }
                name
            }
        }
    }
}

fn frame(name: Option<Name>, place: Place, inlined: bool) -> SourceFrame {
    let (function, system_name) = match name {
        Some(name) => (name.function, name.system_name),
        // A function that debug information leaves without a name still has a place.
        None => ("[unnamed]".into(), None),
    };
    SourceFrame { function, system_name, file: place.file, line: place.line, column: place.column, inlined }
}

/// Moves what was found for `open` to `symbols`, leaves the rest in `open`, and counts what was moved.
fn take(open: &mut Vec<u64>, found: Vec<Option<Arc<[u8]>>>, symbols: &mut FxHashMap<u64, Arc<[u8]>>) -> u64 {
    let mut left = Vec::new();
    let before = symbols.len();
    for (address, name) in open.drain(..).zip(found) {
        match name {
            Some(name) => {
                symbols.insert(address, name);
            }
            None => left.push(address),
        }
    }
    *open = left;
    (symbols.len() - before) as u64
}
