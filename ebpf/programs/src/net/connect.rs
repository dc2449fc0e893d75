//! The states of TCP: connect() is called, somebody ends a connection. The states are those of include/net/tcp_states.h.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::net::Closer;
use descry_abi::tcp::ConnectFailed;

use super::socket::Socket;
use super::{request, tcp};
use crate::emit::{self, count};
use crate::maps::{CONNECTIONS, CONNECTS};
use crate::{scope, task, unit};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;

/// A call of connect().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connecting {
    /// When (ns, `CLOCK_BOOTTIME`).
    pub began: u64,
    /// The request that it was made for; 0: none known.
    pub request: u64,
    /// The unit that called, by its number.
    pub unit: u64,
    pub tgid: u32,
    pub tid: u32,
}

/// `inet_sock_set_state(sk, old, new)`: connect() in the context of its caller; what comes of it, and who ends a
/// connection, wherever the news comes in.
///
/// ```text
/// any -> FIN_WAIT1     closed or shut down here
/// any -> CLOSE_WAIT    the other end did first
/// any -> CLOSE         aborted here, or by the other end's reset: then the socket has an error
/// ```
#[inline(always)]
pub fn turned(socket: *const c_void, before: i32, state: i32) {
    let socket = Socket(socket as u64);
    let by = match (before, state) {
        (_, SYN_SENT) => return called(socket),
        (SYN_SENT, ESTABLISHED) => return succeeded(socket),
        (SYN_SENT, CLOSE) => return failed(socket),
        (_, FIN_WAIT1) => Closer::Local,
        (_, CLOSE_WAIT) => Closer::Remote,
        (_, CLOSE) => socket.closer(),
        _ => return,
    };
    let Some(connection) = CONNECTIONS.get_ptr_mut(socket.0) else { return };
    // SAFETY: the pointer was checked by the lookup; the kernel holds the socket's lock.
    unsafe {
        if (*connection).closed_by == Closer::Unknown as u8 {
            (*connection).closed_by = by as u8;
        }
    }
}

/// The running task calls connect().
#[inline(always)]
fn called(socket: Socket) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) || !socket.is_tcp() {
        return;
    }
    let unit = unit::current(ids.tgid);
    let connecting = Connecting {
        began: now(),
        request: request::of_unit(&unit),
        unit: unit.number(ids),
        tgid: ids.tgid,
        tid: ids.tid,
    };
    // The map forgets the least recently used one rather than refuse.
    let _ = CONNECTS.insert(socket.0, connecting, 0);
}

#[inline(always)]
fn succeeded(socket: Socket) {
    let Some(connecting) = find(socket) else { return };
    tcp::connected(socket, connecting.tgid, now().wrapping_sub(connecting.began));
}

#[inline(always)]
fn failed(socket: Socket) {
    let Some(connecting) = find(socket) else { return };
    let _ = CONNECTS.remove(socket.0);
    let Some(peer) = socket.peer(connecting.tgid) else { return };
    tcp::connect_failed(&peer);
    let failed = ConnectFailed {
        kind: EventKind::ConnectFailed as u16,
        family: peer.family,
        error: socket.error(),
        remote_port: peer.port,
        start: connecting.began,
        end: now(),
        tgid: connecting.tgid,
        tid: connecting.tid,
        request: connecting.request,
        unit: connecting.unit,
        remote: peer.address,
    };
    emit::connect_failed(&failed);
}

/// What is remembered of a socket's connect.
#[inline(always)]
pub fn find(socket: Socket) -> Option<Connecting> {
    // SAFETY: the pointer was checked by the lookup.
    CONNECTS.get_ptr(socket.0).map(|connecting| unsafe { *connecting })
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}
