//! The best of several names of one place: blazesym gives any of them.
//!
//! The table is read once, front to back, and not kept. Preferred are: function before untyped, global before weak
//! before local, fewer leading underscores, shorter, alphabet. Layout: System V ABI, chapter 4, "Symbol Table".

use object::elf;
use rustc_hash::FxHashMap;

use crate::budget::{Budget, Exhausted, KEPT_BYTE};
use crate::elf::{ElfFile, u16_at, u32_at, u64_at};
use crate::strings::read_name;

const SYMBOL_LEN: usize = 24;
/// Symbols read at a time (96 KiB).
const CHUNK: usize = 4096;
/// Names looked at for one place.
const MAX_ALIASES: u32 = 64;
/// Bytes of a name read from the string table; names are cut much shorter later.
const MAX_RAW_NAME: usize = 16 * 1024;

/// First address and size (0: none) of a symbol.
pub(crate) type Place = (u64, u64);

/// The best name found so far.
#[derive(Debug, Default)]
struct Best {
    rank: u8,
    name: Vec<u8>,
    seen: u32,
}

/// The best names of places that a table of `elf` names.
pub(crate) fn names(
    elf: &ElfFile,
    table: &str,
    places: impl Iterator<Item = Place>,
    max_symbols: u64,
    budget: &Budget,
) -> Result<FxHashMap<Place, Vec<u8>>, Exhausted> {
    let mut found: FxHashMap<Place, Best> = places.map(|place| (place, Best::default())).collect();
    let Some((section, strings)) = elf.table(table).filter(|_| !found.is_empty()) else {
        return Ok(FxHashMap::default());
    };
    let mut offset = section.offset;
    let mut left = (section.size / SYMBOL_LEN as u64).min(max_symbols);
    let mut buffer = vec![0; CHUNK * SYMBOL_LEN];
    while left > 0 {
        let wanted = (left.min(CHUNK as u64) as usize) * SYMBOL_LEN;
        let Some(part) = buffer.get_mut(..wanted) else { break };
        let Ok(read) = elf.file.read_at(part, offset) else { break };
        budget.spend(read as u64)?;
        for symbol in part.get(..read).unwrap_or_default().chunks_exact(SYMBOL_LEN) {
            let place = (u64_at(symbol, 8), u64_at(symbol, 16));
            let Some(best) = found.get_mut(&place).filter(|best| best.seen < MAX_ALIASES) else { continue };
            let Some(rank) = rank(symbol) else { continue };
            best.seen += 1;
            if rank < best.rank {
                continue;
            }
            let name = read_name(elf, Some(strings), u32_at(symbol, 0), MAX_RAW_NAME, budget)?;
            if !name.is_empty() && (rank > best.rank || order(&name) < order(&best.name)) {
                budget.spend((name.len() as u64).saturating_mul(KEPT_BYTE))?;
                best.rank = rank;
                best.name = name;
            }
        }
        if read < wanted {
            break;
        }
        offset = offset.saturating_add(wanted as u64);
        left -= wanted as u64 / SYMBOL_LEN as u64;
    }
    found.retain(|_, best| !best.name.is_empty());
    Ok(found.into_iter().map(|(place, best)| (place, best.name)).collect())
}

/// How well a symbol names code, from 1; `None` if it does not.
fn rank(symbol: &[u8]) -> Option<u8> {
    let info = symbol.get(4).copied().unwrap_or(0);
    let by_kind = match info & 0xf {
        kind if kind == elf::STT_FUNC.0 || kind == elf::STT_GNU_IFUNC.0 => 4,
        kind if kind == elf::STT_NOTYPE.0 => 1,
        _ => return None,
    };
    if u16_at(symbol, 6) == elf::SHN_UNDEF.0 {
        return None;
    }
    Some(match info >> 4 {
        binding if binding == elf::STB_GLOBAL.0 || binding == elf::STB_GNU_UNIQUE.0 => by_kind + 2,
        binding if binding == elf::STB_WEAK.0 => by_kind + 1,
        _ => by_kind,
    })
}

fn order(name: &[u8]) -> (usize, usize, &[u8]) {
    (name.iter().take_while(|byte| **byte == b'_').count(), name.len(), name)
}
