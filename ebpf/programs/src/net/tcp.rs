//! What TCP does for a process, added up by peer: connects, round trips, retransmissions.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::cty::c_void;
use descry_abi::counter::Counter;
use descry_abi::net::{Connection, Role};
use descry_abi::tcp::{TcpPeer, TcpPeerKey};

use super::connect;
use super::socket::Socket;
use crate::atomic::add;
use crate::emit::count;
use crate::maps::{CONNECTIONS, TCP_EMPTY, TCP_OTHERS, TCP_PEERS};
use crate::total::record;

/// A connect took so long (ns).
#[inline(always)]
pub fn connected(socket: Socket, tgid: u32, duration: u64) {
    let Some(key) = socket.peer(tgid) else { return };
    let Some(peer) = row(&key) else { return };
    // SAFETY: `row` gives a value of a map.
    unsafe { record(&raw mut (*peer).connects, duration) };
}

/// A connect failed.
#[inline(always)]
pub fn connect_failed(key: &TcpPeerKey) {
    let Some(peer) = row(key) else { return };
    // SAFETY: as above.
    unsafe { add(&raw mut (*peer).failed, 1) };
}

/// Takes the round trip time that the kernel has of a connection, if it has one.
#[inline(always)]
pub fn round_trip(socket: Socket, connection: &Connection) {
    let Some(nanos) = socket.round_trip() else { return };
    let Some(peer) = key(socket, connection).and_then(|key| row(&key)) else { return };
    // SAFETY: as above.
    unsafe { record(&raw mut (*peer).round_trips, nanos) };
}

/// `tcp_retransmit_skb(sk, skb)`.
#[inline(always)]
pub fn retransmitted(socket: *const c_void) {
    let socket = Socket(socket as u64);
    let key = match CONNECTIONS.get_ptr(socket.0) {
        // SAFETY: the pointer was checked by the lookup.
        Some(connection) => key(socket, unsafe { &*connection }),
        None => connect::find(socket).and_then(|connecting| socket.peer(connecting.tgid)),
    };
    let Some(peer) = key.and_then(|key| row(&key)) else { return };
    // SAFETY: as above.
    unsafe { add(&raw mut (*peer).retransmits, 1) };
}

/// Peers that called are told apart by address alone.
#[inline(always)]
fn key(socket: Socket, connection: &Connection) -> Option<TcpPeerKey> {
    let key = socket.peer(connection.tgid)?;
    Some(if connection.role == Role::Connected as u8 { key } else { TcpPeerKey { port: 0, ..key } })
}

/// The row of a peer; that of all others where there is no room.
#[inline(always)]
fn row(key: &TcpPeerKey) -> Option<*mut TcpPeer> {
    if let Some(row) = TCP_PEERS.get_ptr_mut(key) {
        return Some(row);
    }
    if let Some(empty) = TCP_EMPTY.get_ptr(0) {
        // Another CPU may be first; then it is there all the same.
        // SAFETY: the pointer was checked by the lookup, and nobody writes there.
        let _ = TCP_PEERS.insert(key, unsafe { &*empty }, BPF_NOEXIST.into());
    }
    if let Some(row) = TCP_PEERS.get_ptr_mut(key) {
        return Some(row);
    }
    count(Counter::TcpPeersFull);
    TCP_OTHERS.get_ptr_mut(0)
}
