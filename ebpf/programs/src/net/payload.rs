//! The head of a message, gathered from the buffers of the call.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated;
use descry_abi::counter::Counter;
use descry_abi::net::{MAX_CAPTURE, MAX_SEGMENTS};

use super::calls::{Buffer, Call};
use crate::emit::count;
use crate::maps::{NET_STATES, NetState};

/// `struct iovec` (linux/uio.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Segment {
    base: u64,
    len: u64,
}

/// Where `msg_iov` is in a `struct user_msghdr` (linux/socket.h): behind `msg_name` 8 B and `msg_namelen` 4 B, aligned;
/// `msg_iovlen` follows it.
const MSG_IOV: u64 = 16;

/// Segments that one call of [`gather_some`] follows.
const SEGMENTS_A_CALL: u64 = 4;
/// Beside a number of bytes: there will be no more.
const DONE: u64 = 1 << 32;

/// Copies up to `want` bytes to the state; returns how many.
#[inline(always)]
pub fn copy(state: *mut NetState, call: Call, want: u64) -> u64 {
    match call.buffer {
        // A datagram may have been longer than the buffer.
        Buffer::Plain => read(state, 0, call.second, want.min(call.third)),
        Buffer::Vector => gather(call.second, call.third, want),
        Buffer::Header => {
            // SAFETY: bpf_probe_read_user checks the address.
            match unsafe { bpf_probe_read_user((call.second.wrapping_add(MSG_IOV)) as *const Segment) } {
                // The same two words: a pointer and a number.
                Ok(segments) => gather(segments.base, segments.len, want),
                Err(_) => {
                    count(Counter::BufferUnreadable);
                    0
                }
            }
        }
        Buffer::Headers | Buffer::Spliced | Buffer::Unknown => 0,
    }
}

/// Gathers by calls of a global function, which the verifier checks once by itself.
#[inline(always)]
fn gather(segments: u64, number: u64, want: u64) -> u64 {
    let mut filled = 0;
    let mut first = 0;
    for _ in 0..MAX_SEGMENTS / SEGMENTS_A_CALL {
        if first >= number {
            return filled;
        }
        let at = segments.wrapping_add(first * size_of::<Segment>() as u64);
        let result = gather_some(at, number - first, filled, want);
        filled = result & !DONE;
        if result & DONE != 0 || filled > MAX_CAPTURE as u64 {
            return filled.min(MAX_CAPTURE as u64);
        }
        first += SEGMENTS_A_CALL;
    }
    if number > MAX_SEGMENTS {
        count(Counter::SegmentsCut);
    }
    filled
}

/// Copies some of `number` segments behind the `filled` bytes, up to `want` of all. Returns how many there are now, with
/// [`DONE`] where no more are wanted or can be read. A global function takes no pointers to maps, so it looks the state up
/// again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gather_some(segments: u64, number: u64, filled: u64, want: u64) -> u64 {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return filled | DONE };
    let mut filled = filled;
    for index in 0..SEGMENTS_A_CALL {
        if index >= number {
            return filled | DONE;
        }
        let at = segments.wrapping_add(index * size_of::<Segment>() as u64);
        // SAFETY: bpf_probe_read_user checks the address.
        let Ok(segment) = (unsafe { bpf_probe_read_user(at as *const Segment) }) else {
            count(Counter::BufferUnreadable);
            return filled | DONE;
        };
        let part = segment.len.min(want.saturating_sub(filled));
        let got = read(state, filled, segment.base, part);
        filled += got;
        if filled >= want || got != segment.len {
            return filled | DONE;
        }
    }
    filled
}

/// Reads `len` bytes behind the `filled` ones; returns `len`, or 0.
#[inline(always)]
fn read(state: *mut NetState, filled: u64, from: u64, len: u64) -> u64 {
    if len == 0 || len > MAX_CAPTURE as u64 || filled > MAX_CAPTURE as u64 {
        return 0;
    }
    // SAFETY: the buffer holds 2 * MAX_CAPTURE bytes; the offset and the length are at most MAX_CAPTURE each.
    unsafe {
        let to: *mut c_void = (&raw mut (*state).bytes).cast::<u8>().add(filled as usize).cast();
        if generated::bpf_probe_read_user(to, len as u32, from as *const c_void) != 0 {
            count(Counter::BufferUnreadable);
            return 0;
        }
    }
    len
}
