//! The plaintext of TLS, taken where it passes through the functions of a library, and joined to the socket below.
//!
//! ```text
//! inside a function, the unit sends or receives on a socket   the session's socket; of Go's too, by goroutine
//! a unit receives records of TLS outside of any function,     the session's socket: the program hands the records
//! then enters one of a session that has no socket yet         over itself (memory BIO: Node, asyncio)
//! Go, first call on a connection                              the descriptor inside of the tls.Conn
//! ```
//!
//! A connection with a known session sends its plaintext only: what goes over the socket is counted and left out.

use aya_ebpf::EbpfContext;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use descry_abi::counter::Counter;
use descry_abi::exclusion::MESSAGES;
use descry_abi::net::{Connection, TlsState};
use descry_abi::tls::{TlsCookie, TlsFunction, TlsSessionKey};

use super::calls::Call;
use super::connection;
use super::message::{self, Moved};
use super::socket::{Progress, Socket};
use crate::emit::count;
use crate::function;
use crate::maps::{CONNECTIONS, TLS_CONTROL, TLS_SESSIONS, TLS_UNITS};
use crate::registers::{self, Registers};
use crate::task::{self, Ids};
use crate::unit::{self, Unit};
use crate::{exclusion, scope};

/// Messages of a connection for which it is looked whether a function of TLS moved them; after these now and then.
const LOOKED_AT: u32 = 16;

/// What a unit does with TLS.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TlsUnit {
    /// Stack pointer at the entry of the function that it is in; 0: in none. Of Go: counted from the stack's upper end.
    pub sp: u64,
    /// The session that the function is called for.
    pub session: u64,
    /// Where plaintext is, or will be.
    pub buffer: u64,
    /// Where the function writes how many bytes; 0: it returns that.
    pub count_at: u64,
    /// The `struct sock` that was used meanwhile; 0: none.
    pub socket: u64,
    /// When it was entered (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// The `struct sock` that records of TLS were received from last, outside of any function; 0: none.
    pub received: u64,
}

const IDLE: TlsUnit = TlsUnit { sp: 0, session: 0, buffer: 0, count_at: 0, socket: 0, time: 0, received: 0 };

/// The socket of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TlsSession {
    /// Address of its `struct sock`.
    pub socket: u64,
    /// Its inode number: another connection may have come to the same address.
    pub connection: u64,
}

/// Plaintext that passed.
pub struct Plaintext {
    /// The socket that its records go over.
    pub socket: Socket,
    /// Where it is.
    pub buffer: u64,
    /// Bytes.
    pub len: u64,
    pub is_sent: bool,
    /// When (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
}

/// A function of a library is entered.
#[inline(always)]
pub fn enter(ctx: &ProbeContext) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let cookie = cookie(ctx.as_ptr());
    let Some(called) = cookie.function() else { return };
    let registers = function::registers(ctx);
    let [session, buffer, len, count_at] = registers::function_arguments(registers, called.is_go());
    let key = session_key(session);
    if matches!(called, TlsFunction::Free | TlsFunction::GoClose) {
        // It need not be there.
        let _ = TLS_SESSIONS.remove(key);
        return;
    }
    if exclusion::has(ids.tgid, MESSAGES) {
        return;
    }
    let unit = unit::current(ids.tgid);
    if called == TlsFunction::GoWrite {
        let plaintext = Plaintext { socket: Socket(0), buffer, len, is_sent: true, time: now() };
        return join(ids, &unit, session, true, &plaintext);
    }
    let Some(sp) = stack_pointer(cookie, called, registers, 0) else {
        return count(Counter::GoroutineFailed);
    };
    let Some(state) = state(&unit) else { return };
    // SAFETY: the pointer was checked by the lookup; only the thread that runs the unit uses the entry.
    let state = unsafe { &mut *state };
    // Inside another session's function: TLS in TLS. What the outer one moves is what the program says.
    if state.sp > sp && state.session != session {
        return;
    }
    let received = core::mem::take(&mut state.received);
    if received != 0 {
        adopt(key, received);
    }
    let count_at = match called {
        TlsFunction::ReadInto | TlsFunction::WriteFrom => count_at,
        _ => 0,
    };
    *state = TlsUnit { sp, session, buffer, count_at, socket: 0, time: now(), received: 0 };
}

/// A function has returned, through the kernel's return probe.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) {
    // SAFETY: the kernel passes a valid context.
    let registers = unsafe { &*ctx.as_ptr().cast::<Registers>() };
    // The return took the address from the stack, where there is one.
    left(cookie(ctx.as_ptr()), registers, registers::RETURN_ADDRESS_BYTES);
}

/// A function is about to return: a probe at the very instruction, or at one from which nothing else can follow.
#[inline(always)]
pub fn exit(ctx: &ProbeContext) {
    let (cookie, registers) = (cookie(ctx.as_ptr()), function::registers(ctx));
    if !cookie.unless().is_some_and(|condition| registers::holds(registers, condition)) {
        left(cookie, registers, 0);
    }
}

#[inline(always)]
fn left(cookie: TlsCookie, registers: &Registers, above: u64) {
    let Some(called) = cookie.function() else { return };
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    let unit = unit::current(ids.tgid);
    // Not in scope, or entered before the probes were there.
    let Some(state) = TLS_UNITS.get_ptr_mut(unit.key) else { return };
    // SAFETY: as in `enter`.
    let state = unsafe { &mut *state };
    if state.sp == 0 || stack_pointer(cookie, called, registers, above) != Some(state.sp) {
        return;
    }
    let call = *state;
    state.sp = 0;
    let result = registers::result(registers);
    let len = match called {
        TlsFunction::Read | TlsFunction::Write => u64::try_from(result as i32).unwrap_or(0),
        TlsFunction::GoRead => u64::try_from(result as i64).unwrap_or(0),
        TlsFunction::ReadInto | TlsFunction::WriteFrom if result as i32 == 1 => {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_user(call.count_at as *const u64) }.unwrap_or(0)
        }
        _ => 0,
    };
    let is_sent = called.sends();
    // What is sent was on its way when the call began; what is received was there when it ended.
    let time = if is_sent { call.time } else { now() };
    let plaintext = Plaintext { socket: Socket(call.socket), buffer: call.buffer, len, is_sent, time };
    join(ids, &unit, call.session, called.is_go(), &plaintext);
}

/// Sends plaintext as a message of its session's connection, and remembers which that is. Its socket is the one that was
/// used meanwhile; 0: none was.
#[inline(always)]
fn join(ids: Ids, unit: &Unit, session: u64, is_go: bool, plaintext: &Plaintext) {
    let key = session_key(session);
    let mut found = connection_of(key, plaintext.socket.0);
    if found.is_none() && is_go {
        found = connection_of_go(session, ids, unit);
        if let Some((socket, connection)) = found {
            remember(key, socket, connection);
        }
    }
    if plaintext.len == 0 {
        return;
    }
    let Some((socket, _)) = found else { return count(Counter::TlsUnjoined) };
    let both = u64::from(ids.tgid) << 32 | u64::from(ids.tid);
    let len = plaintext.len & !IS_SENT | if plaintext.is_sent { IS_SENT } else { 0 };
    send_plaintext(socket, plaintext.buffer, len, plaintext.time, both);
}

/// Beside the length of plaintext: it was sent.
const IS_SENT: u64 = 1 << 63;

/// Sends plaintext as a message of a socket's connection. A global function: the verifier checks it once, not once for each
/// way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_plaintext(socket: u64, buffer: u64, len: u64, time: u64, ids: u64) -> u64 {
    // It may have been closed since it was found.
    let Some(connection) = CONNECTIONS.get_ptr_mut(socket) else {
        count(Counter::TlsUnjoined);
        return 0;
    };
    let ids = Ids { tgid: (ids >> 32) as u32, tid: ids as u32 };
    let (len, is_sent) = (len & !IS_SENT, len & IS_SENT != 0);
    let plaintext = Plaintext { socket: Socket(socket), buffer, len, is_sent, time };
    // SAFETY: the pointer was checked by the lookup. As for messages of sockets, one direction is in one place.
    unsafe { message::plaintext(ids, &unit::current(ids.tgid), &mut *connection, &plaintext) };
    0
}

/// The connection of a session: that of the socket that was used, which is remembered, or the one that was remembered.
#[inline(always)]
fn connection_of(key: TlsSessionKey, used: u64) -> Option<(u64, *mut Connection)> {
    let known = TLS_SESSIONS.get_ptr(key);
    // SAFETY: the pointer was checked by the lookup.
    let known = known.map_or(TlsSession { socket: 0, connection: 0 }, |known| unsafe { *known });
    let socket = if used == 0 { known.socket } else { used };
    if socket == 0 {
        return None;
    }
    let connection = CONNECTIONS.get_ptr_mut(socket)?;
    // SAFETY: as above.
    let id = unsafe { (*connection).id };
    if used == 0 {
        return (id == known.connection).then_some((socket, connection));
    }
    if socket != known.socket || id != known.connection {
        remember(key, socket, connection);
    }
    Some((socket, connection))
}

/// The session's connection is this one.
#[inline(always)]
fn remember(key: TlsSessionKey, socket: u64, connection: *mut Connection) {
    // SAFETY: the pointer was checked by the lookup.
    let connection = unsafe {
        connection::begin_plaintext(&mut *connection);
        (*connection).id
    };
    // The map forgets the least recently used one rather than refuse.
    let _ = TLS_SESSIONS.insert(key, TlsSession { socket, connection }, 0);
}

/// A session's function is entered, and its unit has just received records: if no socket of it is known, they are for it.
#[inline(always)]
fn adopt(key: TlsSessionKey, received: u64) {
    if connection_of(key, 0).is_none()
        && let Some(connection) = CONNECTIONS.get_ptr_mut(received)
        // SAFETY: the pointer was checked by the lookup.
        && unsafe { (*connection).tls } == TlsState::Records as u8
    {
        remember(key, received, connection);
    }
}

/// The connection below a `tls.Conn` (Go 1.19 to 1.27, 64 bits), if it is one of TCP:
///
/// ```text
/// tls.Conn.conn   net.Conn (table, pointer) at 0
/// net.TCPConn     *net.netFD at 0
/// net.netFD       poll.FD.Sysfd at 16, family at 56, sotype at 64
/// ```
#[inline(always)]
fn connection_of_go(session: u64, ids: Ids, unit: &Unit) -> Option<(u64, *mut Connection)> {
    const SOCK_STREAM: u64 = 1;
    const AF_INET: u64 = 2;
    const AF_INET6: u64 = 10;
    let word = |address: u64| -> Option<u64> {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(address as *const u64) }.ok()
    };
    let descriptor = word(word(session.wrapping_add(8))?)?;
    let family = word(descriptor.wrapping_add(56))?;
    if word(descriptor.wrapping_add(64))? != SOCK_STREAM || family != AF_INET && family != AF_INET6 {
        return None;
    }
    let socket = Socket::of_descriptor(word(descriptor.wrapping_add(16))? as u32)?;
    let moved =
        Moved { socket, call: Call::UNKNOWN, len: 0, flags: 0, is_sent: true, progress: Progress::NONE };
    let found = connection::known(socket).or_else(|| connection::open(&moved, ids, unit))?;
    Some((socket.0, found))
}

/// Whether what went over a socket is what a function of TLS moves. Called for each message, before it is counted as one.
#[inline(always)]
pub fn is_ciphertext(connection: &mut Connection, unit: &Unit, socket: Socket) -> bool {
    if !is_watched() || connection.is_tcp == 0 {
        return false;
    }
    let is_known = connection.tls == TlsState::Plaintext as u8;
    let messages = connection.messages;
    if !is_known && messages >= LOOKED_AT && messages & messages.wrapping_sub(1) != 0 {
        return false;
    }
    if let Some(state) = TLS_UNITS.get_ptr_mut(unit.key) {
        // SAFETY: as in `enter`.
        let state = unsafe { &mut *state };
        if state.sp != 0 {
            state.socket = socket.0;
            connection::begin_plaintext(connection);
            return true;
        }
    }
    is_known
}

/// Notes the records of TLS that a unit receives by itself. `head`: the first bytes of the message, where they were seen.
#[inline(always)]
pub fn note_records(connection: &mut Connection, unit: &Unit, moved: &Moved, head: Option<[u8; 3]>) {
    // Record header (RFC 8446, 5.1): type 20 to 23, version 3.0 to 3.4.
    if let Some([20..=23, 3, 0..=4]) = head
        && connection.is_tcp != 0
        && connection.tls == TlsState::None as u8
    {
        connection.tls = TlsState::Records as u8;
    }
    if connection.tls == TlsState::Records as u8
        && !moved.is_sent
        && is_watched()
        && let Some(state) = state(unit)
    {
        // SAFETY: as in `enter`.
        unsafe { (*state).received = moved.socket.0 };
    }
}

/// The running thread ends.
#[inline(always)]
pub fn forget_thread() {
    let _ = TLS_UNITS.remove(unit::thread().key);
}

/// Whether any function of TLS is probed.
#[inline(always)]
fn is_watched() -> bool {
    // SAFETY: the pointer was checked by the lookup.
    TLS_CONTROL.get_ptr(0).is_some_and(|control| unsafe { *control } != 0)
}

/// The state of a unit, made when it is first needed.
#[inline(always)]
fn state(unit: &Unit) -> Option<*mut TlsUnit> {
    if let Some(state) = TLS_UNITS.get_ptr_mut(unit.key) {
        return Some(state);
    }
    // The map forgets the least recently used one rather than refuse.
    let _ = TLS_UNITS.insert(unit.key, IDLE, 0);
    TLS_UNITS.get_ptr_mut(unit.key)
}

#[inline(always)]
fn session_key(address: u64) -> TlsSessionKey {
    TlsSessionKey { address, tgid: (bpf_get_current_pid_tgid() >> 32) as u32, reserved: 0 }
}

/// The stack pointer that the function was entered with: now it is `above` bytes above that, or as far below it as the
/// cookie says.
#[inline(always)]
fn stack_pointer(cookie: TlsCookie, called: TlsFunction, registers: &Registers, above: u64) -> Option<u64> {
    let sp = registers::stack_pointer(registers).wrapping_sub(above).wrapping_add(cookie.shift());
    if called.is_go() { function::below_stack_end(registers, sp) } else { Some(sp) }
}

#[inline(always)]
fn cookie(ctx: *mut c_void) -> TlsCookie {
    TlsCookie(function::cookie(ctx).0)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}
