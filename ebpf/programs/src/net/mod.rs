//! What watched processes send and receive on sockets: connections, their messages, and the request that each belongs to.
//!
//! On kernels since 6.3 two tracepoints hand over the socket of every message, and calls that touch none pay nothing;
//! before, the end of every system call is looked at ([`calls`]). Of TLS the plaintext is taken from the functions of its
//! libraries ([`tls`]).

pub mod calls;
pub mod connect;
pub mod connection;
mod habit;
mod message;
pub mod payload;
pub mod request;
pub mod series;
mod socket;
pub mod tcp;
mod template;
pub mod tls;

use crate::maps::NetState;
use aya_ebpf::cty::c_void;
use descry_abi::counter::Counter;
use descry_abi::exclusion::MESSAGES;

use crate::emit::count;
use crate::maps::{CONNECTIONS, NET_STATES};
use crate::task::Running;
use crate::{exclusion, scope, unit};

use socket::{Progress, Socket};

/// Flags of calls that receive nothing of the connection's data (linux/socket.h): `MSG_PEEK` leaves it where it is,
/// `MSG_OOB` receives a byte from beside it, `MSG_ERRQUEUE` what the kernel says of bytes that were sent.
const HOLDS_NO_DATA: u64 = 2 | 1 | 0x2000;
/// `MSG_TRUNC`: what TCP receives so is copied nowhere; of a datagram the whole length is told.
const MSG_TRUNC: u64 = 0x20;

/// `sock_send_length(sk, ret, flags)`.
#[inline(always)]
pub fn sent(socket: *const c_void, result: i32) {
    moved(socket, result, 0, true);
}

/// `sock_recv_length(sk, ret, flags)`.
#[inline(always)]
pub fn received(socket: *const c_void, result: i32, flags: i32) {
    let flags = u64::from(flags as u32);
    if result <= 0 {
        looked_at(socket as u64);
    } else if flags & HOLDS_NO_DATA == 0 {
        moved(socket, result, flags, false);
    }
}

/// Nothing came, but somebody asked.
#[inline(always)]
fn looked_at(socket: u64) {
    let task = Running::get();
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if !scope::may_be_watched(ids.tgid) {
        return;
    }
    if exclusion::has(ids.tgid, MESSAGES) {
        return count(Counter::MessagesExcluded);
    }
    series::broke_off();
    if !habit::may_have(task.process(), habit::ASKS) {
        return;
    }
    let Some(connection) = CONNECTIONS.get_ptr(socket) else { return };
    // SAFETY: the pointer was checked by the lookup.
    request::turn_to(unsafe { &*connection }, &unit::of_task(task, ids.tgid));
}

#[inline(always)]
fn moved(argument: *const c_void, result: i32, flags: u64, is_sent: bool) {
    let task = Running::get();
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if !scope::may_be_watched(ids.tgid) {
        return;
    }
    if exclusion::has(ids.tgid, MESSAGES) {
        return count(Counter::MessagesExcluded);
    }
    if result <= 0 {
        return series::broke_off();
    }
    let Some(state) = state() else { return };
    let (socket, len) = (address(state, argument), result as u64);
    let known = connection::known(socket);
    if !connection::is_watched(known, ids.tgid) {
        return;
    }
    let call = calls::of_current(task, socket, len, is_sent);
    let progress = Progress::of_argument(argument);
    let moved = message::Moved { socket, call, len, flags, is_sent, progress };
    message::take::<true>(state, task, ids, known, &moved);
}

/// The socket by its address, which to the verifier is a number: global functions take nothing else. It becomes one in
/// memory.
#[inline(always)]
fn address(state: *mut NetState, argument: *const c_void) -> Socket {
    // SAFETY: `state` is this CPU's own: tracepoints run with preemption off.
    unsafe {
        let socket = &raw mut (*state).socket;
        socket.write_volatile(argument as u64);
        Socket(socket.read_volatile())
    }
}

#[inline(always)]
fn state() -> Option<*mut NetState> {
    let state = NET_STATES.get_ptr_mut(0);
    if state.is_none() {
        count(Counter::NoState);
    }
    state
}
