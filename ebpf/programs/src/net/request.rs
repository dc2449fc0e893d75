//! Requests are born here: the first bytes that a server receives after it answered begin one.
//!
//! ```text
//! server, receives after it sent     a new request: the connection's and the unit's
//! server, receives or sends more     the connection's, and the unit's again
//! client, sends                      the unit's: it becomes the connection's
//! client, receives, or tries to      the connection's: it becomes the thread's (an event loop turns to it)
//! ```
//!
//! A thread that connects does so for its request, and the first that it sends belongs to that one, also in a later turn
//! of an event loop. What it sends then is its own turn's until the other side has answered. A goroutine or a task works
//! for one request at a time whatever it receives, and many of them may share a connection: each message is of who sends
//! it. Where nobody knows for whom a thread works, nothing it sends belongs to a request.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use descry_abi::net::{Connection, Role};
use descry_abi::template::{LEFT_OUT, lot};

use super::habit;
use crate::atomic;
use crate::config::{FIRST_LOT_TAKEN, LOT_SEED};
use crate::maps::{REQUEST_NUMBERS, THREAD_REQUESTS, UNITS};
use crate::unit::{self, Unit};

const ACCEPTED: u8 = Role::Accepted as u8;
const CONNECTED: u8 = Role::Connected as u8;

/// The request that a unit serves, or the one that made it; 0: none known.
#[inline(always)]
pub fn of_unit(unit: &Unit) -> u64 {
    if !unit.is_known {
        return 0;
    }
    if let Some(request) = own_place(unit) {
        // SAFETY: the pointer was checked by the lookup.
        return unsafe { *request };
    }
    if let Some(request) = UNITS.get_ptr(unit.key) {
        // SAFETY: as above.
        return unsafe { *request };
    }
    if unit.parent == 0 {
        return 0;
    }
    // SAFETY: the pointer was checked by the lookup.
    UNITS.get_ptr(unit.maker()).map_or(0, |request| unsafe { *request })
}

/// The request that a message belongs to. `is_known`: it equals a template, so that it begins a trace if it begins a request.
#[inline(always)]
pub fn of_message(connection: &mut Connection, unit: &Unit, is_sent: bool, is_known: bool) -> u64 {
    let turns = (connection.last_was_sent != 0) != is_sent;
    connection.last_was_sent = u8::from(is_sent);
    if connection.role == CONNECTED {
        habit::note((bpf_get_current_pid_tgid() >> 32) as u32, habit::ASKS);
    }
    match connection.role {
        ACCEPTED if !is_sent => {
            if turns {
                let number = next();
                connection.request = if is_known { number | left_out(number) } else { number };
            }
            serve(unit, connection.request);
        }
        CONNECTED if is_sent && connection.is_fresh != 0 => {
            connection.is_fresh = 0;
            serve(unit, connection.request);
        }
        CONNECTED if is_sent => {
            if turns || connection.request == 0 || !unit.is_thread() {
                connection.request = of_unit(unit);
            }
        }
        CONNECTED => turn_to(connection, unit),
        _ => {}
    }
    connection.request
}

/// A client received something, or found that there is nothing: a thread that asks has turned to this connection.
#[inline(always)]
pub fn turn_to(connection: &Connection, unit: &Unit) {
    if connection.role == CONNECTED && connection.request != 0 && unit.is_thread() {
        serve(unit, connection.request);
    }
}

/// The request that a thread serves.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadRequest {
    /// The kernel's number of the thread; 0: none has this place.
    thread: u64,
    request: u64,
}

/// Threads that have a place, each by the low bits of its number.
pub const THREAD_SLOTS: u32 = 1 << 15;

/// Where the request of a thread is that has a place of its own.
#[inline(always)]
fn own_place(unit: &Unit) -> Option<*mut u64> {
    if !unit.is_thread() {
        return None;
    }
    let place = THREAD_REQUESTS.get_ptr_mut(unit.key.id as u32 & (THREAD_SLOTS - 1))?;
    // SAFETY: the pointer was checked by the lookup.
    unsafe { ((*place).thread == unit.key.id).then_some(&raw mut (*place).request) }
}

/// Takes the place of a thread, if nobody has it.
#[inline(always)]
fn take_place(unit: &Unit, request: u64) -> bool {
    if !unit.is_thread() {
        return false;
    }
    let Some(place) = THREAD_REQUESTS.get_ptr_mut(unit.key.id as u32 & (THREAD_SLOTS - 1)) else {
        return false;
    };
    // SAFETY: the pointer was checked by the lookup, and the word is aligned. Only the thread itself reads what follows.
    unsafe {
        let is_free = atomic::put_if_zero(&raw mut (*place).thread, unit.key.id) == 0;
        if is_free {
            (*place).request = request;
        }
        is_free
    }
}

/// A unit turns to a request.
#[inline(always)]
fn serve(unit: &Unit, request: u64) {
    if !unit.is_known {
        return;
    }
    if let Some(current) = own_place(unit) {
        // SAFETY: the pointer was checked by the lookup; a unit runs in one place at a time.
        unsafe { *current = request }
        return;
    }
    match UNITS.get_ptr_mut(unit.key) {
        // SAFETY: as above.
        Some(current) => unsafe { *current = request },
        None if take_place(unit, request) => {}
        // The map forgets the least recently used one rather than refuse.
        None => {
            let _ = UNITS.insert(unit.key, request, 0);
        }
    }
}

/// [`LEFT_OUT`] if the trace that begins with this is not taken, else 0.
#[inline(always)]
pub fn left_out(of: u64) -> u64 {
    let first_taken = FIRST_LOT_TAKEN.load();
    if first_taken != 0 && lot(of, LOT_SEED.load()) < first_taken { LEFT_OUT } else { 0 }
}

/// A new number: the CPU's, and how many it gave before.
#[inline(always)]
fn next() -> u64 {
    let Some(number) = REQUEST_NUMBERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
    unsafe {
        *number += 1;
        (u64::from(bpf_get_smp_processor_id()) + 1) << 48 | (*number & 0xffff_ffff_ffff)
    }
}

/// A thread ended.
#[inline(always)]
pub fn forget_thread() {
    let thread = unit::thread();
    if let Some(place) = THREAD_REQUESTS.get_ptr_mut(thread.key.id as u32 & (THREAD_SLOTS - 1)) {
        // SAFETY: the pointer was checked by the lookup, and the word is aligned.
        unsafe { atomic::exchange(&raw mut (*place).thread, thread.key.id, 0) };
    }
    let _ = UNITS.remove(thread.key);
}
