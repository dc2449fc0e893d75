//! Names of functions of Go programs without a symbol table, from `.gopclntab` (Go 1.18 and later).
//!
//! Layout: `pcHeader` and `functab` of Go's src/runtime/symtab.go. Header: magic (u32: fffffff0 for 1.18 and 1.19,
//! fffffff1 since 1.20), two zeros, quantum (u8), pointer size (u8), number of functions, number of files, start of
//! text, and offsets from the header of: names, units, files, pc values, functions (each of pointer size). `functab` at
//! the offset of functions: pairs of u32, offset of the entry from the start of text and offset of the `_func` from
//! `functab`; one pair more at the end gives the end of text. `_func`: entry (u32), offset of the name (i32), ...

use descry_decode::ids::ElfAddress;

use crate::budget::{Budget, Exhausted, KEPT_BYTE};
use crate::elf::{ElfFile, Section, u32_at, u64_at};

const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;
const HEADER_LEN: usize = 8 + 8 * 8;
const ENTRY_LEN: u64 = 8;
const MAX_NAME: usize = 4096;

/// Names of `addresses` (sorted); `None` where no function covers one.
pub(crate) fn lookup(
    elf: &ElfFile,
    section: &Section,
    addresses: &[u64],
    budget: &Budget,
) -> Result<Vec<Option<Vec<u8>>>, Exhausted> {
    let mut names = Vec::with_capacity(addresses.len());
    let Some(table) = Table::open(elf, section) else { return Ok(vec![None; addresses.len()]) };
    for address in addresses {
        names.push(table.name(*address, budget)?);
    }
    Ok(names)
}

/// A function of a Go program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoFunction<'a> {
    /// Its name with the path of its package.
    pub name: &'a [u8],
    /// Where it begins.
    pub address: ElfAddress,
    /// How far it reaches (bytes); padding behind it is part of that.
    pub size: u64,
}

/// The functions that a `.gopclntab` names, by address; none if it is not one of Go 1.18 or later. `text` is where the
/// section `.text` begins. What lies outside of the section is left out.
pub fn go_functions(section: &[u8], text: ElfAddress) -> impl Iterator<Item = GoFunction<'_>> {
    let header = Header::parse(section, section.len() as u64, || Some(text.0));
    let functions = header.as_ref().map_or(0, |header| header.functions);
    (0..functions).filter_map(move |index| {
        let header = header.as_ref()?;
        let at = |at: u64| section.get(usize::try_from(at).ok()?..);
        let entry = |index: u64| {
            let entry = at(header.functions_at + index * ENTRY_LEN)?.get(..ENTRY_LEN as usize)?;
            Some((u64::from(u32_at(entry, 0)), u64::from(u32_at(entry, 4))))
        };
        let ((start, function), (end, _)) = (entry(index)?, entry(index + 1)?);
        let name = u64::from(u32_at(at(header.functions_at.checked_add(function)?)?.get(..8)?, 4));
        let name = at(header.names_at.checked_add(name)?)?;
        let name = name.get(..MAX_NAME).unwrap_or(name);
        let name = name.get(..memchr::memchr(0, name)?)?;
        let address = ElfAddress(header.text_start.checked_add(start)?);
        (!name.is_empty()).then_some(GoFunction { name, address, size: end.saturating_sub(start) })
    })
}

struct Header {
    functions: u64,
    text_start: u64,
    names_at: u64,
    functions_at: u64,
}

impl Header {
    /// That of a section of `size` bytes; `text` tells where the section `.text` begins.
    fn parse(header: &[u8], size: u64, text: impl FnOnce() -> Option<u64>) -> Option<Self> {
        let header = header.get(..HEADER_LEN)?;
        if !matches!(u32_at(header, 0), MAGIC_1_18 | MAGIC_1_20) || header.get(7) != Some(&8) {
            return None;
        }
        let parsed = Self {
            functions: u64_at(header, 8),
            // Since Go 1.26 the header says 0 and the text section is meant.
            text_start: match u64_at(header, 24) {
                0 => text()?,
                start => start,
            },
            names_at: u64_at(header, 32),
            functions_at: u64_at(header, 64),
        };
        let end = parsed.functions.checked_mul(ENTRY_LEN)?.checked_add(parsed.functions_at)?;
        (end <= size).then_some(parsed)
    }
}

struct Table<'a> {
    elf: &'a ElfFile,
    section: &'a Section,
    header: Header,
}

impl<'a> Table<'a> {
    fn open(elf: &'a ElfFile, section: &'a Section) -> Option<Self> {
        let header = elf.file.read_vec(section.offset, HEADER_LEN).ok()?;
        let text = || Some(elf.sections.iter().find(|s| s.is_code() && &*s.name == ".text")?.address);
        Some(Self { elf, section, header: Header::parse(&header, section.size, text)? })
    }

    /// Bytes at a position of the section.
    fn read(&self, at: u64, len: usize, budget: &Budget) -> Result<Option<Vec<u8>>, Exhausted> {
        budget.spend(len as u64)?;
        if at.checked_add(len as u64).is_none_or(|end| end > self.section.size) {
            return Ok(None);
        }
        Ok(self.elf.file.read_vec(self.section.offset.saturating_add(at), len).ok())
    }

    /// (offset of the entry from the start of text, offset of its `_func` from the functions).
    fn entry(&self, index: u64, budget: &Budget) -> Result<Option<(u64, u64)>, Exhausted> {
        let at = index.checked_mul(ENTRY_LEN).and_then(|at| at.checked_add(self.header.functions_at));
        let Some(at) = at else { return Ok(None) };
        let entry = self.read(at, ENTRY_LEN as usize, budget)?;
        Ok(entry.map(|entry| (u64::from(u32_at(&entry, 0)), u64::from(u32_at(&entry, 4)))))
    }

    fn name(&self, address: u64, budget: &Budget) -> Result<Option<Vec<u8>>, Exhausted> {
        let Some(offset) = address.checked_sub(self.header.text_start) else { return Ok(None) };
        // The last entry at or below the offset; the one at index `functions` is the end of text.
        let (mut low, mut high) = (0, self.header.functions);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle, budget)? {
                Some((start, _)) if start <= offset => low = middle + 1,
                Some(_) => high = middle,
                None => return Ok(None),
            }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(None) };
        let end = self.read(
            self.header.functions_at.saturating_add(self.header.functions.saturating_mul(ENTRY_LEN)),
            4,
            budget,
        )?;
        if end.is_none_or(|end| offset >= u64::from(u32_at(&end, 0))) {
            return Ok(None);
        }
        let Some((_, function)) = self.entry(index, budget)? else { return Ok(None) };
        let Some(function) = self.read(self.header.functions_at.saturating_add(function), 8, budget)? else {
            return Ok(None);
        };
        let at = self.header.names_at.saturating_add(u64::from(u32_at(&function, 4)));
        let len = MAX_NAME.min(usize::try_from(self.section.size.saturating_sub(at)).unwrap_or(MAX_NAME));
        let Some(mut name) = self.read(at, len, budget)? else { return Ok(None) };
        let Some(end) = name.iter().position(|byte| *byte == 0) else { return Ok(None) };
        name.truncate(end);
        name.shrink_to_fit();
        budget.spend((name.len() as u64).saturating_mul(KEPT_BYTE))?;
        Ok((!name.is_empty()).then_some(name))
    }
}
