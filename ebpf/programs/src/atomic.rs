//! Words that several threads or CPUs write. For this target `core` has no atomic operation but load and store.

use core::arch::asm;

/// Adds to a word.
///
/// # Safety
/// `to` must be part of a map's value, and aligned.
#[inline(always)]
pub unsafe fn add(to: *mut u64, what: u64) {
    // SAFETY: valid as the caller says.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {what}", to = in(reg) to, what = in(reg) what) };
}

/// Writes a word where there is 0, and returns what was there.
///
/// # Safety
/// As of [`add`].
#[inline(always)]
pub unsafe fn put_if_zero(to: *mut u64, what: u64) -> u64 {
    // SAFETY: valid as the caller says.
    unsafe { exchange(to, 0, what) }
}

/// Writes a word in the place of another, if that is there, and returns what was.
///
/// # Safety
/// As of [`add`].
#[inline(always)]
pub unsafe fn exchange(to: *mut u64, expected: u64, what: u64) -> u64 {
    let was: u64;
    // SAFETY: valid as the caller says. The instruction compares with r0, and leaves there what it found.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({to} + 0, r0, {what})",
            to = in(reg) to,
            what = in(reg) what,
            inout("r0") expected => was,
        );
    }
    was
}
