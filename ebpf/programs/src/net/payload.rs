//! The head of a message, gathered from the buffers of the call.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated;
use descry_abi::counter::Counter;
use descry_abi::net::{MAX_CAPTURE, MAX_SEGMENTS};

use super::calls::{Buffer, Call};
use crate::emit::count;
use crate::maps::NetState;

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

/// Copies up to `want` bytes to the state; returns how many.
#[inline(always)]
pub fn copy(state: *mut NetState, call: Call, want: u64) -> u64 {
    match call.buffer {
        Buffer::Plain => read(state, 0, call.second, want),
        Buffer::Vector => gather(state, call.second, call.third, want),
        Buffer::Header => {
            // SAFETY: bpf_probe_read_user checks the address.
            match unsafe { bpf_probe_read_user((call.second.wrapping_add(MSG_IOV)) as *const Segment) } {
                // The same two words: a pointer and a number.
                Ok(segments) => gather(state, segments.base, segments.len, want),
                Err(_) => {
                    count(Counter::BufferUnreadable);
                    0
                }
            }
        }
        Buffer::Unknown => 0,
    }
}

#[inline(always)]
fn gather(state: *mut NetState, segments: u64, number: u64, want: u64) -> u64 {
    let mut filled = 0;
    for index in 0..MAX_SEGMENTS {
        if u64::from(index) >= number || filled >= want {
            return filled;
        }
        let at = segments.wrapping_add(u64::from(index) * size_of::<Segment>() as u64);
        // SAFETY: bpf_probe_read_user checks the address.
        let Ok(segment) = (unsafe { bpf_probe_read_user(at as *const Segment) }) else {
            count(Counter::BufferUnreadable);
            return filled;
        };
        let part = segment.len.min(want - filled);
        let got = read(state, filled, segment.base, part);
        filled += got;
        if got != part {
            return filled;
        }
    }
    if number > MAX_SEGMENTS.into() && filled < want {
        count(Counter::SegmentsCut);
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
