//! Rows of durations, by process and call: each CPU's own part of them.
//!
//! A row lies among those of its key's place, whose keys are compared one after the other. Where others took the place it
//! lies in a hash, which takes memory as it goes. The kernel keeps little memory at hand for that and fetches more a moment
//! later, so half of each place is kept for rows that could not be made there.

use aya_ebpf::bindings::BPF_NOEXIST;
use descry_abi::counter::Counter;
use descry_abi::histogram::{BUCKETS, Histogram, bucket_of_doubling};
use descry_abi::syscall::{CallKey, FIRST_ROWS, ROWS_A_PLACE, first_near_row};

use crate::atomic;
use crate::config::NEAR_PLACES;
use crate::emit::count;
use crate::maps::{SYSCALL_EMPTY, SYSCALL_NEAR_ROWS, SYSCALL_OTHERS, SYSCALL_ROW_KEYS, SYSCALL_ROWS};

use super::traits;

/// Adds a call that returned.
#[inline(always)]
pub fn add(key: CallKey, duration: u64) {
    match row(key) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        Some(row) => unsafe { record(row, duration) },
        None => add_to_others(key.number, duration),
    }
}

/// This CPU's part of a row, which is made where there is none.
#[inline(always)]
fn row(key: CallKey) -> Option<*mut Histogram> {
    let first = first_near_row(key, NEAR_PLACES.load());
    for index in first..first + ROWS_A_PLACE {
        let Some(owner) = SYSCALL_ROW_KEYS.get_ptr(index) else { break };
        // SAFETY: the pointer was checked by the lookup; a word is read at once.
        if unsafe { owner.read_volatile() } == key.word() {
            return SYSCALL_NEAR_ROWS.get_ptr_mut(index);
        }
    }
    match SYSCALL_ROWS.get_ptr_mut(key) {
        Some(row) => Some(row),
        None => new_row(key, first),
    }
}

/// Makes a row.
#[inline(always)]
fn new_row(key: CallKey, first: u32) -> Option<*mut Histogram> {
    if let Some(row) = claim(key, first, FIRST_ROWS) {
        return Some(row);
    }
    let empty = SYSCALL_EMPTY.get_ptr(0)?;
    // SAFETY: the pointer was checked by the lookup.
    let empty = unsafe { &*empty };
    // Another CPU may have made it meanwhile: then it is there, which is all that counts.
    let _ = SYSCALL_ROWS.insert(key, empty, BPF_NOEXIST.into());
    match SYSCALL_ROWS.get_ptr_mut(key) {
        Some(row) => Some(row),
        None => claim(key, first + FIRST_ROWS, ROWS_A_PLACE - FIRST_ROWS),
    }
}

/// Takes the first of some near rows that is nobody's, or that another CPU has taken for the same key meanwhile.
#[inline(always)]
fn claim(key: CallKey, first: u32, rows: u32) -> Option<*mut Histogram> {
    for index in first..first + rows {
        let owner = SYSCALL_ROW_KEYS.get_ptr_mut(index)?;
        // SAFETY: the pointer was checked by the lookup. A row that is nobody's holds zeros.
        let was = unsafe { atomic::put_if_zero(owner, key.word()) };
        if was == 0 || was == key.word() {
            return SYSCALL_NEAR_ROWS.get_ptr_mut(index);
        }
    }
    None
}

/// Counts a call for which there is no row.
#[inline(always)]
fn add_to_others(number: u32, duration: u64) {
    count(Counter::SyscallOthers);
    if let Some(row) = SYSCALL_OTHERS.get_ptr_mut(u32::from(traits(number).blocking != 0)) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        unsafe { record(row, duration) }
    }
}

/// Adds a duration to a histogram that only this CPU writes.
#[inline(always)]
unsafe fn record(row: *mut Histogram, duration: u64) {
    let index = if duration > 1 { bucket_of_doubling(duration, log2(duration - 1)) as usize } else { 0 };
    // SAFETY: the caller's pointer is valid; the index is bounded.
    unsafe {
        (*row).count += 1;
        (*row).sum += duration;
        if duration > (*row).max {
            (*row).max = duration;
        }
        if index < BUCKETS {
            *(&raw mut (*row).buckets).cast::<u64>().add(index) += 1;
        }
    }
}

/// The binary logarithm of a number above 0. BPF has no instruction that counts leading zeros, and what the compiler puts in
/// its place takes longer than these branches, which go the same way for most calls. Only where little follows: the
/// verifier goes through the rest of the program for each way through them.
#[inline(always)]
fn log2(number: u64) -> u32 {
    let (mut rest, mut log, mut width) = (number, 0, 32);
    while width > 0 {
        if rest >> width != 0 {
            rest >>= width;
            log += width;
        }
        width /= 2;
    }
    log
}
