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
pub struct Segment {
    base: u64,
    len: u64,
}

/// Where `msg_iov` is in a `struct user_msghdr` (linux/socket.h): behind `msg_name` 8 B and `msg_namelen` 4 B, aligned;
/// `msg_iovlen` follows it.
const MSG_IOV: u64 = 16;

/// What was not copied yet of a call's buffers: the rest of a segment, and the `number` of those that follow it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rest {
    from: u64,
    len: u64,
    segments: u64,
    number: u64,
}

/// Segments that one call of [`gather_some`] follows.
pub const SEGMENTS_A_CALL: u64 = 2;
/// Beside a number of bytes: there will be no more.
const DONE: u64 = 1 << 32;

/// Copies up to `want` bytes to the state, [`MAX_CAPTURE`] at most; returns how many. [`gather`] goes on from there.
#[inline(always)]
pub fn copy(call: Call, want: u64) -> u64 {
    copy_from(call.buffer as u32, call.second, call.third, want)
}

/// The same, given a [`Buffer`] and what describes it. Like those below it is a global function, which the verifier checks
/// once by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_from(buffer: u32, second: u64, third: u64, want: u64) -> u64 {
    match buffer {
        PLAIN => copy_plain(second, third, want),
        VECTOR => copy_vector(second, third, want),
        HEADER => copy_header(second, want),
        _ => 0,
    }
}

const PLAIN: u32 = Buffer::Plain as u32;
const VECTOR: u32 = Buffer::Vector as u32;
const HEADER: u32 = Buffer::Header as u32;

/// Copies from one buffer. A global function takes no pointers to maps, so it looks the state up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_plain(from: u64, len: u64, want: u64) -> u64 {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return 0 };
    // A datagram may have been longer than the buffer.
    let got = read(state, 0, from, want.min(MAX_CAPTURE as u64).min(len));
    // SAFETY: `state` is this CPU's own.
    let rest = unsafe { &mut (*state).rest };
    (rest.from, rest.len, rest.number) = (from.wrapping_add(got), len.wrapping_sub(got), 0);
    got
}

/// Copies from `number` segments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_vector(segments: u64, number: u64, want: u64) -> u64 {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return 0 };
    // SAFETY: `state` is this CPU's own.
    let rest = unsafe { &mut (*state).rest };
    (rest.len, rest.segments, rest.number) = (0, segments, number);
    gather(want.min(MAX_CAPTURE as u64))
}

#[inline(always)]
fn copy_header(header: u64, want: u64) -> u64 {
    // SAFETY: bpf_probe_read_user checks the address.
    match unsafe { bpf_probe_read_user((header.wrapping_add(MSG_IOV)) as *const Segment) } {
        // The same two words: a pointer and a number.
        Ok(segments) => copy_vector(segments.base, segments.len, want),
        Err(_) => {
            count(Counter::BufferUnreadable);
            0
        }
    }
}

/// Gathers the next `want` bytes, [`MAX_CAPTURE`] at most, by calls of a global function, which the verifier checks once
/// by itself; returns how many there were.
#[inline(always)]
pub fn gather(want: u64) -> u64 {
    let mut filled = 0;
    for _ in 0..MAX_SEGMENTS / SEGMENTS_A_CALL {
        let result = gather_some(filled, want);
        filled = result & !DONE;
        if filled > MAX_CAPTURE as u64 {
            return MAX_CAPTURE as u64;
        }
        if result & DONE != 0 {
            return filled;
        }
    }
    count(Counter::SegmentsCut);
    filled
}

/// Copies what is next behind the `filled` bytes, up to `want` of all. Returns how many there are now, with [`DONE`] where no
/// more are wanted or can be read. A global function takes no pointers to maps, so it looks the state up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gather_some(filled: u64, want: u64) -> u64 {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return filled | DONE };
    // SAFETY: `state` is this CPU's own.
    let rest = unsafe { &mut (*state).rest };
    let mut filled = filled;
    if !read_segments(state, rest) {
        count(Counter::BufferUnreadable);
        rest.number = 0;
        return filled | DONE;
    }
    // SAFETY: as above.
    let [first, second] = unsafe { (*state).segments };
    let mut next = first;
    for _ in 0..SEGMENTS_A_CALL {
        if rest.len == 0 {
            if rest.number == 0 {
                return filled | DONE;
            }
            rest.segments = rest.segments.wrapping_add(size_of::<Segment>() as u64);
            rest.number -= 1;
            (rest.from, rest.len) = (next.base, next.len);
            next = second;
        }
        let part = rest.len.min(want.saturating_sub(filled));
        let got = read(state, filled, rest.from, part);
        rest.from = rest.from.wrapping_add(got);
        rest.len = rest.len.wrapping_sub(got);
        filled += got;
        if filled >= want || got != part {
            return filled | DONE;
        }
    }
    filled
}

/// Reads the segments that follow to the state, as many as there are, at once: a call of the helper costs more than the bytes.
/// False: they cannot be read.
#[inline(always)]
fn read_segments(state: *mut NetState, rest: &Rest) -> bool {
    let number = rest.number.min(SEGMENTS_A_CALL);
    if number == 0 {
        return true;
    }
    let bytes = number as u32 * size_of::<Segment>() as u32;
    // SAFETY: `state` is this CPU's own. No more is read than there is room for, and the helper checks the address that it
    // reads from.
    unsafe {
        let to: *mut c_void = (&raw mut (*state).segments).cast();
        generated::bpf_probe_read_user(to, bytes, rest.segments as *const c_void) == 0
    }
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
