//! Processes of which the agent's rules leave something out: that is not measured, so that it costs them next to nothing.

use descry_abi::exclusion::{parts_of, slot, word};

use crate::atomic;
use crate::config::EXCLUSIONS;
use crate::maps::EXCLUDED;

/// Whether this part of a process is left out. Costs nothing where no rule leaves it out of anybody.
#[inline(always)]
pub fn has(tgid: u32, part: u32) -> bool {
    if EXCLUSIONS.load() & part == 0 {
        return false;
    }
    // SAFETY: the pointer was checked by the lookup; the word is written at once.
    let word = EXCLUDED.get_ptr(slot(tgid)).map_or(0, |word| unsafe { word.read_volatile() });
    parts_of(word, tgid) & part != 0
}

/// A child does what its parent did, until it runs another program.
#[inline(always)]
pub fn inherit(parent: u32, child: u32) {
    if EXCLUSIONS.load() == 0 {
        return;
    }
    // SAFETY: the pointer was checked by the lookup; the word is written at once.
    let of_parent = EXCLUDED.get_ptr(slot(parent)).map_or(0, |word| unsafe { word.read_volatile() });
    let parts = parts_of(of_parent, parent);
    if parts == 0 {
        // Should its number have been another's, that is over.
        return forget(child);
    }
    if let Some(of_child) = EXCLUDED.get_ptr_mut(slot(child)) {
        // SAFETY: the pointer was checked by the lookup. Where another process has the place, it keeps it.
        unsafe { atomic::put_if_zero(of_child, word(child, parts)) };
    }
}

/// A process is gone, or another program: it is judged anew.
#[inline(always)]
pub fn forget(tgid: u32) {
    if EXCLUSIONS.load() == 0 {
        return;
    }
    let Some(word) = EXCLUDED.get_ptr_mut(slot(tgid)) else { return };
    // SAFETY: the pointer was checked by the lookup. Userspace may write another process's word meanwhile, which stays.
    unsafe {
        let was = word.read_volatile();
        if parts_of(was, tgid) != 0 {
            atomic::exchange(word, was, 0);
        }
    }
}
