//! What watched processes send and receive on sockets: connections, their messages, and the request that each belongs to.
//!
//! On kernels since 6.3 two tracepoints hand over the socket of every message, and calls that touch none pay nothing;
//! before, the end of every system call is looked at ([`calls`]). Of TLS the plaintext is taken from the functions of its
//! libraries ([`tls`]).

pub mod calls;
pub mod connect;
pub mod connection;
mod message;
mod payload;
pub mod request;
mod socket;
pub mod tcp;
pub mod tls;

use crate::maps::NetState;
use aya_ebpf::cty::c_void;
use descry_abi::counter::Counter;

use crate::emit::count;
use crate::maps::{CONNECTIONS, NET_STATES};
use crate::registers;
use crate::{scope, task, unit};

use socket::Socket;

/// `MSG_PEEK` (linux/socket.h): the bytes stay where they are, and will be received once more.
const MSG_PEEK: i32 = 2;

/// `sock_send_length(sk, ret, flags)`.
#[inline(always)]
pub fn sent(socket: *const c_void, result: i32) {
    moved(socket as u64, result, true);
}

/// `sock_recv_length(sk, ret, flags)`.
#[inline(always)]
pub fn received(socket: *const c_void, result: i32, flags: i32) {
    if result <= 0 {
        looked_at(socket as u64);
    } else if flags & MSG_PEEK == 0 {
        moved(socket as u64, result, false);
    }
}

/// Nothing came, but somebody asked.
#[inline(always)]
fn looked_at(socket: u64) {
    let Some(connection) = CONNECTIONS.get_ptr(socket) else { return };
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    // SAFETY: the pointer was checked by the lookup.
    request::turn_to(unsafe { &*connection }, &unit::current(ids.tgid));
}

#[inline(always)]
fn moved(socket: u64, result: i32, is_sent: bool) {
    if result <= 0 {
        return;
    }
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let Some(state) = state() else { return };
    // SAFETY: `state` is this CPU's own: tracepoints run with preemption off.
    let has_registers = unsafe { registers::saved(&raw mut (*state).registers) };
    let call = if has_registers {
        calls::of_current(state)
    } else {
        // A worker of io_uring has no registers of a call.
        calls::Call::UNKNOWN
    };
    message::take(state, ids, &message::Moved { socket: Socket(socket), call, len: result as u64, is_sent });
}

#[inline(always)]
fn state() -> Option<*mut NetState> {
    let state = NET_STATES.get_ptr_mut(0);
    if state.is_none() {
        count(Counter::NoState);
    }
    state
}
