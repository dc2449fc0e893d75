//! Calls that move several messages, sendmmsg and recvmmsg: which of them has just moved.
//!
//! The kernel goes through the array and writes the length of each message before it turns to the next. Where a call
//! breaks off, it tells so by a failure of the message that it stopped at; where it does not (a timeout, a stream that
//! takes no more), the lengths show it, unless the program leaves those of the call before in the same array.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};

use super::habit;
use crate::maps::SERIES;

/// Size of a `struct mmsghdr` (linux/socket.h), and where the length is in it: behind a `struct user_msghdr`.
const MMSGHDR: u64 = 64;
const MSG_LEN: u64 = 56;

/// A call that is not done with its array.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Series {
    /// Where the array lies.
    pub array: u64,
    /// The message that comes next.
    pub next: u64,
    /// Bytes of the one before it.
    pub len: u64,
}

/// Where the header of a message lies.
#[inline(always)]
pub fn at(array: u64, index: u64) -> u64 {
    array.wrapping_add(index.wrapping_mul(MMSGHDR))
}

/// The length that the kernel has written to a header.
#[inline(always)]
pub fn length(header: u64) -> Option<u32> {
    // SAFETY: bpf_probe_read_user checks the address.
    unsafe { bpf_probe_read_user(header.wrapping_add(MSG_LEN) as *const u32) }.ok()
}

/// The header of the message of `len` bytes that the running thread has just moved, of `number` in its array.
#[inline(always)]
pub fn header(array: u64, number: u64, len: u64) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the pointer was checked by the lookup.
    let known = SERIES.get_ptr(thread).map(|series| unsafe { *series });
    let index = match known {
        Some(known)
            if known.array == array
                && length(at(array, known.next.wrapping_sub(1))).map(u64::from) == Some(known.len) =>
        {
            known.next
        }
        _ => 0,
    };
    let next = index + 1;
    if next < number {
        habit::note((thread >> 32) as u32, habit::MOVES_SERIES);
        // The map forgets the least recently used one rather than refuse.
        let _ = SERIES.insert(thread, Series { array, next, len }, 0);
    } else if known.is_some() {
        let _ = SERIES.remove(thread);
    }
    at(array, index)
}

/// A message of the running thread failed: its call goes no further.
#[inline(always)]
pub fn broke_off() {
    let thread = bpf_get_current_pid_tgid();
    if habit::may_have((thread >> 32) as u32, habit::MOVES_SERIES) && SERIES.get_ptr(thread).is_some() {
        let _ = SERIES.remove(thread);
    }
}
