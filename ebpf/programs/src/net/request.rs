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

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use descry_abi::net::{Connection, Role};
use descry_abi::template::{LEFT_OUT, lot};

use crate::config::{FIRST_LOT_TAKEN, LOT_SEED};
use crate::maps::{REQUEST_NUMBERS, UNITS};
use crate::unit::{self, Unit};

const ACCEPTED: u8 = Role::Accepted as u8;
const CONNECTED: u8 = Role::Connected as u8;

/// The request that a unit serves, or the one that made it; 0: none known.
#[inline(always)]
pub fn of_unit(unit: &Unit) -> u64 {
    if !unit.is_known {
        return 0;
    }
    if let Some(request) = UNITS.get_ptr(unit.key) {
        // SAFETY: the pointer was checked by the lookup.
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

/// A unit turns to a request.
#[inline(always)]
fn serve(unit: &Unit, request: u64) {
    if !unit.is_known {
        return;
    }
    match UNITS.get_ptr_mut(unit.key) {
        // SAFETY: the pointer was checked by the lookup; a unit runs in one place at a time.
        Some(current) => unsafe { *current = request },
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
    let _ = UNITS.remove(unit::thread().key);
}
