//! Unwind rows of a file: for every address of its code, the rule in force.
//!
//! Tables are read in the order `.eh_frame`, `.debug_frame`, then those of the debug file; an address belongs to the
//! first that knows it. Functions are put in order before their instructions run, so that rows are made in place and
//! cost 12 bytes each at all times.

use crate::Error;
use crate::elf::{Architecture, Frames};
use crate::fde::{Function, Functions};
use crate::report::{Limits, Report};
use crate::rule::{self, Rule};
use crate::section::{self, CieCache, Context, Format, Slice};
use descry_abi::unwind::{CfaKind, FpKind, PAGE_SHIFT};
use descry_decode::ids::ElfAddress;
use gimli::{BaseAddresses, UnwindSection};

/// The rules of a file by address, in ascending order; neighbours differ. Before the first one nothing is known, and
/// where a function ends without another one beginning stands [`Rule::NONE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Address that the entries count from; a multiple of the index's page.
    base: u64,
    entries: Vec<Entry>,
}

/// 12 bytes: the address is relative to [`Rows::base`], the rule without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: u32,
    cfa_words: u16,
    fp_words: i16,
    cfa: CfaKind,
    fp: FpKind,
}
const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    fn rule(self) -> Rule {
        Rule { cfa: self.cfa, fp: self.fp, cfa_words: self.cfa_words, fp_words: self.fp_words }
    }
}

/// Reads the rows of `file` and, where given, of its separate debug file (both are the bytes of an ELF file).
///
/// # Errors
/// When the file as a whole cannot be used; a fault inside a table costs its function and is counted in the report.
pub fn build(file: &[u8], debug: Option<&[u8]>, limits: &Limits) -> Result<(Rows, Report), Error> {
    let mut report = Report::default();
    let frames = Frames::find(file, debug, limits, &mut report)?;
    let debug = debug.unwrap_or_default();
    let functions = Functions::collect(&frames, 0, file, debug, limits, &mut report);
    let mut tables: Vec<Tabled<'_>> =
        frames.tables.iter().map(|table| Tabled::new(&frames, table, file, debug)).collect();
    let mut builder = Builder::new(&frames, &functions, limits, &mut report);
    for function in functions.iter() {
        if let Some(table) = tables.get_mut(function.table as usize) {
            table.evaluate(function, &mut builder);
        }
    }
    let rows = builder.finish();
    Ok((rows, report))
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known of any address.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every address at which another rule comes into force, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (ElfAddress, Rule)> + ExactSizeIterator + '_ {
        self.entries.iter().map(|entry| (ElfAddress(self.base + u64::from(entry.offset)), entry.rule()))
    }

    /// The rule in force at `address`.
    pub fn find(&self, address: ElfAddress) -> Rule {
        let Some(offset) = address.0.checked_sub(self.base) else { return Rule::NONE };
        let after = self.entries.partition_point(|entry| u64::from(entry.offset) <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index))
            .map_or(Rule::NONE, |entry| entry.rule())
    }

    /// Rows from parts, for what knows its code without a file (and for tests). Rows must ascend by address and span
    /// less than 4 GiB; the first that does not, and those after it, are left out.
    pub fn from_rules(rules: impl IntoIterator<Item = (ElfAddress, Rule)>) -> Self {
        let mut rules = rules.into_iter().peekable();
        let mut rows =
            Self { base: rules.peek().map_or(0, |(start, _)| page_start(start.0)), entries: vec![] };
        let mut last = 0;
        for (address, rule) in rules {
            if address.0 < last || !rows.push(address.0, rule) {
                break;
            }
            last = address.0;
        }
        rows
    }

    /// Puts `rule` in force from `address` on, which is not below the last one's; `false`: too far from the first.
    fn push(&mut self, address: u64, rule: Rule) -> bool {
        let Some(offset) = address.checked_sub(self.base).and_then(|offset| u32::try_from(offset).ok())
        else {
            return false;
        };
        if self.entries.last().is_some_and(|last| last.offset == offset) {
            self.entries.pop();
        }
        if self.entries.last().map_or(Rule::NONE, |last| last.rule()) != rule {
            let Rule { cfa, fp, cfa_words, fp_words } = rule;
            self.entries.push(Entry { offset, cfa_words, fp_words, cfa, fp });
        }
        true
    }
}

fn page_start(address: u64) -> u64 {
    address >> PAGE_SHIFT << PAGE_SHIFT
}

/// Collects rows in the order of addresses.
struct Builder<'a> {
    rows: Rows,
    architecture: Architecture,
    trampoline: Option<std::ops::Range<u64>>,
    limits: &'a Limits,
    report: &'a mut Report,
    context: Context,
    /// Rows of the function at hand: they count only when its last instruction was right.
    scratch: Vec<(u64, Rule)>,
}

impl<'a> Builder<'a> {
    fn new(frames: &Frames, functions: &Functions, limits: &'a Limits, report: &'a mut Report) -> Self {
        let first = functions.iter().next().map(|function| function.start);
        let trampoline = frames.trampoline.clone();
        let first = first.into_iter().chain(trampoline.iter().map(|range| range.start)).min();
        Self {
            rows: Rows { base: page_start(first.unwrap_or_default()), entries: Vec::new() },
            architecture: frames.architecture,
            trampoline,
            limits,
            report,
            context: Context::default(),
            scratch: Vec::new(),
        }
    }

    /// The trampoline of the vdso, when all functions before `address` are done.
    fn trampoline_before(&mut self, address: u64) {
        if let Some(range) = self.trampoline.take_if(|range| range.start < address) {
            self.rows.push(range.start, Rule { cfa: CfaKind::Signal, ..Rule::NONE });
            self.rows.push(range.end.min(address), Rule::NONE);
        }
    }

    /// The rows in `scratch` are those of `function`.
    fn accept(&mut self, function: &Function) {
        self.trampoline_before(function.start);
        // Each function may close with one row more.
        if self.rows.len() + self.scratch.len() + 1 > self.limits.rows {
            self.report.over_limit += 1;
            return;
        }
        let fits = self.scratch.drain(..).all(|(start, rule)| self.rows.push(start, rule));
        let closed = self.rows.push(function.end, Rule::NONE);
        self.report.over_limit += u64::from(!(fits && closed));
    }

    fn finish(mut self) -> Rows {
        self.trampoline_before(u64::MAX);
        self.rows.entries.shrink_to_fit();
        self.report.rows = self.rows.len() as u64;
        let complex = self.rows.entries.iter().filter(|entry| entry.cfa == CfaKind::Complex);
        self.report.complex_rules = complex.count() as u64;
        self.rows
    }
}

/// A table with its parsed CIEs.
struct Tabled<'a> {
    section: Section<'a>,
    bases: &'a BaseAddresses,
    cies: CieCache<'a>,
}

enum Section<'a> {
    EhFrame(gimli::EhFrame<Slice<'a>>),
    DebugFrame(gimli::DebugFrame<Slice<'a>>),
}

impl<'a> Tabled<'a> {
    fn new(frames: &'a Frames, table: &'a crate::elf::Table, file: &'a [u8], debug: &'a [u8]) -> Self {
        let data = table.data(file, debug);
        let section = match table.format {
            Format::EhFrame => Section::EhFrame(section::eh_frame(data, frames.architecture)),
            Format::DebugFrame => Section::DebugFrame(section::debug_frame(data, frames.architecture)),
        };
        Self { section, bases: &table.bases, cies: CieCache::default() }
    }

    fn evaluate(&mut self, function: &Function, builder: &mut Builder<'_>) {
        builder.scratch.clear();
        let done = match &self.section {
            Section::EhFrame(section) => evaluate(section, self.bases, &mut self.cies, function, builder),
            Section::DebugFrame(section) => evaluate(section, self.bases, &mut self.cies, function, builder),
        };
        match done {
            Ok(()) => builder.accept(function),
            Err(_) => builder.report.bad_instructions += 1,
        }
    }
}

/// Runs the instructions of one function.
fn evaluate<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    cies: &mut CieCache<'a>,
    function: &Function,
    builder: &mut Builder<'_>,
) -> gimli::Result<()> {
    let fde = section::fde(section, bases, function.offset as usize, cies)?;
    let mut table = fde.rows(section, bases, &mut builder.context)?;
    let mut last = function.start;
    while let Some(row) = table.next_row()? {
        let start = row.start_address();
        if start < last {
            return Err(gimli::Error::InvalidCfiSetLoc(start));
        }
        last = start;
        if start < function.end {
            builder.scratch.push((start, rule::of(builder.architecture, section, fde.cie(), row)));
        }
    }
    Ok(())
}
