//! Durations in the values of maps, to which another CPU may add at the same time.

use core::arch::asm;

use descry_abi::histogram::{BUCKETS, Histogram, bucket};

use crate::atomic::add;

/// Adds a duration (ns). Where two add the longest so far at once, the shorter of them may stay as such.
///
/// # Safety
/// `to` must be part of a map's value.
#[inline(always)]
pub unsafe fn record(to: *mut Histogram, duration: u64) {
    let mut place = bucket(duration) as usize;
    // The compiler knows that it is a bucket and would leave out the comparison by which the verifier knows it.
    // SAFETY: the instruction changes nothing.
    unsafe { asm!("{place} = {place}", place = inout(reg) place) };
    if place >= BUCKETS {
        return;
    }
    // SAFETY: valid as the caller says, and `place` was bounded.
    unsafe {
        add(&raw mut (*to).count, 1);
        add(&raw mut (*to).sum, duration);
        add((&raw mut (*to).buckets).cast::<u64>().add(place), 1);
        if duration > (*to).max {
            (*to).max = duration;
        }
    }
}
