//! Connections: known from their first bytes to their end.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::net::{
    Closed, Closer, Connection, MAX_CAPTURE, MAX_WIDE_CAPTURE, Opened, Role, TlsState, VERDICT_BYTES,
    VERDICT_IGNORE, VERDICT_IGNORE_PLAINTEXT,
};
use descry_abi::template::Waiting;
use descry_abi::tls::MAX_HANDSHAKE_MESSAGES;

use super::message::Moved;
use super::socket::{SOCK_STREAM, Socket};
use super::{tcp, template};
use crate::config::BYTES_UNTOLD;
use crate::emit::{self, count};
use crate::maps::{CONNECTIONS, CONNECTS, VERDICTS};
use crate::scope;
use crate::task::Ids;
use crate::unit::Unit;

/// From now on its messages are those of its plaintext.
#[inline(always)]
pub fn begin_plaintext(connection: &mut Connection) {
    if connection.tls == TlsState::Plaintext as u8 {
        return;
    }
    connection.tls = TlsState::Plaintext as u8;
    connection.from_start &= u8::from(connection.messages <= MAX_HANDSHAKE_MESSAGES);
    (connection.sent, connection.received, connection.messages) = (0, 0, 0);
    // What it was made for holds for the first that it says, which is said only now.
    connection.is_fresh = u8::from(
        connection.from_start != 0 && connection.role == Role::Connected as u8 && connection.request != 0,
    );
    if connection.is_fresh == 0 {
        connection.request = 0;
    }
    connection.capture = MAX_CAPTURE as u32;
    connection.family = 0;
    connection.last_was_sent = u8::from(connection.role == Role::Accepted as u8);
}

/// The connection of a socket, if it was seen before.
#[inline(always)]
pub fn known(socket: Socket) -> Option<*mut Connection> {
    let known = CONNECTIONS.get_ptr_mut(socket.0)?;
    // SAFETY: the pointer was checked by the lookup.
    let (is_tcp, id) = unsafe { ((*known).is_tcp, (*known).id) };
    // Nobody tells when others than TCP's end and their memory becomes another socket's.
    (is_tcp != 0 || socket.inode_number() == Some(id)).then_some(known)
}

/// Whether a process is watched that has moved bytes on a connection, if that is known: of its own it is.
#[inline(always)]
pub fn is_watched(known: Option<*mut Connection>, tgid: u32) -> bool {
    // SAFETY: the pointer was checked by the lookup.
    known.is_some_and(|known| unsafe { (*known).tgid } == tgid) || scope::current_is_watched(tgid)
}

/// Beside the flags of [`open_connection`]: the message was sent; the unit is a thread.
const IS_SENT: u64 = 1;
const IS_THREAD: u64 = 2;

/// The connection of a socket that is new, or another than the one at this address before: it is told of.
#[inline(always)]
pub fn open(moved: &Moved, ids: Ids, unit: &Unit) -> Option<*mut Connection> {
    let flags = if moved.is_sent { IS_SENT } else { 0 } | if unit.is_thread() { IS_THREAD } else { 0 };
    let both = u64::from(ids.tgid) << 32 | u64::from(ids.tid);
    // At the same address there may be what is left of another socket's.
    if open_connection(moved.socket.0, moved.len, both, unit.number(ids), flags) == 0 {
        return None;
    }
    CONNECTIONS.get_ptr_mut(moved.socket.0)
}

/// Tells of a connection whose first message is of `len` bytes, and remembers it; 0: it could not. A global function: the verifier checks it
/// once, not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_connection(socket: u64, len: u64, ids: u64, unit: u64, flags: u64) -> u64 {
    let ids = Ids { tgid: (ids >> 32) as u32, tid: ids as u32 };
    let is_new = first_sight(Socket(socket), len, ids, unit, flags).is_some();
    is_new.into()
}

#[inline(always)]
fn first_sight(socket: Socket, len: u64, ids: Ids, unit: u64, flags: u64) -> Option<()> {
    let Some(id) = socket.inode_number() else {
        count(Counter::SocketUnreadable);
        return None;
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut opened = Opened {
        kind: EventKind::ConnectionOpened as u16,
        time: now,
        tgid: ids.tgid,
        tid: ids.tid,
        connection: id,
        ..Opened::default()
    };
    if socket.describe(&mut opened).is_none() {
        count(Counter::SocketUnreadable);
        return None;
    }
    // Streams of others, MPTCP's for one, have not TCP's members.
    let progress = socket.progress();
    let is_tcp = progress.is_tcp && Socket::is_tcp_family(opened.family) && opened.socket_type == SOCK_STREAM;
    let mut request = 0;
    if let Some(connecting) = CONNECTS.get_ptr(socket.0) {
        // Whatever its port looks like, it was seen to call connect().
        opened.role = Role::Connected as u8;
        // SAFETY: the pointer was checked by the lookup.
        let (caller, of_caller) = unsafe { ((*connecting).unit, (*connecting).request) };
        // Goroutines and tasks say with each message for whom it is; so do threads that use what another one has opened.
        if flags & IS_THREAD != 0 && unit == caller {
            request = of_caller;
        }
    }
    let (mut write_begin, mut read_begin) = (0, 0);
    if is_tcp {
        let is_sent = flags & IS_SENT != 0;
        opened.from_start = socket.is_at_start(len, is_sent).into();
        if is_sent {
            // Not later than its first message.
            opened.time = progress.sent_at(now).unwrap_or(now);
        }
        (write_begin, read_begin) = (progress.written, progress.read);
        let begin = if is_sent { &mut write_begin } else { &mut read_begin };
        *begin = begin.wrapping_sub(len as u32);
    }
    let connection = Connection {
        id,
        request,
        sent: 0,
        received: 0,
        write_begin,
        read_begin,
        messages: 0,
        capture: MAX_CAPTURE as u32,
        role: opened.role,
        last_was_sent: u8::from(opened.role == Role::Accepted as u8),
        is_tcp: u8::from(is_tcp),
        closed_by: Closer::Unknown as u8,
        is_fresh: u8::from(request != 0),
        tls: TlsState::None as u8,
        from_start: opened.from_start,
        family: 0,
        tgid: ids.tgid,
        templates: 0,
        last_request: 0,
        last_answer: 0,
        waiting: Waiting { which: 0, start: 0, ids: 0, offset: 0, unit: 0, request: 0 },
    };
    // What userspace was not told of it cannot use: the next message is then the first sight.
    if !emit::opened(&opened) {
        return None;
    }
    // The map forgets the least recently used one rather than refuse.
    let _ = CONNECTIONS.insert(socket.0, connection, 0);
    Some(())
}

/// Adds the bytes that moved before this message and that nobody told of: read by splice, sent by io_uring. Says whether
/// there were any. Two threads that read from one connection at once may make some up.
#[inline(always)]
pub fn catch_up(connection: &mut Connection, moved: &Moved) -> bool {
    let progress = moved.progress;
    if !progress.is_tcp || connection.is_tcp == 0 || moved.is_sent && BYTES_UNTOLD.load() == 0 {
        return false;
    }
    let (now, begin, total) = if moved.is_sent {
        (progress.written, connection.write_begin, &mut connection.sent)
    } else {
        (progress.read, connection.read_begin, &mut connection.received)
    };
    let before = now.wrapping_sub(begin).wrapping_sub(moved.len as u32);
    let missing = before.wrapping_sub(*total as u32);
    // The end of what the other side sends has a number of its own, which reading the last bytes passes.
    let is_end = missing == 1 && !moved.is_sent && moved.socket.has_ended();
    if missing == 0 || missing > i32::MAX as u32 || is_end {
        return false;
    }
    *total = (*total).wrapping_add(missing.into());
    count(Counter::BytesUntold);
    true
}

/// Messages between two looks at a connection that has many.
const BETWEEN_LOOKS: u32 = 64;

/// What is looked at now and then: at a connection's 1st, 2nd, 4th, 8th ... message, and at every 64th.
#[inline(always)]
pub fn look(connection: &mut Connection, socket: Socket) {
    let messages = connection.messages;
    if messages & messages.wrapping_sub(1) == 0 || messages % BETWEEN_LOOKS == 0 {
        let wanted = look_at(socket.0);
        connection.capture = wanted as u32;
        (connection.family, connection.templates) = ((wanted >> 32) as u8, (wanted >> 40) as u32);
    }
}

/// Takes what TCP says of a connection, and returns what is [`wanted`] of its messages from now on. A global function for the
/// verifier's sake, as [`open_connection`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at(socket: u64) -> u64 {
    let Some(connection) = CONNECTIONS.get_ptr(socket) else { return 0 };
    // SAFETY: the pointer was checked by the lookup. A copy, since the caller holds a reference.
    let connection = unsafe { *connection };
    if connection.is_tcp != 0 {
        tcp::round_trip(Socket(socket), &connection);
    }
    wanted(&connection)
}

/// How much of a connection's messages is wanted, by what userspace has found out of it (bytes); above that the family of its
/// templates and what is known of them.
#[inline(always)]
fn wanted(connection: &Connection) -> u64 {
    let Some(verdict) = VERDICTS.get_ptr(connection.id) else { return connection.capture.into() };
    let has_plaintext = connection.tls == TlsState::Plaintext as u8;
    let ignore = if has_plaintext { VERDICT_IGNORE_PLAINTEXT } else { VERDICT_IGNORE };
    // SAFETY: the pointer was checked by the lookup.
    let verdict = unsafe { *verdict };
    let (bytes, templates) = (verdict & VERDICT_BYTES, verdict / (VERDICT_BYTES + 1));
    match verdict {
        verdict if verdict == ignore => 0,
        VERDICT_IGNORE => connection.capture.into(),
        _ if bytes <= MAX_WIDE_CAPTURE && connection.capture != 0 => {
            // Of plaintext there are no templates.
            u64::from(bytes) | if has_plaintext { 0 } else { u64::from(templates) << 32 }
        }
        _ => connection.capture.into(),
    }
}

/// Takes more of the messages of a connection that carries many requests at once, if the first bytes of a direction say so:
/// the preface of HTTP/2 (RFC 9113, 3.4), before which the server may have sent its settings. Of others userspace finds it
/// out.
#[inline(always)]
pub fn widen(connection: &mut Connection, offset: u64, first: u32) {
    if offset == 0 && first == u32::from_le_bytes(*b"PRI ") {
        connection.capture = MAX_WIDE_CAPTURE;
    }
}

/// `tcp_destroy_sock(sk)`.
#[inline(always)]
pub fn destroyed(socket: *const c_void) {
    let socket = Socket(socket as u64);
    // Of one that was accepted there is none.
    let _ = CONNECTS.remove(socket.0);
    let Some(connection) = CONNECTIONS.get_ptr_mut(socket.0) else { return };
    // SAFETY: the pointer was checked by the lookup.
    template::flush(unsafe { &mut *connection });
    // SAFETY: as above.
    let connection = unsafe { *connection };
    let (id, by) = (connection.id, connection.closed_by);
    tcp::round_trip(socket, &connection);
    let _ = CONNECTIONS.remove(socket.0);
    let _ = VERDICTS.remove(id);
    let closed = Closed {
        kind: EventKind::ConnectionClosed as u16,
        by,
        reserved: [0; 5],
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_boot_ns() },
        connection: id,
    };
    emit::closed(&closed);
}
