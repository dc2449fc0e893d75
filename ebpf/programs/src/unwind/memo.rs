//! Rows remembered by address: most frames of a sample were frames of the last one.
//!
//! An entry holds the row (without its `pc_low`) and is found by address and generation. The key is stored XORed with
//! the value, so that an entry of which only one half was written never matches:
//!
//! ```text
//! value = row bits 16..64 | generation >> 16          (row bits 0..16 are pc_low, not needed)
//! key   = address ^ value ^ generation << 48          (user addresses are below 2^48)
//! ```

use descry_abi::limits::MEMO_SLOTS;
use descry_abi::unwind::Row;

use crate::maps::{Memo, MemoEntry};

const SHIFT: u32 = 64 - MEMO_SLOTS.trailing_zeros();

#[inline(always)]
fn entry(memo: *mut Memo, address: u64) -> *mut MemoEntry {
    // Fibonacci hashing: the upper bits of the product spread neighbouring addresses.
    let index = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> SHIFT) as usize & (MEMO_SLOTS - 1);
    // SAFETY: the index is masked to the length.
    unsafe { memo.cast::<MemoEntry>().add(index) }
}

/// The row at `address`, if it is remembered for this generation.
#[inline(always)]
pub fn get(memo: *mut Memo, address: u64, generation: u32) -> Option<Row> {
    let entry = entry(memo, address);
    // SAFETY: `entry` is in the map's value. A torn read does not match its key.
    let (key, value) = unsafe { ((*entry).key, (*entry).value) };
    let matches =
        key ^ value ^ u64::from(generation) << 48 == address && value & 0xffff == u64::from(generation >> 16);
    matches.then(|| Row::from_slot(value))
}

/// Remembers a row.
#[inline(always)]
pub fn put(memo: *mut Memo, address: u64, generation: u32, row: Row) {
    let value = row.to_slot() & !0xffff | u64::from(generation >> 16);
    let entry = entry(memo, address);
    // SAFETY: as in `get`.
    unsafe {
        (*entry).value = value;
        (*entry).key = address ^ value ^ u64::from(generation) << 48;
    }
}
