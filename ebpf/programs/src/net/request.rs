//! Requests are born here: the first bytes that a server receives after it answered begin one.
//!
//! ```text
//! server, receives after it sent     a new request: the connection's and the unit's
//! server, receives or sends more     the connection's, and the unit's again
//! client, sends                      the unit's: it becomes the connection's
//! client, receives                   the connection's: it becomes the unit's (an event loop turns to it)
//! ```

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use descry_abi::counter::Counter;
use descry_abi::net::Role;

use super::connection::Connection;
use super::kernel_tid;
use crate::emit::count;
use crate::maps::{REQUEST_NUMBERS, UNITS};

const ACCEPTED: u8 = Role::Accepted as u8;
const CONNECTED: u8 = Role::Connected as u8;

/// The request that the running unit serves; 0: none known.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the pointer was checked by the lookup.
    UNITS.get_ptr(kernel_tid()).map_or(0, |request| unsafe { *request })
}

/// The request that a message belongs to.
#[inline(always)]
pub fn of_message(connection: &mut Connection, is_sent: bool) -> u64 {
    let turns = (connection.last_was_sent != 0) != is_sent;
    connection.last_was_sent = u8::from(is_sent);
    match connection.role {
        ACCEPTED if !is_sent => {
            if turns {
                connection.request = next();
            }
            serve(connection.request);
        }
        CONNECTED if is_sent => {
            if turns || connection.request == 0 {
                connection.request = current();
            }
        }
        CONNECTED if connection.request != 0 => serve(connection.request),
        _ => {}
    }
    connection.request
}

/// The running unit turns to a request.
#[inline(always)]
fn serve(request: u64) {
    let tid = kernel_tid();
    if let Some(current) = UNITS.get_ptr_mut(tid) {
        // SAFETY: the pointer was checked by the lookup; only this thread writes it.
        unsafe { *current = request };
    } else if UNITS.insert(tid, request, 0).is_err() {
        count(Counter::UnitsFull);
    }
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
pub fn forget_current() {
    let _ = UNITS.remove(kernel_tid());
}
