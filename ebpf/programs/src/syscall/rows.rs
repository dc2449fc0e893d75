//! Rows of durations, by process and call: each CPU's own part of them.
//!
//! A row lies among those of its key's place, whose keys are compared one after the other. Where others took the place it
//! lies in a hash, which takes memory as it goes. The kernel keeps little memory at hand for that and fetches more a moment
//! later, so half of each place is kept for rows that could not be made there.

use core::hint::cold_path;
use core::ops::Range;

use aya_ebpf::bindings::BPF_NOEXIST;
use descry_abi::counter::Counter;
use descry_abi::histogram::{BUCKETS, Histogram, SHORT_BUCKETS};
use descry_abi::syscall::{CallKey, FIRST_ROWS, ROWS_A_PLACE, ThreadCall, nth_row, wanted_row};

use crate::atomic;
use crate::config::NEAR_PLACES;
use crate::emit::count;
use crate::histogram::bucket;
use crate::maps::{EMPTY_HISTOGRAM, SYSCALL_NEAR_ROWS, SYSCALL_OTHERS, SYSCALL_ROW_KEYS, SYSCALL_ROWS};

use super::traits;

/// The near row that a call takes if it can.
#[inline(always)]
pub fn wanted(key: CallKey) -> u32 {
    wanted_row(key, NEAR_PLACES.load())
}

/// Adds a call that returned. Most are short, and have the row that they want, which says itself whose it is.
#[inline(always)]
pub fn add(call: *const ThreadCall, duration: u64) {
    // SAFETY: the caller's pointer was checked by its lookup; the key is eight bytes, and aligned like its neighbours.
    let (word, wanted) = unsafe { ((&raw const (*call).key).cast::<u64>().read(), (*call).wanted_row) };
    if let Some(row) = SYSCALL_NEAR_ROWS.get_ptr_mut(wanted)
        && let Some(bucket) = SHORT_BUCKETS.get(duration as usize)
    {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        unsafe {
            if (*row).owner == word {
                return record(row, duration, usize::from(*bucket));
            }
        }
    }
    cold_path();
    // SAFETY: as above.
    let key = unsafe { (*call).key };
    add_elsewhere(key.tgid, key.number, duration);
}

/// Adds a call that took long, or whose row is another, or does not say yet on this CPU whose it is. The verifier goes
/// through a global function once, by itself, whatever leads to it and follows it. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn add_elsewhere(tgid: u32, number: u32, duration: u64) -> u64 {
    if let Some(row) = row(CallKey { tgid, number }).or_else(|| row_of_others(number)) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        unsafe { record(row, duration, bucket(duration)) }
    }
    0
}

/// This CPU's part of a row, which is made where there is none.
#[inline(always)]
fn row(key: CallKey) -> Option<*mut Histogram> {
    let wanted = wanted(key);
    for nth in 0..ROWS_A_PLACE {
        let index = nth_row(wanted, nth);
        let Some(owner) = SYSCALL_ROW_KEYS.get_ptr(index) else { break };
        // SAFETY: the pointer was checked by the lookup; a word is read at once.
        if unsafe { owner.read_volatile() } == key.word() {
            return near_row(index, key);
        }
    }
    match SYSCALL_ROWS.get_ptr_mut(key) {
        Some(row) => Some(row),
        None => new_row(key, wanted),
    }
}

/// This CPU's part of a near row, which is this key's. Here it may not say so yet.
#[inline(always)]
fn near_row(index: u32, key: CallKey) -> Option<*mut Histogram> {
    let row = SYSCALL_NEAR_ROWS.get_ptr_mut(index)?;
    // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
    unsafe { (*row).owner = key.word() };
    Some(row)
}

/// Makes a row.
#[inline(always)]
fn new_row(key: CallKey, wanted: u32) -> Option<*mut Histogram> {
    if let Some(row) = claim(key, wanted, 0..FIRST_ROWS) {
        return Some(row);
    }
    let empty = EMPTY_HISTOGRAM.get_ptr(0)?;
    // SAFETY: the pointer was checked by the lookup.
    let empty = unsafe { &*empty };
    // Another CPU may have made it meanwhile: then it is there, which is all that counts.
    let _ = SYSCALL_ROWS.insert(key, empty, BPF_NOEXIST.into());
    match SYSCALL_ROWS.get_ptr_mut(key) {
        Some(row) => Some(row),
        None => claim(key, wanted, FIRST_ROWS..ROWS_A_PLACE),
    }
}

/// Takes the first of some near rows that is nobody's, or that another CPU has taken for the same key meanwhile.
#[inline(always)]
fn claim(key: CallKey, wanted: u32, rows: Range<u32>) -> Option<*mut Histogram> {
    for nth in rows {
        let index = nth_row(wanted, nth);
        let owner = SYSCALL_ROW_KEYS.get_ptr_mut(index)?;
        // SAFETY: the pointer was checked by the lookup. A row that is nobody's holds zeros.
        let was = unsafe { atomic::put_if_zero(owner, key.word()) };
        if was == 0 || was == key.word() {
            return near_row(index, key);
        }
    }
    None
}

/// The row of a call that has none.
#[inline(always)]
fn row_of_others(number: u32) -> Option<*mut Histogram> {
    count(Counter::SyscallOthers);
    SYSCALL_OTHERS.get_ptr_mut(u32::from(traits(number).blocking != 0))
}

/// Adds a duration to a histogram that only this CPU writes.
#[inline(always)]
unsafe fn record(row: *mut Histogram, duration: u64, bucket: usize) {
    // SAFETY: the caller's pointer is valid; the bucket is bounded.
    unsafe {
        (*row).count += 1;
        (*row).sum += duration;
        if duration > (*row).max {
            (*row).max = duration;
        }
        if bucket < BUCKETS {
            *(&raw mut (*row).buckets).cast::<u64>().add(bucket) += 1;
        }
    }
}
