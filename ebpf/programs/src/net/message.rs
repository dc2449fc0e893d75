//! One message: what a call moved on a socket.

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::net::{
    Connection, MAX_CAPTURE, MAX_RECORDS, MESSAGE_BEHIND_UNTOLD, MESSAGE_FROM_START, MESSAGE_PLAINTEXT,
    MESSAGE_SENT, MESSAGE_UNSEEN, Message,
};

use super::calls::{Buffer, Call};
use super::connection;
use super::socket::{Progress, Socket};
use super::template::Whole;
use super::tls::{self, Plaintext};
use super::{MSG_TRUNC, payload, request, template};
use crate::emit::{self, count};
use crate::maps::{NET_STATES, NetState};
use crate::task::{Ids, Running};
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
    /// Where TCP is after it.
    pub progress: Progress,
}

impl Moved {
    /// When: of TCP when the last byte was sent; else now (ns). `asked`: when the request came that it may answer; 0: none is
    /// known.
    #[inline(always)]
    fn time(&self, asked: u64) -> u64 {
        if self.is_sent
            && asked != 0
            && let Some(at) = self.progress.sent_since(asked)
        {
            return at;
        }
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let sent_at = if self.is_sent { self.progress.sent_at(now) } else { None };
        sent_at.unwrap_or(now)
    }
}

/// Bytes that a record has room for.
const ROOM: u64 = MAX_CAPTURE as u64;

/// Sends a record of it, with the head of its bytes; several, where more than fits into one is wanted. `known`: the
/// connection, if it was seen before. `TEMPLATES`: whether it may equal one; programs at the end of every call, which are
/// many ways through one, would be too large with that.
#[inline(always)]
pub fn take<const TEMPLATES: bool>(
    state: *mut NetState,
    task: Running,
    ids: Ids,
    known: Option<*mut Connection>,
    moved: &Moved,
) {
    let unit = unit::of_task(task, ids.tgid);
    let Some(connection) = known.or_else(|| connection::open(moved, ids, &unit)) else { return };
    // SAFETY: the pointer was checked by the lookup. Two CPUs may count messages of one connection at once; the kernel
    // itself serializes what one direction moves.
    let connection = unsafe { &mut *connection };
    if tls::is_ciphertext(connection, &unit, moved.socket) {
        return count(Counter::MessagesEncrypted);
    }
    let is_behind = connection::catch_up(connection, moved);
    let total = if moved.is_sent { &mut connection.sent } else { &mut connection.received };
    let offset = *total;
    *total = offset.wrapping_add(moved.len);
    connection.messages = connection.messages.wrapping_add(1);
    connection::look(connection, moved.socket);
    if connection.capture == 0 {
        request::of_message(connection, &unit, moved.is_sent, false);
        tls::note_records(connection, &unit, moved, None);
        return count(Counter::MessagesIgnored);
    }
    let has_templates = TEMPLATES && connection.family != 0;
    let (len, is_sent, number) = (moved.len, moved.is_sent, unit.number(ids));
    let is_last = has_templates && !is_behind && template::is_last_answer(connection, moved);
    let mut flags = if moved.is_sent { MESSAGE_SENT } else { 0 };
    let is_copied = moved.flags & MSG_TRUNC == 0 || connection.is_tcp == 0;
    let captured = match moved.call.buffer {
        _ if is_last => moved.len,
        Buffer::Spliced => {
            count(Counter::MessagesSpliced);
            0
        }
        buffer if buffer == Buffer::Unknown || !is_copied => {
            count(Counter::MessagesUnseen);
            0
        }
        _ => payload::copy(moved.call, moved.len.min(connection.capture.into())),
    };
    if is_behind {
        flags |= MESSAGE_BEHIND_UNTOLD;
    }
    // SAFETY: `state` is this CPU's own.
    let head = (captured >= 3).then(|| unsafe { [(*state).bytes[0], (*state).bytes[1], (*state).bytes[2]] });
    tls::note_records(connection, &unit, moved, head);
    if captured >= 4 {
        // SAFETY: as above; four bytes are there.
        connection::widen(connection, offset, unsafe {
            (&raw const (*state).bytes).cast::<u32>().read_unaligned()
        });
    }
    let want = moved.len.min(connection.capture.into());
    let goes_on = captured >= ROOM && want > captured;
    let time = moved.time(if has_templates { connection.asked() } else { 0 });
    let known = if has_templates && !is_behind && !is_last {
        template::known(connection, len, captured, is_sent)
    } else {
        0
    };
    let request = request::of_message(connection, &unit, is_sent, known != 0);
    if has_templates {
        let message = Whole { len, captured, time, offset, unit: number, request, is_sent, known, is_last };
        if captured == 0 || is_behind {
            template::flush(connection);
        } else if template::take(connection, ids, &message) {
            return;
        }
    }
    // Of the last answer no more was read than it took to know it; and another CPU, which moved the connection's other
    // direction, has told of its request meanwhile.
    let captured = if is_last { payload::copy(moved.call, want) } else { captured };
    let flags = if captured == 0 { flags | MESSAGE_UNSEEN } else { flags };
    // SAFETY: `state` is this CPU's own.
    unsafe {
        (*state).message = Message {
            kind: EventKind::Message as u16,
            flags,
            captured: captured as u32,
            time,
            tgid: ids.tgid,
            tid: ids.tid,
            connection: connection.id,
            offset,
            len: if goes_on { captured } else { moved.len },
            unit: number,
            request,
        };
    }
    send(captured);
    if goes_on {
        go_on(want.wrapping_sub(captured), moved.len.wrapping_sub(captured));
    }
}

/// Sends the message in the state with so many of its bytes. A global function, so that the verifier does not ask for the bound
/// of their number on each way that leads here. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send(captured: u64) -> u64 {
    if let Some(state) = NET_STATES.get_ptr_mut(0) {
        emit::message(state, captured);
    }
    0
}

/// Sends records of the next `want` bytes of the message in the state, of which `len` bytes are not told of. A global
/// function takes no pointers to maps, so it looks the state up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_on(want: u64, len: u64) -> u64 {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return 0 };
    let (mut want, mut len) = (want, len);
    for _ in 1..MAX_RECORDS {
        let captured = payload::gather(want.min(ROOM));
        let is_last = captured < ROOM || want <= captured;
        // SAFETY: `state` is this CPU's own.
        unsafe {
            let message = &mut (*state).message;
            message.offset = message.offset.wrapping_add(message.len);
            message.len = if is_last { len } else { captured };
            message.captured = captured as u32;
            message.flags &= !MESSAGE_BEHIND_UNTOLD;
            if captured == 0 {
                message.flags |= MESSAGE_UNSEEN;
            }
        }
        emit::message(state, captured);
        if is_last {
            return 0;
        }
        (want, len) = (want.wrapping_sub(captured), len.wrapping_sub(captured));
    }
    0
}

/// Sends a record of plaintext of TLS, with the head of its bytes.
#[inline(always)]
pub fn plaintext(ids: Ids, unit: &Unit, connection: &mut Connection, plaintext: &Plaintext) {
    let request = request::of_message(connection, unit, plaintext.is_sent, false);
    let total = if plaintext.is_sent { &mut connection.sent } else { &mut connection.received };
    let offset = *total;
    *total = offset.wrapping_add(plaintext.len);
    connection.messages = connection.messages.wrapping_add(1);
    connection::look(connection, plaintext.socket);
    if connection.capture == 0 {
        return count(Counter::MessagesIgnored);
    }
    if offset == 0
        // SAFETY: the helper checks the address.
        && let Ok(first) = unsafe { bpf_probe_read_user(plaintext.buffer as *const u32) }
    {
        connection::widen(connection, offset, first);
    }
    let sent = if plaintext.is_sent { MESSAGE_SENT } else { 0 };
    let from_start = if connection.from_start != 0 { MESSAGE_FROM_START } else { 0 };
    let want = plaintext.len.min(connection.capture.into());
    let goes_on = want > ROOM;
    let message = Message {
        kind: EventKind::Message as u16,
        flags: MESSAGE_PLAINTEXT | sent | from_start,
        captured: want.min(ROOM) as u32,
        time: plaintext.time,
        tgid: ids.tgid,
        tid: ids.tid,
        connection: connection.id,
        offset,
        len: if goes_on { ROOM } else { plaintext.len },
        unit: unit.number(ids),
        request,
    };
    emit::plaintext(&message, plaintext.buffer);
    if goes_on {
        go_on_with_plaintext(message, plaintext, want);
    }
}

/// Sends records of what is wanted of plaintext beyond the first.
#[inline(always)]
fn go_on_with_plaintext(mut message: Message, plaintext: &Plaintext, want: u64) {
    let mut told = ROOM;
    for _ in 1..MAX_RECORDS {
        let rest = want.wrapping_sub(told);
        message.offset = message.offset.wrapping_add(ROOM);
        message.captured = rest.min(ROOM) as u32;
        message.len = if rest > ROOM { ROOM } else { plaintext.len.wrapping_sub(told) };
        emit::plaintext(&message, plaintext.buffer.wrapping_add(told));
        if rest <= ROOM {
            return;
        }
        told = told.wrapping_add(ROOM);
    }
}
