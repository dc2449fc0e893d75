//! From an address to its row: mapping, page of code, row.

use descry_abi::event::UnwindEnd;
use descry_abi::limits::{CHUNK_SLOTS, MAX_MAPPINGS};
use descry_abi::unwind::{
    CfaKind, FpKind, INDEX_FRAME_POINTER, INDEX_NOT_LOADED, IndexEntry, MAPPING_SLOTS, MAX_PAGE_ROWS,
    PAGE_SHIFT, Process, Row,
};

use crate::maps::{Chunk, TABLES};

/// Where a process's mappings are.
#[derive(Clone, Copy)]
pub struct Tables {
    pub generation: u32,
    mappings: u32,
    count: u32,
}

/// The step by frame pointer, as a row: CFA = fp + 16, caller's fp at CFA - 16.
const FRAME_POINTER: Row = Row {
    pc_low: 0,
    cfa_kind: CfaKind::None as u8,
    fp_kind: FpKind::AtCfa as u8,
    cfa_words: 2,
    fp_words: -2,
};

/// Halvings of a binary search over the mappings of a process, and over the rows of a page.
const MAPPING_STEPS: u32 = MAX_MAPPINGS.trailing_zeros();
const ROW_STEPS: u32 = MAX_PAGE_ROWS.next_power_of_two().trailing_zeros();

/// The chunk that holds a slot.
#[inline(always)]
fn chunk(slot: u32) -> Option<*const u64> {
    // The key must lie on the stack: a constant goes to .rodata by a relocation without a symbol, which aya 0.14 takes
    // for the section's first byte. The volatile read keeps the compiler from making it one.
    let zero = 0u32;
    // SAFETY: a live local variable.
    let only_entry = unsafe { core::ptr::read_volatile(&zero) };
    let chunk: *const Chunk = TABLES.get_value_ptr_mut(slot / CHUNK_SLOTS as u32, &only_entry)?.cast_const();
    Some(chunk.cast())
}

/// The word of a chunk at a slot number.
#[inline(always)]
fn word(chunk: *const u64, slot: u32) -> u64 {
    // SAFETY: the index is masked to the chunk's length.
    unsafe { *chunk.add(slot as usize & (CHUNK_SLOTS - 1)) }
}

/// All ones if `a >= b`, else 0. Without a branch the verifier follows one state, not two, through each halving.
#[inline(always)]
fn mask_ge(a: u64, b: u64) -> u32 {
    // Addresses and row numbers are below 2^63, so the sign of the difference tells.
    ((a.wrapping_sub(b) >> 63) as u32).wrapping_sub(1)
}

impl Tables {
    /// Those of a process.
    #[inline(always)]
    pub fn of(process: Process) -> Self {
        Self { generation: process.generation, mappings: process.mappings, count: process.count }
    }

    /// The row in force at `address`. A mapping without rows, or a page without them, gives the frame pointer's. `last`
    /// is the mapping that the frame before was in: most callers are in the same one.
    #[inline(always)]
    pub fn row(&self, address: u64, last: &mut u32) -> Result<Row, UnwindEnd> {
        let table = chunk(self.mappings).ok_or(UnwindEnd::NotLoaded)?;
        let at =
            |mapping: u32, field: u32| word(table, self.mappings + mapping * MAPPING_SLOTS as u32 + field);
        let mut low = *last;
        if address < at(low, 0) || address >= at(low, 1) {
            // The last mapping that starts at or before the address.
            low = 0;
            let mut len = self.count;
            for _ in 0..MAPPING_STEPS {
                let half = len >> 1;
                if half == 0 {
                    break;
                }
                low += half & mask_ge(address, at(low + half, 0));
                len -= half;
            }
            *last = low;
        }
        if self.count == 0 || address < at(low, 0) || address >= at(low, 1) {
            return Err(UnwindEnd::NoMapping);
        }
        let place = at(low, 3);
        let (index, pages) = (place as u32, (place >> 32) as u32);
        if index == INDEX_FRAME_POINTER {
            return Ok(FRAME_POINTER);
        }
        if index == INDEX_NOT_LOADED {
            return Err(UnwindEnd::NotLoaded);
        }
        let elf_address = address.wrapping_sub(at(low, 2));
        let page = ((elf_address >> PAGE_SHIFT) as u32).wrapping_sub(at(low, 4) as u32);
        if page >= pages {
            return Ok(FRAME_POINTER);
        }
        let slot = index + page;
        let entry = IndexEntry::from_slot(word(chunk(slot).ok_or(UnwindEnd::NotLoaded)?, slot));
        if entry.count == 0 {
            return Ok(FRAME_POINTER);
        }
        let row = find(entry, elf_address as u16).ok_or(UnwindEnd::NotLoaded)?;
        Ok(if row.cfa_kind == CfaKind::None as u8 { FRAME_POINTER } else { row })
    }
}

/// The last row of a page at or before `pc_low`; its first row is in force from the page's first byte.
#[inline(always)]
fn find(entry: IndexEntry, pc_low: u16) -> Option<Row> {
    let rows = chunk(entry.first)?;
    let (mut low, mut len) = (entry.first, entry.count);
    for _ in 0..ROW_STEPS {
        let half = len >> 1;
        if half == 0 {
            break;
        }
        low += half & mask_ge(pc_low.into(), u64::from(word(rows, low + half) as u16));
        len -= half;
    }
    Some(Row::from_slot(word(rows, low)))
}
