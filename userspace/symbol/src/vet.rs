//! What blazesym trusts debug information with, checked before it is asked.
//!
//! blazesym follows inlined functions by recursion, and reads a table as often as something refers to it. So debug
//! information is walked once, a unit at a time, keeping nothing: it may be used if nesting is shallow and if tables
//! (abbreviations, range lists, line programs) are referred to about once. Then memory and time of blazesym grow with
//! the size of the file and not with its square: what it may keep is paid for from the budget of the call, unless the file
//! is the system's own. Strings must end soon, as they are looked through at each mention. References between entries are
//! not followed here.

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugRanges, DebugRngLists,
    EndianSlice, LittleEndian, RangeLists, RangeListsOffset, Reader as _, UnitHeader, UnitType,
};
use rustc_hash::FxHashSet;

use crate::budget::{Budget, Exhausted};
use crate::elf::{ElfFile, Section, u16_at, u32_at, u64_at};

/// Bytes of one unit, which lies in memory while it is checked.
const MAX_UNIT: u64 = 64 << 20;
/// Units of a file; blazesym keeps an entry for each.
const MAX_UNITS: u64 = 1 << 18;
/// Bytes of `.debug_abbrev` and of range lists, which lie in memory while they are checked.
const MAX_TABLE: u64 = 64 << 20;
/// Attributes of one kind of entry, some of which take no byte in the entries.
const MAX_ATTRIBUTES: u64 = 256;
/// Functions inlined into each other: each is a level of recursion.
const MAX_INLINED: usize = 1000;
/// Bytes of one line program; in memory a row takes 24 bytes, and a byte may be a row.
const MAX_LINE_PROGRAM: u64 = 16 << 20;
/// Bytes of the header of one line program: in memory its file names take about forty times as much.
const MAX_LINE_HEADER: u64 = 1 << 20;
/// Bytes of one entry, which holds strings and constants, and of a string in a section of strings.
const MAX_ENTRY: usize = 256 * 1024;
/// Sections of strings.
const STRINGS: [&str; 2] = [".debug_str", ".debug_line_str"];
/// What blazesym keeps at most (bytes): of one byte of a line program (which may be a row), of one byte of abbreviations,
/// of one function, of one range.
const LINE_COST: u64 = 24;
const ABBREVIATION_COST: u64 = 20;
const FUNCTION_COST: u64 = 100;
const RANGE_COST: u64 = 32;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Why debug information is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Format(#[from] gimli::Error),
    #[error("a section or unit ends outside of the file")]
    Truncated,
    #[error("functions are nested too deeply")]
    TooDeep,
    #[error("{0} is larger than descry reads it")]
    TooLarge(&'static str),
    #[error("a string has no end")]
    EndlessString,
    #[error("{0} are referred to again and again")]
    Repeated(&'static str),
    #[error("too much work")]
    Exhausted,
}

impl From<Exhausted> for Refused {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// Checks the debug information of a file whose debug sections are not compressed. What blazesym may keep of it is only
/// paid for if `is_paid`.
pub(crate) fn check(elf: &ElfFile, is_paid: bool, budget: &Budget) -> Result<()> {
    for section in STRINGS.iter().filter_map(|name| elf.section(name)) {
        if !strings_end(elf, section) {
            return Err(Refused::EndlessString);
        }
    }
    let abbreviations = table(elf, ".debug_abbrev")?;
    let (ranges, lists) = (table(elf, ".debug_ranges")?, table(elf, ".debug_rnglists")?);
    let ranges_size = (ranges.len() + lists.len()) as u64;
    let size = |name| elf.section(name).map_or(0, |section| section.size);
    let mut vet = Vet {
        elf,
        is_paid,
        budget,
        abbreviations: &abbreviations,
        ranges: RangeLists::new(
            DebugRanges::new(&ranges, LittleEndian),
            DebugRngLists::new(&lists, LittleEndian),
        ),
        seen: FxHashSet::default(),
        last: None,
        // Half as much again, and some for small files.
        abbreviations_left: Allowance::new(abbreviations.len() as u64),
        lines_left: Allowance::new(size(".debug_line")),
        // The shortest entry has 2 bytes.
        ranges_left: Allowance::new(ranges_size / 2),
    };
    let Some(info) = elf.section(".debug_info") else { return Ok(()) };
    let mut at = 0;
    for _ in 0..MAX_UNITS {
        if at >= info.size {
            return Ok(());
        }
        let len = unit_len(elf, info, at)?;
        if len > MAX_UNIT {
            return Err(Refused::TooLarge("a unit"));
        }
        let bytes = elf
            .file
            .read_vec(info.offset.saturating_add(at), len as usize)
            .map_err(|_| Refused::Truncated)?;
        budget.spend(len)?;
        vet.unit(&bytes)?;
        at += len;
    }
    Err(Refused::TooLarge("the number of units"))
}

/// The contents of a section; empty if it is missing.
fn table(elf: &ElfFile, name: &str) -> Result<Vec<u8>> {
    let Some(section) = elf.section(name) else { return Ok(Vec::new()) };
    if section.size > MAX_TABLE {
        return Err(Refused::TooLarge("a table"));
    }
    elf.file.read_vec(section.offset, section.size as usize).map_err(|_| Refused::Truncated)
}

/// The length of the unit at `at` with its length field, within the section (DWARF 5 section 7.4).
fn unit_len(elf: &ElfFile, info: &Section, at: u64) -> Result<u64> {
    let head = read_up_to(elf, info, at, 12)?;
    let len = match u32_at(&head, 0) {
        u32::MAX => u64_at(&head, 4).checked_add(12),
        len => Some(u64::from(len) + 4),
    };
    len.filter(|len| *len <= info.size - at).ok_or(Refused::Truncated)
}

fn read_up_to(elf: &ElfFile, section: &Section, at: u64, len: u64) -> Result<Vec<u8>> {
    let len = section.size.saturating_sub(at).min(len);
    elf.file.read_vec(section.offset.saturating_add(at), len as usize).map_err(|_| Refused::Truncated)
}

/// How much of a kind of table may still be referred to.
struct Allowance(u64);

impl Allowance {
    fn new(size: u64) -> Self {
        Self(size.saturating_add(size / 2).saturating_add(64 * 1024))
    }

    fn take(&mut self, amount: u64, what: &'static str) -> Result<()> {
        self.0 = self.0.checked_sub(amount).ok_or(Refused::Repeated(what))?;
        Ok(())
    }
}

struct Vet<'a> {
    elf: &'a ElfFile,
    is_paid: bool,
    budget: &'a Budget,
    abbreviations: &'a [u8],
    ranges: RangeLists<Slice<'a>>,
    /// Offsets of the abbreviations seen: blazesym, too, keeps those that units share once.
    seen: FxHashSet<usize>,
    last: Option<(usize, Abbreviations)>,
    abbreviations_left: Allowance,
    lines_left: Allowance,
    ranges_left: Allowance,
}

impl Vet<'_> {
    /// Pays for what blazesym may keep.
    fn keep(&self, bytes: u64) -> Result<()> {
        if self.is_paid {
            self.budget.spend(bytes)?;
        }
        Ok(())
    }

    fn unit(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(header) = DebugInfo::new(bytes, LittleEndian).units().next()? else { return Ok(()) };
        if matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. }) {
            return Ok(());
        }
        let offset = header.debug_abbrev_offset().0;
        let abbreviations = match self.last.take().filter(|(last, _)| *last == offset) {
            Some((_, abbreviations)) => abbreviations,
            None => self.read_abbreviations(offset)?,
        };
        self.entries(&header, &abbreviations)?;
        self.last = Some((offset, abbreviations));
        Ok(())
    }

    fn read_abbreviations(&mut self, offset: usize) -> Result<Abbreviations> {
        let rest = self.abbreviations.get(offset..).ok_or(Refused::Truncated)?;
        let len = abbreviations_len(rest)?;
        self.budget.spend(len as u64)?;
        if self.seen.insert(offset) {
            self.abbreviations_left.take(len as u64, "abbreviations")?;
            self.keep((len as u64).saturating_mul(ABBREVIATION_COST))?;
        }
        let table = DebugAbbrev::new(rest.get(..len).unwrap_or_default(), LittleEndian);
        Ok(table.abbreviations(DebugAbbrevOffset(0))?)
    }

    fn entries(&mut self, header: &UnitHeader<Slice<'_>>, abbreviations: &Abbreviations) -> Result<()> {
        let mut entries = header.entries_raw(abbreviations, None)?;
        // Depths of the inlined functions around the current entry.
        let mut inlined: Vec<isize> = Vec::new();
        // DWARF 5 section 7.28: the offsets of range lists begin behind the header of their table.
        let mut lists_base = gimli::DebugRngListsBase::default_for_encoding_and_file(
            header.encoding(),
            gimli::DwarfFileType::Main,
        );
        let mut is_root = true;
        while !entries.is_empty() {
            let (depth, begin) = (entries.next_depth(), entries.next_offset().0);
            self.budget.spend(1)?;
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            while inlined.pop_if(|outer| *outer >= depth).is_some() {}
            if abbreviation.tag() == gimli::DW_TAG_inlined_subroutine {
                inlined.push(depth);
                if inlined.len() > MAX_INLINED {
                    return Err(Refused::TooDeep);
                }
            }
            let attributes = abbreviation.attributes();
            self.budget.spend(attributes.len() as u64)?;
            if !(is_root
                || matches!(abbreviation.tag(), gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine))
            {
                entries.skip_attributes(attributes)?;
                check_entry(begin, entries.next_offset().0)?;
                continue;
            }
            self.keep(FUNCTION_COST)?;
            let mut found = None;
            for spec in attributes {
                let attribute = entries.read_attribute(*spec)?;
                match (attribute.name(), attribute.value()) {
                    (gimli::DW_AT_rnglists_base, AttributeValue::DebugRngListsBase(base)) => {
                        lists_base = base
                    }
                    (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(line)) => {
                        self.lines(line.0 as u64)?
                    }
                    (gimli::DW_AT_ranges, value) => found = Some(value),
                    _ => {}
                }
            }
            check_entry(begin, entries.next_offset().0)?;
            is_root = false;
            let list = match found {
                Some(AttributeValue::RangeListsRef(offset)) => Some(RangeListsOffset(offset.0)),
                Some(AttributeValue::DebugRngListsIndex(index)) => {
                    Some(self.ranges.get_offset(header.encoding(), lists_base, index)?)
                }
                _ => None,
            };
            if let Some(list) = list {
                self.range_list(list, header.encoding())?;
            }
        }
        Ok(())
    }

    fn range_list(&mut self, list: RangeListsOffset, encoding: gimli::Encoding) -> Result<()> {
        let mut entries = self.ranges.raw_ranges(list, encoding)?;
        while entries.next()?.is_some() {
            self.budget.spend(1)?;
            self.keep(RANGE_COST)?;
            self.ranges_left.take(1, "range lists")?;
        }
        Ok(())
    }

    /// DWARF 5 section 6.2.4: length, version, in version 5 two sizes, the header's own length.
    fn lines(&mut self, at: u64) -> Result<()> {
        let Some(section) = self.elf.section(".debug_line") else { return Ok(()) };
        let head = read_up_to(self.elf, section, at, 24)?;
        let (len, version_at, word) = match u32_at(&head, 0) {
            u32::MAX => (u64_at(&head, 4), 12, 8),
            len => (u64::from(len), 4, 4),
        };
        let header_at = version_at + if u16_at(&head, version_at) >= 5 { 4 } else { 2 };
        let header_len =
            if word == 8 { u64_at(&head, header_at) } else { u64::from(u32_at(&head, header_at)) };
        if len > MAX_LINE_PROGRAM || header_len > MAX_LINE_HEADER {
            return Err(Refused::TooLarge("a line program"));
        }
        self.keep(len.saturating_mul(LINE_COST))?;
        self.lines_left.take(len, "line programs")
    }
}

fn check_entry(begin: usize, end: usize) -> Result<()> {
    if end.saturating_sub(begin) > MAX_ENTRY {
        return Err(Refused::TooLarge("an entry"));
    }
    Ok(())
}

/// Whether each string of a section is short enough to be looked through again and again.
pub(crate) fn strings_end(elf: &ElfFile, section: &Section) -> bool {
    let mut buffer = vec![0; MAX_ENTRY];
    let (mut at, mut run) = (0, 0);
    while at < section.size {
        let wanted = buffer.len().min(usize::try_from(section.size - at).unwrap_or(usize::MAX));
        let Some(part) = buffer.get_mut(..wanted) else { return false };
        let read = elf.file.read_at(part, section.offset.saturating_add(at));
        let Some(part) = read.ok().filter(|read| *read > 0).and_then(|read| buffer.get(..read)) else {
            return false;
        };
        let mut strings = part.split(|byte| *byte == 0);
        // The first goes on from the part before, the last into the next one; those between are shorter than a part.
        run += strings.next().map_or(0, <[u8]>::len);
        if run > MAX_ENTRY {
            return false;
        }
        if let Some(last) = strings.next_back() {
            run = last.len();
        }
        at += part.len() as u64;
    }
    true
}

/// The length of a table of abbreviations (DWARF 5 section 7.5.3).
fn abbreviations_len(bytes: &[u8]) -> Result<usize> {
    let mut table = EndianSlice::new(bytes, LittleEndian);
    while table.read_uleb128()? != 0 {
        let (_tag, _has_children) = (table.read_uleb128()?, table.read_u8()?);
        for count in 0.. {
            let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
            if name == 0 && form == 0 {
                break;
            }
            if count > MAX_ATTRIBUTES {
                return Err(Refused::TooLarge("a kind of entry"));
            }
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
        }
    }
    Ok(bytes.len() - table.len())
}
