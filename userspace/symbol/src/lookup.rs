//! blazesym, asked for some addresses at a time.
//!
//! blazesym keeps every unit that it has parsed, so it is begun anew for each batch of neighbouring addresses. It
//! maps the file, so only files that nobody can make shorter get here (see [`ObjectFile::is_fixed`]). A panic in it costs
//! the batch its names. The panic's message still goes where the process's panic hook puts it: a hook is the process's,
//! and a library has no business to change it.
//!
//! [`ObjectFile::is_fixed`]: crate::file::ObjectFile::is_fixed

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer};
use rustc_hash::FxHashSet;

use crate::budget::{Budget, Exhausted, KEPT_BYTE, KEPT_FRAME};
use crate::elf::{ElfFile, Section};
use crate::options::Options;

/// Addresses asked for at a time of debug information, which blazesym keeps in parsed form: fewer take less memory, more
/// take less time.
const DEBUG_BATCH: usize = 32;
/// Addresses asked for at a time of symbol tables, of which it keeps an index that takes time to make.
const TABLE_BATCH: usize = 4096;
/// Bytes of `.debug_info` that take little memory even if all of it is kept.
const LITTLE_DEBUG: u64 = 1 << 20;
/// Symbols that are passed over to find the one that an address lies in.
const MAX_STEPS_BACK: usize = 8;

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Option<Arc<str>>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

/// A symbol as blazesym found it, not demangled.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Empty if debug information does not tell it.
    pub(crate) name: Arc<[u8]>,
    /// First address (ELF).
    pub(crate) start: u64,
    /// Size (bytes), if the symbol has one.
    pub(crate) size: Option<u64>,
    /// The line in this function; `None` if it comes from a symbol table.
    pub(crate) place: Option<Place>,
    /// Functions inlined here, caller first.
    pub(crate) inlined: Vec<(Arc<[u8]>, Place)>,
}

/// Why a batch has no names.
#[derive(Debug)]
pub(crate) enum Failure {
    /// blazesym said so.
    Refused(String),
    /// blazesym panicked.
    Panicked(String),
    /// The call has done all the work that it may.
    Exhausted,
}

impl From<Exhausted> for Failure {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// Asks for addresses (sorted) of one file.
pub(crate) struct Lookup<'a> {
    elf: &'a ElfFile,
    options: &'a Options,
    budget: &'a Budget,
    names: FxHashSet<Arc<[u8]>>,
    files: FxHashSet<Arc<str>>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(elf: &'a ElfFile, options: &'a Options, budget: &'a Budget) -> Self {
        Self { elf, options, budget, names: FxHashSet::default(), files: FxHashSet::default() }
    }

    /// One entry for each address. `sections` are those of the code, which a copy does not have; `use_debug` says
    /// whether debug information is used. Goes on after a failure, and tells each to `failed`.
    pub(crate) fn run(
        &mut self,
        addresses: &[u64],
        sections: &ElfFile,
        use_debug: bool,
        mut failed: impl FnMut(Failure),
    ) -> Vec<Option<Found>> {
        let mut all = Vec::with_capacity(addresses.len());
        let debug_size = self.elf.section(".debug_info").map_or(0, |section| section.size);
        let is_much = use_debug && debug_size > LITTLE_DEBUG;
        let batch_len = if is_much { DEBUG_BATCH } else { TABLE_BATCH };
        for batch in addresses.chunks(batch_len) {
            let begun = all.len();
            let asked = catch_unwind(AssertUnwindSafe(|| self.batch(batch, sections, use_debug, &mut all)));
            match asked {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(reason))) => failed(Failure::Refused(reason)),
                Ok(Err(failure)) => failed(failure),
                Err(panic) => failed(Failure::Panicked(message(panic.as_ref()))),
            }
            all.resize(begun + batch.len(), None);
            if self.budget.is_exhausted() {
                break;
            }
        }
        all.resize(addresses.len(), None);
        all
    }

    /// Pushes at most one entry for each address; gives why one has none, if that was an error.
    fn batch(
        &mut self,
        batch: &[u64],
        sections: &ElfFile,
        use_debug: bool,
        all: &mut Vec<Option<Found>>,
    ) -> Result<Option<String>, Failure> {
        // Calls of inlined functions are needed for the line in the outer function, too.
        let wants_source = self.options.inlines || self.options.lines;
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_code_info(use_debug && wants_source)
            .enable_inlined_fns(use_debug && wants_source)
            .enable_demangling(false)
            .set_debug_dirs(Some(std::iter::empty::<&Path>()))
            .build();
        let mut elf = Elf::new(self.elf.file.descriptor_path());
        elf.debug_syms = use_debug;
        let source = Source::Elf(elf);
        let answers = symbolizer
            .symbolize(&source, Input::VirtOffset(batch))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let mut reason = None;
        for (address, answer) in batch.iter().zip(answers) {
            let found = match answer {
                Symbolized::Sym(symbol) => {
                    let section = sections.code_section(*address);
                    covering(&symbolizer, &source, symbol, *address, section)
                }
                Symbolized::Unknown(Reason::IgnoredError) => {
                    if reason.is_none() {
                        let again = symbolizer.symbolize_single(&source, Input::VirtOffset(*address));
                        reason = again.err().map(|error| error.to_string());
                    }
                    None
                }
                Symbolized::Unknown(_) => None,
            };
            all.push(found.map(|symbol| self.keep(&symbol)).transpose()?);
        }
        Ok(reason)
    }

    fn keep(&mut self, symbol: &Sym<'_>) -> Result<Found, Exhausted> {
        let mut inlined = Vec::new();
        if self.options.inlines {
            self.budget.spend(KEPT_FRAME.saturating_mul(symbol.inlined.len() as u64))?;
            for function in &symbol.inlined {
                let place = function.code_info.as_ref().map(|info| self.place(info)).transpose()?;
                inlined.push((self.name(function.name.as_bytes())?, place.unwrap_or_default()));
            }
        }
        self.budget.spend(KEPT_FRAME)?;
        Ok(Found {
            name: self.name(symbol.name.as_bytes())?,
            start: symbol.addr,
            size: symbol.size.map(|size| size as u64),
            place: symbol.code_info.as_ref().map(|info| self.place(info)).transpose()?,
            inlined,
        })
    }

    fn name(&mut self, name: &[u8]) -> Result<Arc<[u8]>, Exhausted> {
        if let Some(known) = self.names.get(name) {
            return Ok(known.clone());
        }
        self.budget.spend((name.len() as u64).saturating_mul(KEPT_BYTE))?;
        let name: Arc<[u8]> = name.into();
        self.names.insert(name.clone());
        Ok(name)
    }

    fn place(&mut self, info: &CodeInfo<'_>) -> Result<Place, Exhausted> {
        if !self.options.lines {
            return Ok(Place::default());
        }
        let path = info.to_path();
        let path = path.to_string_lossy();
        let file = match self.files.get(&*path) {
            Some(known) => Some(known.clone()),
            None if path.is_empty() => None,
            None => {
                self.budget.spend((path.len() as u64).saturating_mul(KEPT_BYTE))?;
                let path: Arc<str> = (&*path).into();
                self.files.insert(path.clone());
                Some(path)
            }
        };
        let line = info.line.filter(|line| *line > 0);
        let column = info.column.map(u32::from).filter(|column| *column > 0);
        Ok(Place { file, line, column })
    }
}

/// The symbol that covers the address, if not `symbol` then one before it.
///
/// blazesym gives the last symbol that begins at or below the address. One without a size (a label of assembler, a
/// mapping symbol of AArch64) covers up to the next, in its section, unless it lies in a function that has a size.
fn covering<'a>(
    symbolizer: &'a Symbolizer,
    source: &Source<'_>,
    symbol: Sym<'a>,
    address: u64,
    section: Option<&Section>,
) -> Option<Sym<'a>> {
    if let Some(size) = symbol.size {
        return (address.checked_sub(symbol.addr)? < size as u64).then_some(symbol);
    }
    if symbol.addr == 0 && symbol.size.is_none() {
        // A function in several pieces, by debug information. No code lies at 0, so it is no symbol of a table.
        return Some(symbol);
    }
    let is_label = !is_mapping_symbol(&symbol.name) && section.is_some_and(|s| s.contains(symbol.addr));
    let mut start = symbol.addr;
    for _ in 0..MAX_STEPS_BACK {
        let Some(before) = start.checked_sub(1).filter(|at| section.is_some_and(|s| s.contains(*at))) else {
            break;
        };
        let Ok(Symbolized::Sym(outer)) = symbolizer.symbolize_single(source, Input::VirtOffset(before))
        else {
            break;
        };
        match outer.size {
            // The label lies in it.
            Some(size) if address.checked_sub(outer.addr).is_some_and(|at| at < size as u64) => {
                return Some(outer);
            }
            Some(size) if outer.addr.saturating_add(size as u64) > symbol.addr => return None,
            Some(_) => break,
            None => start = outer.addr,
        }
    }
    is_label.then_some(symbol)
}

/// `$x`, `$d` and the like mark code and data (ELF for the Arm 64-bit Architecture, 5.5.4).
fn is_mapping_symbol(name: &str) -> bool {
    name.starts_with('$')
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
