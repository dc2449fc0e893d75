//! The functions and inlined functions at addresses of one unit.
//!
//! The tree of entries is walked once, without recursion; what is remembered is the way down to each address, not the
//! functions passed on the way.

use std::rc::Rc;
use std::sync::Arc;

use gimli::{AttributeValue, Reader as _, Unit, UnitOffset};
use rustc_hash::FxHashMap;

use super::units::{OpenUnit, Units, add};
use super::{DwarfError, Result};
use crate::budget::{KEPT_BYTE, KEPT_FRAME};
use crate::reader::SectionReader;

/// Functions inlined into each other and functions in functions, at most; compilers stop far below.
const MAX_SCOPES: usize = 1024;

/// Where an inlined function was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Index into the file names of the unit's line program.
    pub(super) file: Option<u64>,
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A function whose code holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// Its entry in the unit.
    pub(super) entry: UnitOffset,
    depth: isize,
    /// Of inlined functions.
    pub(super) call: Call,
}

/// A function whose entries are being walked.
struct Scope {
    depth: isize,
    /// Indices of the addresses that it holds, ascending.
    indices: Vec<usize>,
    is_function: bool,
}

/// Finds, for the addresses with these indices (ascending), the functions that hold them: outermost first.
pub(super) fn walk(
    units: &Units,
    open: &OpenUnit,
    addresses: &[u64],
    indices: &[usize],
    lowest: u64,
    chains: &mut FxHashMap<usize, Vec<Hit>>,
) -> Result<()> {
    let unit = &open.unit;
    let mut entries = unit.entries_raw(None)?;
    let mut scopes: Vec<Scope> = Vec::new();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let entry = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let attributes = abbreviation.attributes();
        units.budget.spend(1 + attributes.len() as u64)?;
        while scopes.last().is_some_and(|scope| scope.depth >= depth) {
            scopes.pop();
        }
        let is_function = match abbreviation.tag() {
            gimli::DW_TAG_subprogram => true,
            gimli::DW_TAG_inlined_subroutine
                if scopes.last().is_some_and(|scope| !scope.indices.is_empty()) =>
            {
                false
            }
            _ => {
                entries.skip_attributes(attributes)?;
                continue;
            }
        };
        let mut ranges = Ranges::default();
        let mut call = Call::default();
        for spec in attributes {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_low_pc => ranges.low = Some(attribute.value()),
                gimli::DW_AT_high_pc => ranges.high = Some(attribute.value()),
                gimli::DW_AT_ranges => ranges.list = Some(attribute.value()),
                gimli::DW_AT_call_file => {
                    // File 0 is none before DWARF 5, and the first file since.
                    call.file = match attribute.value() {
                        AttributeValue::FileIndex(0) if unit.header.version() < 5 => None,
                        AttributeValue::FileIndex(file) => Some(file),
                        _ => None,
                    };
                }
                gimli::DW_AT_call_line => call.line = attribute.udata_value().unwrap_or(0),
                gimli::DW_AT_call_column => call.column = attribute.udata_value().unwrap_or(0),
                _ => {}
            }
        }
        let mut inside = Vec::new();
        ranges.collect(units, unit, addresses, lowest, &mut inside)?;
        inside.sort_unstable();
        inside.dedup();
        let around =
            if is_function { indices } else { scopes.last().map_or(&[][..], |scope| &scope.indices) };
        inside.retain(|index| around.binary_search(index).is_ok());
        inside.retain(|index| {
            let chain = chains.entry(*index).or_default();
            if is_function {
                // Of two functions folded into one the first counts, but a function in a function is closer.
                if !chain.is_empty()
                    && !scopes.iter().any(|s| s.is_function && s.indices.binary_search(index).is_ok())
                {
                    return false;
                }
                chain.clear();
            } else if chain.last().is_none_or(|hit| hit.depth >= depth) {
                return false;
            }
            chain.push(Hit { entry, depth, call });
            true
        });
        units.budget.spend((inside.len() as u64).saturating_mul(KEPT_FRAME))?;
        if abbreviation.has_children() {
            if scopes.len() >= MAX_SCOPES {
                return Err(DwarfError::TooDeep);
            }
            scopes.push(Scope { depth, indices: inside, is_function });
        }
    }
    Ok(())
}

/// The attributes that say which addresses an entry covers (DWARF 5 section 2.17).
#[derive(Default)]
struct Ranges {
    low: Option<AttributeValue<SectionReader>>,
    high: Option<AttributeValue<SectionReader>>,
    list: Option<AttributeValue<SectionReader>>,
}

impl Ranges {
    fn collect(
        self,
        units: &Units,
        unit: &Unit<SectionReader>,
        addresses: &[u64],
        lowest: u64,
        indices: &mut Vec<usize>,
    ) -> Result<()> {
        let dwarf = &units.dwarf;
        if let Some(list) = self.list {
            if let Some(mut ranges) = dwarf.attr_ranges(unit, list)? {
                while let Some(range) = ranges.next()? {
                    add(addresses, lowest, range, indices, &units.budget)?;
                }
            }
            return Ok(());
        }
        let (Some(low), Some(high)) = (self.low, self.high) else { return Ok(()) };
        let Some(begin) = dwarf.attr_address(unit, low)? else { return Ok(()) };
        let end = match high {
            AttributeValue::Udata(size) => begin.checked_add(size),
            high => dwarf.attr_address(unit, high)?,
        };
        match end {
            Some(end) => add(addresses, lowest, gimli::Range { begin, end }, indices, &units.budget),
            None => Ok(()),
        }
    }
}

/// A function's name as the debug information has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawName {
    pub(super) bytes: Arc<[u8]>,
    /// Whether it is the name that the linker knows.
    pub(super) is_linkage: bool,
}

/// Entries followed from an inlined function to the one that holds its name.
const MAX_REFERENCES: usize = 16;

/// The name of the function at an entry: the linker's if there is one, else the source's.
pub(super) fn name(units: &mut Units, open: &Rc<OpenUnit>, entry: UnitOffset) -> Result<Option<RawName>> {
    let mut open = open.clone();
    let mut entry = entry;
    let mut plain = None;
    for _ in 0..MAX_REFERENCES {
        let mut entries = open.unit.entries_raw(Some(entry))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { break };
        units.budget.spend(1 + abbreviation.attributes().len() as u64)?;
        let mut next = None;
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                    if let Some(bytes) = string(units, &open, attribute.value()) {
                        return Ok(Some(RawName { bytes, is_linkage: true }));
                    }
                }
                gimli::DW_AT_name if plain.is_none() => plain = string(units, &open, attribute.value()),
                gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => next = Some(attribute.value()),
                _ => {}
            }
        }
        match next {
            Some(AttributeValue::UnitRef(offset)) => entry = offset,
            Some(AttributeValue::DebugInfoRef(offset)) => (open, entry) = units.open_at(offset.0)?,
            _ => break,
        }
    }
    Ok(plain.map(|bytes| RawName { bytes, is_linkage: false }))
}

/// Bytes of a name kept; names are cut much shorter later.
const MAX_RAW_NAME: usize = 16 * 1024;

fn string(units: &Units, open: &OpenUnit, value: AttributeValue<SectionReader>) -> Option<Arc<[u8]>> {
    let mut reader = units.dwarf.attr_string(&open.unit, value).ok()?;
    reader.truncate(reader.len().min(MAX_RAW_NAME)).ok()?;
    units.budget.spend((reader.len() as u64).saturating_mul(KEPT_BYTE)).ok()?;
    let bytes = reader.to_slice().ok()?;
    (!bytes.is_empty()).then(|| bytes.into())
}
