//! Units of `.debug_info`: which hold which addresses, and one at a time opened.
//!
//! An address range table (`.debug_aranges`, DWARF 5 section 6.1.2) answers without looking at the units; units
//! without one are asked through the ranges of their first entry.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, DebugInfoOffset, Dwarf, Reader as _, Section as _, Unit,
    UnitOffset,
};
use gimli::{UnitHeader, UnitType};
use lru::LruCache;

use super::{DwarfError, Result};
use crate::budget::Budget;
use crate::reader::SectionReader;

/// Units looked at in one file.
const MAX_UNITS: usize = 1 << 20;
/// Bytes of one abbreviation table: in memory it takes about twenty times as much.
const MAX_ABBREVIATIONS: usize = 512 * 1024;
/// Bytes of the header of one line program: in memory its file names take about forty times as much.
const MAX_LINE_HEADER: usize = 1 << 20;
const CACHED_ABBREVIATIONS: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
const CACHED_UNITS: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// A unit and its language.
#[derive(Debug)]
pub(super) struct OpenUnit {
    pub(super) unit: Unit<SectionReader>,
    pub(super) offset: usize,
    pub(super) language: Option<gimli::DwLang>,
}

/// All units of a file.
pub(super) struct Units {
    pub(super) dwarf: Dwarf<SectionReader>,
    pub(super) budget: Rc<Budget>,
    abbreviations: LruCache<usize, Arc<Abbreviations>>,
    open: LruCache<usize, Rc<OpenUnit>>,
    /// Offsets of all units, ascending.
    offsets: Vec<usize>,
}

impl Units {
    pub(super) fn new(dwarf: Dwarf<SectionReader>, budget: &Rc<Budget>) -> Self {
        Self {
            dwarf,
            budget: budget.clone(),
            abbreviations: LruCache::new(CACHED_ABBREVIATIONS),
            open: LruCache::new(CACHED_UNITS),
            offsets: Vec::new(),
        }
    }

    /// Units by offset, each with the indices of the addresses (sorted) that it may hold. What could not be read is
    /// left out and told to `problem`.
    pub(super) fn find(
        &mut self,
        addresses: &[u64],
        lowest: u64,
        mut problem: impl FnMut(DwarfError),
    ) -> BTreeMap<usize, Vec<usize>> {
        let mut found = BTreeMap::<usize, Vec<usize>>::new();
        if let Err(error) = self.find_by_table(addresses, lowest, &mut found) {
            problem(error);
        }
        let mut headers = self.dwarf.units();
        while self.offsets.len() < MAX_UNITS {
            let header = match headers.next() {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    problem(error.into());
                    break;
                }
            };
            let Some(DebugInfoOffset(offset)) = header.debug_info_offset() else { continue };
            self.offsets.push(offset);
            if !matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_))
                || found.contains_key(&offset)
            {
                continue;
            }
            if let Err(error) = self.find_in_unit(header, offset, addresses, lowest, &mut found) {
                problem(error);
                if self.budget.is_exhausted() {
                    break;
                }
            }
        }
        found.retain(|_, indices| {
            indices.sort_unstable();
            indices.dedup();
            !indices.is_empty()
        });
        found
    }

    fn find_by_table(
        &self,
        addresses: &[u64],
        lowest: u64,
        found: &mut BTreeMap<usize, Vec<usize>>,
    ) -> Result<()> {
        let mut headers = self.dwarf.debug_aranges.headers();
        while let Some(header) = headers.next()? {
            let mut indices = Vec::new();
            let mut has_ranges = false;
            let mut entries = header.entries();
            // One bad entry (an address that overflows) is no reason to give up the others.
            while let Some(entry) = entries.next().transpose() {
                let Ok(entry) = entry else {
                    self.budget.spend(1)?;
                    continue;
                };
                has_ranges |= entry.length() > 0;
                add(addresses, lowest, entry.range(), &mut indices, &self.budget)?;
            }
            if has_ranges {
                found.entry(header.debug_info_offset().0).or_default().extend(indices);
            }
        }
        Ok(())
    }

    fn find_in_unit(
        &mut self,
        header: UnitHeader<SectionReader>,
        offset: usize,
        addresses: &[u64],
        lowest: u64,
        found: &mut BTreeMap<usize, Vec<usize>>,
    ) -> Result<()> {
        let open = self.open_header(header, offset)?;
        let mut ranges = self.dwarf.unit_ranges(&open.unit)?;
        let mut indices = Vec::new();
        while let Some(range) = ranges.next()? {
            add(addresses, lowest, range, &mut indices, &self.budget)?;
        }
        if !indices.is_empty() {
            found.insert(offset, indices);
        }
        Ok(())
    }

    /// Opens the unit at an offset of `.debug_info`.
    pub(super) fn open(&mut self, offset: usize) -> Result<Rc<OpenUnit>> {
        if let Some(open) = self.open.get(&offset) {
            return Ok(open.clone());
        }
        let header = self.dwarf.unit_header(DebugInfoOffset(offset))?;
        let open = Rc::new(self.open_header(header, offset)?);
        self.open.put(offset, open.clone());
        Ok(open)
    }

    /// The unit that an offset of `.debug_info` lies in, and the offset in that unit.
    pub(super) fn open_at(&mut self, offset: usize) -> Result<(Rc<OpenUnit>, UnitOffset)> {
        let index = self.offsets.partition_point(|start| *start <= offset).checked_sub(1);
        let start =
            index.and_then(|index| self.offsets.get(index)).copied().ok_or(DwarfError::BadReference)?;
        let open = self.open(start)?;
        let inside =
            DebugInfoOffset(offset).to_unit_offset(&open.unit.header).ok_or(DwarfError::BadReference)?;
        Ok((open, inside))
    }

    fn open_header(&mut self, header: UnitHeader<SectionReader>, offset: usize) -> Result<OpenUnit> {
        let abbreviations = self.abbreviations(header.debug_abbrev_offset().0)?;
        let mut language = None;
        let mut entries = header.entries_raw(&abbreviations, None)?;
        if let Some(abbreviation) = entries.read_abbreviation()? {
            self.budget.spend(abbreviation.attributes().len() as u64)?;
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec)?;
                match (attribute.name(), attribute.value()) {
                    (gimli::DW_AT_language, gimli::AttributeValue::Language(value)) => language = Some(value),
                    (gimli::DW_AT_stmt_list, gimli::AttributeValue::DebugLineRef(line)) => {
                        self.check_line_header(line.0)?;
                    }
                    _ => {}
                }
            }
        }
        let unit = Unit::new_with_abbreviations(&self.dwarf, header, abbreviations)?;
        Ok(OpenUnit { unit, offset, language })
    }

    fn abbreviations(&mut self, offset: usize) -> Result<Arc<Abbreviations>> {
        if let Some(known) = self.abbreviations.get(&offset) {
            return Ok(known.clone());
        }
        let mut table = self.dwarf.debug_abbrev.reader().clone();
        table.skip(offset)?;
        table.truncate(table.len().min(MAX_ABBREVIATIONS))?;
        let parsed = Arc::new(DebugAbbrev::from(table).abbreviations(DebugAbbrevOffset(0))?);
        self.abbreviations.put(offset, parsed.clone());
        Ok(parsed)
    }

    /// DWARF 5 section 6.2.4: the header's own length comes after the version.
    fn check_line_header(&self, offset: usize) -> Result<()> {
        let mut program = self.dwarf.debug_line.reader().clone();
        program.skip(offset)?;
        let (_, format) = program.read_initial_length()?;
        if program.read_u16()? >= 5 {
            program.skip(2)?;
        }
        if program.read_length(format)? > MAX_LINE_HEADER {
            return Err(DwarfError::LineHeaderTooLarge);
        }
        Ok(())
    }
}

/// Adds the indices of the addresses in a range. A range below all code stands for a function that the linker removed.
pub(super) fn add(
    addresses: &[u64],
    lowest: u64,
    range: gimli::Range,
    indices: &mut Vec<usize>,
    budget: &Budget,
) -> Result<()> {
    budget.spend(1)?;
    if range.begin < lowest || range.begin >= range.end {
        return Ok(());
    }
    let first = addresses.partition_point(|address| *address < range.begin);
    let after = addresses.partition_point(|address| *address < range.end);
    budget.spend((after - first) as u64)?;
    indices.extend(first..after);
    Ok(())
}
