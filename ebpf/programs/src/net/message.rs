//! One message: what a call moved on a socket.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::net::{
    MESSAGE_BEHIND_UNTOLD, MESSAGE_FROM_START, MESSAGE_PLAINTEXT, MESSAGE_SENT, MESSAGE_UNSEEN, Message,
};

use super::calls::{Buffer, Call};
use super::connection::{self, Connection};
use super::socket::Socket;
use super::tls::{self, Plaintext};
use super::{MSG_TRUNC, payload, request};
use crate::emit::{self, count};
use crate::maps::NetState;
use crate::task::Ids;
use crate::unit::{self, Unit};

/// What moved.
pub struct Moved {
    pub socket: Socket,
    pub call: Call,
    /// Bytes.
    pub len: u64,
    /// `MSG_*` flags of a call that received.
    pub flags: u64,
    pub is_sent: bool,
}

/// Sends a record of it, with the head of its bytes.
#[inline(always)]
pub fn take(state: *mut NetState, ids: Ids, moved: &Moved) {
    let unit = unit::current(ids.tgid);
    let Some(connection) = connection::find(moved, ids, &unit) else { return };
    // SAFETY: the pointer was checked by the lookup. Two CPUs may count messages of one connection at once; the kernel
    // itself serializes what one direction moves.
    let connection = unsafe { &mut *connection };
    if tls::is_ciphertext(connection, &unit, moved.socket) {
        return count(Counter::MessagesEncrypted);
    }
    let request = request::of_message(connection, &unit, moved.is_sent);
    let is_behind = connection::catch_up(connection, moved);
    let total = if moved.is_sent { &mut connection.sent } else { &mut connection.received };
    let offset = *total;
    *total = offset.wrapping_add(moved.len);
    connection.messages = connection.messages.wrapping_add(1);
    connection::look(connection, moved.socket);
    if connection.capture == 0 {
        tls::note_records(connection, &unit, moved, None);
        return count(Counter::MessagesIgnored);
    }
    let want = moved.len.min(connection.capture.into());
    let mut flags = if moved.is_sent { MESSAGE_SENT } else { 0 };
    let is_copied = moved.flags & MSG_TRUNC == 0 || connection.is_tcp == 0;
    let captured = match moved.call.buffer {
        Buffer::Spliced => {
            count(Counter::MessagesSpliced);
            0
        }
        buffer if buffer == Buffer::Unknown || !is_copied => {
            count(Counter::MessagesUnseen);
            0
        }
        _ => payload::copy(state, moved.call, want),
    };
    if captured == 0 {
        flags |= MESSAGE_UNSEEN;
    }
    if is_behind {
        flags |= MESSAGE_BEHIND_UNTOLD;
    }
    // SAFETY: `state` is this CPU's own.
    let head = (captured >= 3).then(|| unsafe { [(*state).bytes[0], (*state).bytes[1], (*state).bytes[2]] });
    tls::note_records(connection, &unit, moved, head);
    // SAFETY: `state` is this CPU's own; the helper has no preconditions.
    unsafe {
        (*state).message = Message {
            kind: EventKind::Message as u16,
            flags,
            captured: captured as u32,
            time: bpf_ktime_get_boot_ns(),
            tgid: ids.tgid,
            tid: ids.tid,
            connection: connection.id,
            offset,
            len: moved.len,
            unit: unit.number(ids),
            request,
        };
    }
    emit::message(state, captured);
}

/// Sends a record of plaintext of TLS, with the head of its bytes.
#[inline(always)]
pub fn plaintext(ids: Ids, unit: &Unit, connection: &mut Connection, plaintext: &Plaintext) {
    let request = request::of_message(connection, unit, plaintext.is_sent);
    let total = if plaintext.is_sent { &mut connection.sent } else { &mut connection.received };
    let offset = *total;
    *total = offset.wrapping_add(plaintext.len);
    connection.messages = connection.messages.wrapping_add(1);
    connection::look(connection, plaintext.socket);
    if connection.capture == 0 {
        return count(Counter::MessagesIgnored);
    }
    let sent = if plaintext.is_sent { MESSAGE_SENT } else { 0 };
    let from_start = if connection.from_start != 0 { MESSAGE_FROM_START } else { 0 };
    let message = Message {
        kind: EventKind::Message as u16,
        flags: MESSAGE_PLAINTEXT | sent | from_start,
        captured: plaintext.len.min(connection.capture.into()) as u32,
        time: plaintext.time,
        tgid: ids.tgid,
        tid: ids.tid,
        connection: connection.id,
        offset,
        len: plaintext.len,
        unit: unit.number(ids),
        request,
    };
    emit::plaintext(&message, plaintext.buffer);
}
