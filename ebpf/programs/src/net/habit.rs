//! What processes have ever done on sockets: what none of a slot has done need not be looked for in a map of its own.

use descry_abi::limits::SCOPE_FILTER_SLOTS;

use crate::maps::HABITS;

/// It asks: bytes went over a connection of which it is the client.
pub const ASKS: u64 = 1;
/// It moves several messages in one call.
pub const MOVES_SERIES: u64 = 2;

/// Whether a process has this habit, or another one of its slot. `tgid`: the kernel's own number.
#[inline(always)]
pub fn may_have(tgid: u32, habit: u64) -> bool {
    // SAFETY: the pointer was checked by the lookup; the word is written at once.
    HABITS.get_ptr(slot(tgid)).is_none_or(|word| unsafe { *word } & habit != 0)
}

/// A process has it. Of two that are noted at once one may be lost, until it does it again.
#[inline(always)]
pub fn note(tgid: u32, habit: u64) {
    if let Some(word) = HABITS.get_ptr_mut(slot(tgid)) {
        // SAFETY: the pointer was checked by the lookup.
        let word = unsafe { &mut *word };
        if *word & habit == 0 {
            *word |= habit;
        }
    }
}

#[inline(always)]
fn slot(tgid: u32) -> u32 {
    tgid & (SCOPE_FILTER_SLOTS - 1)
}
