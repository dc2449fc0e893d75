//! System calls that move bytes on sockets: where each keeps its buffer.

use descry_abi::counter::Counter;
use descry_abi::exclusion::MESSAGES;
use descry_abi::net::MAX_SERIES;

use super::connection;
use super::message::{self, Moved};
use super::socket::Socket;
use super::{HOLDS_NO_DATA, series, state};
use crate::emit::{count, count_many};
use crate::registers;
use crate::task::{Ids, Running};
use crate::{exclusion, scope};

/// How a call names its buffer. The numbers of calls are those of asm/unistd.h.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The second argument points to it, the third says how long it is (read, write, recvfrom, sendto).
    Plain,
    /// The second argument points to an array of `struct iovec`, the third says how many (readv, writev).
    Vector,
    /// The second argument points to a `struct msghdr` (recvmsg, sendmsg).
    Header,
    /// The second argument points to an array of `struct mmsghdr`, the third says how many (recvmmsg, sendmmsg).
    Headers,
    /// The bytes pass no buffer of the program (sendfile, splice).
    Spliced,
    /// It cannot be reached from here (io_uring).
    Unknown,
}

/// A system call.
#[derive(Clone, Copy)]
pub struct Call {
    pub buffer: Buffer,
    /// The second and third argument.
    pub second: u64,
    pub third: u64,
}

impl Call {
    pub const UNKNOWN: Self = Self { buffer: Buffer::Unknown, second: 0, third: 0 };
}

#[cfg(bpf_target_arch = "x86_64")]
mod numbers {
    pub const READ: i32 = 0;
    pub const WRITE: i32 = 1;
    pub const READV: i32 = 19;
    pub const WRITEV: i32 = 20;
    pub const SENDFILE: i32 = 40;
    pub const SENDTO: i32 = 44;
    pub const RECVFROM: i32 = 45;
    pub const SENDMSG: i32 = 46;
    pub const RECVMSG: i32 = 47;
    pub const SPLICE: i32 = 275;
    pub const RECVMMSG: i32 = 299;
    pub const SENDMMSG: i32 = 307;
    pub const PREADV2: i32 = 327;
    pub const PWRITEV2: i32 = 328;
}

#[cfg(bpf_target_arch = "aarch64")]
mod numbers {
    pub const READ: i32 = 63;
    pub const WRITE: i32 = 64;
    pub const READV: i32 = 65;
    pub const WRITEV: i32 = 66;
    pub const SENDFILE: i32 = 71;
    pub const SPLICE: i32 = 76;
    pub const SENDTO: i32 = 206;
    pub const RECVFROM: i32 = 207;
    pub const SENDMSG: i32 = 211;
    pub const RECVMSG: i32 = 212;
    pub const RECVMMSG: i32 = 243;
    pub const SENDMMSG: i32 = 269;
    pub const PREADV2: i32 = 286;
    pub const PWRITEV2: i32 = 287;
}

use numbers::{
    PREADV2, PWRITEV2, READ, READV, RECVFROM, RECVMMSG, RECVMSG, SENDFILE, SENDMMSG, SENDMSG, SENDTO, SPLICE,
    WRITE, WRITEV,
};

/// Where a call that sends (or receives) on a socket has its bytes.
#[inline(always)]
fn buffer(number: i32, is_sent: bool) -> Buffer {
    match (number, is_sent) {
        (READ | RECVFROM, false) | (WRITE | SENDTO, true) => Buffer::Plain,
        (READV | PREADV2, false) | (WRITEV | PWRITEV2, true) => Buffer::Vector,
        (RECVMSG, false) | (SENDMSG, true) => Buffer::Header,
        (RECVMMSG, false) | (SENDMMSG, true) => Buffer::Headers,
        (SENDFILE, true) | (SPLICE, _) => Buffer::Spliced,
        _ => Buffer::Unknown,
    }
}

/// The call by which the running task has just moved `len` bytes on a socket.
#[inline(always)]
pub fn of_current(task: Running, socket: Socket, len: u64, is_sent: bool) -> Call {
    // A worker of io_uring has no registers of a call.
    let Some(saved) = task.registers() else { return Call::UNKNOWN };
    let buffer = buffer(task.syscall(saved), is_sent);
    if buffer == Buffer::Unknown || is_of_io_uring(task, socket) {
        return Call::UNKNOWN;
    }
    let [_, second, third, ..] = registers::later_arguments(saved);
    if buffer == Buffer::Headers {
        return Call { buffer: Buffer::Header, second: series::header(second, third, len), third };
    }
    Call { buffer, second, third }
}

/// Whether the call in flight is about something else: at the end of any, io_uring does work that was waiting.
#[inline(always)]
fn is_of_io_uring(task: Running, socket: Socket) -> bool {
    if task.io_uring() == 0 {
        return false;
    }
    let first = registers::call_first(task.registers_at());
    let called = first.and_then(|descriptor| Socket::of_descriptor(descriptor as u32));
    called.is_none_or(|called| called.0 != socket.0)
}

/// `sys_exit(regs, ret)`, on kernels without the sockets' own tracepoints.
#[inline(always)]
pub fn ended(registers: u64, result: i64) {
    if result <= 0 {
        return;
    }
    let task = Running::get();
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    if exclusion::has(ids.tgid, MESSAGES) {
        return count(Counter::MessagesExcluded);
    }
    let Some(state) = state() else { return };
    // SAFETY: `state` is this CPU's own: tracepoints run with preemption off.
    if !unsafe { registers::saved(&raw mut (*state).registers) } {
        return;
    }
    // SAFETY: as above.
    let saved = unsafe { &raw const (*state).registers };
    let number = registers::call_number(registers).map_or(-1, |number| number as i32);
    let arguments = registers::call_arguments(registers, saved);
    let is_sent =
        matches!(number, WRITE | WRITEV | PWRITEV2 | SENDTO | SENDMSG | SENDMMSG | SENDFILE | SPLICE);
    let buffer = buffer(number, is_sent);
    let flags = match number {
        RECVFROM | RECVMMSG => arguments[3],
        RECVMSG => arguments[2],
        _ => 0,
    };
    if buffer == Buffer::Unknown || flags & HOLDS_NO_DATA != 0 {
        return;
    }
    let [first, second, third, ..] = arguments;
    let called = |descriptor: u64| Socket::of_descriptor(descriptor as u32);
    let (socket, is_sent) = match number {
        // splice(from, at, to, ...): one of both is a pipe.
        SPLICE => called(third).map_or((called(first), false), |socket| (Some(socket), true)),
        _ => (called(first), is_sent),
    };
    let Some(socket) = socket else { return };
    if buffer == Buffer::Headers {
        return each(socket, ids, second, result as u64, flags | if is_sent { IS_SENT } else { 0 });
    }
    let call = Call { buffer, second, third };
    let (known, progress) = (connection::known(socket), socket.progress());
    let moved = Moved { socket, call, len: result as u64, flags, is_sent, progress };
    message::take::<false>(state, task, ids, known, &moved);
}

/// Beside the flags of a call: it sent.
const IS_SENT: u64 = 1 << 32;

/// Each message of a call that moved `number` of them, by calls of a global function, which the verifier checks once by
/// itself.
#[inline(always)]
fn each(socket: Socket, ids: Ids, array: u64, number: u64, flags: u64) {
    let both = u64::from(ids.tgid) << 32 | u64::from(ids.tid);
    for index in 0..MAX_SERIES {
        if index >= number {
            return;
        }
        take_one(socket.0, series::at(array, index), both, flags);
    }
    count_many(Counter::MessagesUnseen, number.saturating_sub(MAX_SERIES));
}

/// A message of a call that moved several, by its header. A global function takes no pointers to maps, so it looks the
/// state up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_one(socket: u64, header: u64, ids: u64, flags: u64) -> u64 {
    let Some(state) = state() else { return 0 };
    let Some(len) = series::length(header) else {
        count(Counter::BufferUnreadable);
        return 0;
    };
    let call = Call { buffer: Buffer::Header, second: header, third: 0 };
    let ids = Ids { tgid: (ids >> 32) as u32, tid: ids as u32 };
    let (flags, is_sent) = (flags & !IS_SENT, flags & IS_SENT != 0);
    let socket = Socket(socket);
    let moved = Moved { socket, call, len: len.into(), flags, is_sent, progress: socket.progress() };
    message::take::<false>(state, Running::get(), ids, connection::known(socket), &moved);
    0
}
