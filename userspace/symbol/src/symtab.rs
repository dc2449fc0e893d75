//! Addresses to symbols of `.symtab` and `.dynsym`.
//!
//! The table is read once from front to back and never kept: memory grows with the addresses asked for, not with the
//! file (node has 110 000 symbols, rustc's driver more). Layout: System V ABI, chapter 4, "Symbol Table".
//!
//! Which symbol names address `a`:
//! - one with a size covers `[start, start + size)`, cut at the end of its section; of several, the one that starts
//!   last wins, then the one that ends first;
//! - one without a size (assembler) covers up to the next symbol of its section, but not past the end of a sized
//!   symbol that it lies in;
//! - of several names of one place: function before untyped, global before weak before local, fewer leading
//!   underscores, shorter, alphabet.

use object::elf;

use crate::budget::{Budget, Exhausted, KEPT_BYTE};
use crate::elf::{ElfFile, Section, u16_at, u32_at, u64_at};

const SYMBOL_LEN: usize = 24;
/// Symbols read at a time (96 KiB).
const CHUNK: usize = 4096;
/// Names remembered for one place.
const MAX_ALIASES: usize = 16;
/// Bytes of a name read from the string table; names are cut much shorter later.
const MAX_RAW_NAME: usize = 16 * 1024;

/// A name and how well it fits; the greatest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    name: u32,
    rank: u8,
}

/// The best range found for one address so far.
#[derive(Clone, Debug, Default)]
struct Found {
    start: u64,
    end: u64,
    names: Vec<Candidate>,
}

/// What is known of the gap below one address.
#[derive(Clone, Debug, Default)]
struct Below {
    /// The last symbol that starts at or below the address.
    start: Option<u64>,
    /// Its names, empty if one of its symbols has a size.
    names: Vec<Candidate>,
    sized: bool,
    /// The last end of a sized symbol at or below the address.
    last_end: u64,
}

/// Names of `addresses` (sorted, without duplicates) from one symbol table; `None` where no symbol covers one.
pub(crate) fn lookup(
    elf: &ElfFile,
    table: &Section,
    addresses: &[u64],
    max_symbols: u64,
    budget: &Budget,
) -> Result<Vec<Option<Vec<u8>>>, Exhausted> {
    let mut search = Search::new(elf, addresses);
    let strings = elf.sections.get(table.link as usize);
    let mut offset = table.offset;
    let mut left = (table.size / SYMBOL_LEN as u64).min(max_symbols);
    let mut buffer = vec![0; CHUNK * SYMBOL_LEN];
    while left > 0 {
        let wanted = (left.min(CHUNK as u64) as usize) * SYMBOL_LEN;
        let Some(part) = buffer.get_mut(..wanted) else { break };
        let Ok(read) = elf.file.read_at(part, offset) else { break };
        budget.spend(read as u64)?;
        for symbol in part.get(..read).unwrap_or_default().chunks_exact(SYMBOL_LEN) {
            search.add(symbol, strings, budget)?;
        }
        if read < wanted {
            break;
        }
        offset += wanted as u64;
        left -= wanted as u64 / SYMBOL_LEN as u64;
    }
    search.finish(strings, budget)
}

struct Search<'a> {
    elf: &'a ElfFile,
    addresses: &'a [u64],
    covered: Vec<Found>,
    below: Vec<Below>,
}

impl<'a> Search<'a> {
    fn new(elf: &'a ElfFile, addresses: &'a [u64]) -> Self {
        Self {
            elf,
            addresses,
            covered: vec![Found::default(); addresses.len()],
            below: vec![Below::default(); addresses.len()],
        }
    }

    fn first_at_or_above(&self, address: u64) -> usize {
        self.addresses.partition_point(|a| *a < address)
    }

    fn add(&mut self, symbol: &[u8], strings: Option<&Section>, budget: &Budget) -> Result<(), Exhausted> {
        let info = symbol.get(4).copied().unwrap_or(0);
        let kind = info & 0xf;
        let is_function = kind == elf::STT_FUNC.0 || kind == elf::STT_GNU_IFUNC.0;
        if !(is_function || kind == elf::STT_NOTYPE.0) {
            return Ok(());
        }
        let section = u16_at(symbol, 6);
        if section == elf::SHN_UNDEF.0 || (section >= elf::SHN_LORESERVE && section != elf::SHN_XINDEX.0) {
            return Ok(());
        }
        let (name, start, size) = (u32_at(symbol, 0), u64_at(symbol, 8), u64_at(symbol, 16));
        let section = match self.elf.sections.get(usize::from(section)) {
            Some(section) if section.is_code() && section.contains(start) => section,
            // Indices above 0xff00 are in a table of their own; the address tells the section as well.
            None => match self.elf.code_section(start) {
                Some(section) => section,
                None => return Ok(()),
            },
            Some(_) => return Ok(()),
        };
        let section_end = section.address.saturating_add(section.size);
        let end = start.saturating_add(size).min(section_end);
        let first = self.first_at_or_above(start);
        if self.addresses.get(first).is_none_or(|address| *address >= section_end) {
            return Ok(());
        }
        let binding = info >> 4;
        if size == 0
            && kind == elf::STT_NOTYPE.0
            && binding == elf::STB_LOCAL.0
            && self.elf.machine == elf::EM_AARCH64.0
            && read_name(self.elf, strings, name, 1, budget)? == b"$"
        {
            // A mapping symbol (ELF for the Arm 64-bit Architecture, 5.5.4): marks code or data, names nothing.
            return Ok(());
        }
        let rank = u8::from(is_function) * 4
            + match binding {
                b if b == elf::STB_GLOBAL.0 || b == elf::STB_GNU_UNIQUE.0 => 2,
                b if b == elf::STB_WEAK.0 => 1,
                _ => 0,
            };
        let candidate = Candidate { name, rank };
        let after = self.first_at_or_above(end).max(first);
        budget.spend(1 + (after - first) as u64)?;
        for found in self.covered.get_mut(first..after).unwrap_or_default() {
            if found.names.is_empty()
                || (start, std::cmp::Reverse(end)) > (found.start, std::cmp::Reverse(found.end))
            {
                *found = Found { start, end, names: vec![candidate] };
            } else if (start, end) == (found.start, found.end) {
                keep_best(&mut found.names, candidate);
            }
        }
        if let Some(below) = self.below.get_mut(after).filter(|_| size > 0) {
            below.last_end = below.last_end.max(end);
        }
        if let Some(below) = self.below.get_mut(first) {
            match below.start {
                Some(known) if known > start => {}
                Some(known) if known == start => {
                    below.sized |= size > 0;
                    keep_best(&mut below.names, candidate);
                }
                _ => {
                    below.start = Some(start);
                    below.sized = size > 0;
                    below.names = vec![candidate];
                }
            }
        }
        Ok(())
    }

    fn finish(self, strings: Option<&Section>, budget: &Budget) -> Result<Vec<Option<Vec<u8>>>, Exhausted> {
        let mut names = Vec::with_capacity(self.addresses.len());
        let mut last = Below::default();
        for ((address, found), below) in self.addresses.iter().zip(self.covered).zip(self.below) {
            let last_end = last.last_end.max(below.last_end);
            if below.start.is_some() {
                last = below;
            }
            last.last_end = last_end;
            let candidates = if !found.names.is_empty() {
                &found.names
            } else if last.start.is_some_and(|start| {
                !last.sized
                    && last_end <= start
                    && self.elf.code_section(*address).is_some_and(|section| section.contains(start))
            }) {
                &last.names
            } else {
                names.push(None);
                continue;
            };
            names.push(best_name(self.elf, strings, candidates, budget)?);
        }
        Ok(names)
    }
}

/// Keeps the candidates of the best rank, few of them.
fn keep_best(names: &mut Vec<Candidate>, candidate: Candidate) {
    let best = names.first().map_or(0, |first| first.rank);
    if candidate.rank > best {
        names.clear();
    }
    if candidate.rank >= best && names.len() < MAX_ALIASES {
        names.push(candidate);
    }
}

fn best_name(
    elf: &ElfFile,
    strings: Option<&Section>,
    candidates: &[Candidate],
    budget: &Budget,
) -> Result<Option<Vec<u8>>, Exhausted> {
    let mut best: Option<Vec<u8>> = None;
    let key =
        |name: &[u8]| (name.iter().take_while(|byte| **byte == b'_').count(), name.len(), name.to_vec());
    for candidate in candidates {
        let name = read_name(elf, strings, candidate.name, MAX_RAW_NAME, budget)?;
        if !name.is_empty() && best.as_deref().is_none_or(|best| key(&name) < key(best)) {
            best = Some(name);
        }
    }
    budget.spend(best.as_ref().map_or(0, |name| name.len() as u64).saturating_mul(KEPT_BYTE))?;
    Ok(best)
}

/// The string at `offset` of a string table, at most `max` bytes of it.
pub(crate) fn read_name(
    elf: &ElfFile,
    strings: Option<&Section>,
    offset: u32,
    max: usize,
    budget: &Budget,
) -> Result<Vec<u8>, Exhausted> {
    let mut name = Vec::new();
    let Some(strings) = strings.filter(|strings| strings.kind == elf::SHT_STRTAB.0) else { return Ok(name) };
    let mut at = u64::from(offset);
    let mut block = [0; 256];
    while name.len() < max && at < strings.size {
        let wanted =
            block.len().min(max - name.len()).min(usize::try_from(strings.size - at).unwrap_or(usize::MAX));
        let Some(part) = block.get_mut(..wanted) else { break };
        let Ok(read) = elf.file.read_at(part, strings.offset.saturating_add(at)) else { break };
        budget.spend(read as u64)?;
        let bytes = part.get(..read).unwrap_or_default();
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => {
                name.extend_from_slice(bytes.get(..end).unwrap_or_default());
                break;
            }
            None => name.extend_from_slice(bytes),
        }
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(name)
}
