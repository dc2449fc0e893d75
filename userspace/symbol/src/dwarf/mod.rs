//! Debug information (DWARF 2 to 5): functions, inlined functions, files and lines.
//!
//! You give a file and sorted addresses; you get, for each, the functions that hold it and their places in the source.
//! Sections are read page by page and each unit is walked once for all its addresses, so memory grows with the
//! addresses and not with the file. Nothing recurses, no other file is opened (split units in `.dwo` files and
//! supplementary files of `dwz` are left out), and every step is paid for from the budget of the call.

mod functions;
mod lines;
mod sections;
mod units;

use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use self::functions::{Hit, RawName};
use self::lines::{Files, Position};
use self::units::{OpenUnit, Units};
use crate::budget::{Budget, Exhausted};
use crate::elf::ElfFile;
use crate::error::SymbolError;
use crate::options::Options;

/// What is wrong with debug information.
#[derive(Debug, thiserror::Error)]
enum DwarfError {
    #[error("{0}")]
    Format(#[from] gimli::Error),
    #[error("a reference leads out of the units")]
    BadReference,
    #[error("functions are nested too deeply")]
    TooDeep,
    #[error("a line program has a header of over 1 MiB")]
    LineHeaderTooLarge,
    #[error("too much work")]
    Exhausted,
}

impl From<Exhausted> for DwarfError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

type Result<T> = std::result::Result<T, DwarfError>;

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Option<Arc<str>>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DebugFunction {
    /// As it stands in the debug information.
    pub(crate) name: Option<Arc<[u8]>>,
    /// Whether `name` is the linker's, which tells of namespaces and types.
    pub(crate) is_linkage: bool,
    /// The line in this function.
    pub(crate) place: Place,
}

/// What debug information says of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DebugFrames {
    /// Callee first; all but the last are inlined. May be empty although the place is known.
    pub(crate) functions: Vec<DebugFunction>,
    /// The line of the address.
    pub(crate) place: Place,
    pub(crate) is_rust: bool,
    pub(crate) is_cpp: bool,
}

/// Looks `addresses` (sorted, without duplicates) up. What could not be read is left at its default, with the first
/// reason in `problems`.
pub(crate) fn lookup(
    elf: &ElfFile,
    addresses: &[u64],
    options: &Options,
    budget: &Rc<Budget>,
    problems: &mut Vec<SymbolError>,
) -> Vec<DebugFrames> {
    let mut frames = vec![DebugFrames::default(); addresses.len()];
    let dwarf = match sections::load(elf, &options.limits, budget) {
        Ok(dwarf) => dwarf,
        Err(error) => {
            problems.push(error);
            return frames;
        }
    };
    // Functions that a linker removed keep debug information at address 0, which is below all code.
    let lowest = elf.sections.iter().filter(|s| s.is_code()).map(|s| s.address).min().unwrap_or(0);
    let mut first_problem = None;
    let mut units = Units::new(dwarf, budget);
    let found = units.find(addresses, lowest, |error| {
        first_problem.get_or_insert(error);
    });
    let mut names = FxHashMap::default();
    for (offset, mut indices) in found {
        indices.retain(|index| frames.get(*index).is_some_and(|frames| frames.functions.is_empty()));
        let result =
            look_in_unit(&mut units, offset, addresses, &indices, lowest, options, &mut names, &mut frames);
        if let Err(error) = result {
            first_problem.get_or_insert(error);
        }
        if budget.is_exhausted() {
            break;
        }
    }
    if let Some(error) = first_problem.filter(|_| !budget.is_exhausted()) {
        problems.push(SymbolError::Dwarf { name: elf.name.clone(), reason: error.to_string() });
    }
    frames
}

/// Names by the position of their entry in `.debug_info`.
type Names = FxHashMap<usize, Option<RawName>>;

#[expect(clippy::too_many_arguments, reason = "one caller, which owns all of them")]
fn look_in_unit(
    units: &mut Units,
    offset: usize,
    addresses: &[u64],
    indices: &[usize],
    lowest: u64,
    options: &Options,
    names: &mut Names,
    frames: &mut [DebugFrames],
) -> Result<()> {
    if indices.is_empty() {
        return Ok(());
    }
    let open = units.open(offset)?;
    let mut chains = FxHashMap::default();
    // What was found before an error is right as far as it goes.
    let walked = functions::walk(units, &open, addresses, indices, lowest, &mut chains);
    let mut positions = FxHashMap::default();
    let ran = if options.lines {
        lines::run(&open.unit, addresses, indices, lowest, &mut positions)
    } else {
        Ok(())
    };
    let mut found = Vec::new();
    for index in indices {
        let chain = chains.remove(index).unwrap_or_default();
        let mut resolved = Vec::with_capacity(chain.len());
        for hit in chain {
            let name = resolve(units, &open, hit, names)?;
            resolved.push((hit, name));
        }
        found.push((*index, resolved));
    }
    let mut files = Files::new(units, &open.unit);
    for (index, chain) in found {
        let position = positions.get(&index).copied();
        if let Some(frames) = frames.get_mut(index).filter(|_| position.is_some() || !chain.is_empty()) {
            *frames = put_together(&open, chain, position, options, &mut files);
        }
    }
    walked.and(ran)
}

fn resolve(units: &mut Units, open: &Rc<OpenUnit>, hit: Hit, names: &mut Names) -> Result<Option<RawName>> {
    let key = open.offset.saturating_add(hit.entry.0);
    if let Some(known) = names.get(&key) {
        return Ok(known.clone());
    }
    let name = match functions::name(units, open, hit.entry) {
        Err(DwarfError::Exhausted) => return Err(DwarfError::Exhausted),
        result => result.unwrap_or(None),
    };
    names.insert(key, name.clone());
    Ok(name)
}

/// The place of each function is where it calls the next one, that of the innermost is the address's own.
fn put_together(
    open: &OpenUnit,
    chain: Vec<(Hit, Option<RawName>)>,
    position: Option<Position>,
    options: &Options,
    files: &mut Files<'_>,
) -> DebugFrames {
    let place = match position {
        Some(position) => Place {
            file: files.path(position.file),
            line: number(position.line),
            column: number(position.column),
        },
        None => Place::default(),
    };
    let mut next = place.clone();
    let mut functions = Vec::with_capacity(chain.len());
    for (hit, name) in chain.into_iter().rev() {
        let (name, is_linkage) = name.map_or((None, false), |name| (Some(name.bytes), name.is_linkage));
        let here = if options.lines {
            let call = Place {
                file: hit.call.file.and_then(|file| files.path(file)),
                line: number(hit.call.line),
                column: number(hit.call.column),
            };
            std::mem::replace(&mut next, call)
        } else {
            Place::default()
        };
        functions.push(DebugFunction { name, is_linkage, place: here });
    }
    if !options.inlines {
        functions.drain(..functions.len().saturating_sub(1));
    }
    let language = open.language;
    DebugFrames {
        functions,
        place,
        is_rust: language == Some(gimli::DW_LANG_Rust),
        is_cpp: matches!(
            language,
            Some(
                gimli::DW_LANG_C_plus_plus
                    | gimli::DW_LANG_C_plus_plus_03
                    | gimli::DW_LANG_C_plus_plus_11
                    | gimli::DW_LANG_C_plus_plus_14
                    | gimli::DW_LANG_C_plus_plus_17
                    | gimli::DW_LANG_C_plus_plus_20
            )
        ),
    }
}

fn number(n: u64) -> Option<u32> {
    u32::try_from(n).ok().filter(|n| *n > 0)
}
