//! System calls that move bytes on sockets: where each keeps its buffer.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use descry_abi::counter::Counter;

use super::socket::Socket;
use super::{message, state};
use crate::emit::count;
use crate::maps::NetState;
use crate::registers;
use crate::{scope, task};

/// How a call names its buffer. The numbers of calls are those of asm/unistd.h.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The second argument points to it (read, write, recvfrom, sendto).
    Plain,
    /// The second argument points to an array of `struct iovec`, the third says how many (readv, writev).
    Vector,
    /// The second argument points to a `struct msghdr` (recvmsg, sendmsg).
    Header,
    /// It cannot be reached from here (sendfile, splice, io_uring, sendmmsg, recvmmsg).
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
    pub const SENDTO: i32 = 44;
    pub const RECVFROM: i32 = 45;
    pub const SENDMSG: i32 = 46;
    pub const RECVMSG: i32 = 47;
}

#[cfg(bpf_target_arch = "aarch64")]
mod numbers {
    pub const READ: i32 = 63;
    pub const WRITE: i32 = 64;
    pub const READV: i32 = 65;
    pub const WRITEV: i32 = 66;
    pub const SENDTO: i32 = 206;
    pub const RECVFROM: i32 = 207;
    pub const SENDMSG: i32 = 211;
    pub const RECVMSG: i32 = 212;
}

use numbers::{READ, READV, RECVFROM, RECVMSG, SENDMSG, SENDTO, WRITE, WRITEV};

#[inline(always)]
fn buffer(number: i32) -> Buffer {
    match number {
        READ | WRITE | SENDTO | RECVFROM => Buffer::Plain,
        READV | WRITEV => Buffer::Vector,
        SENDMSG | RECVMSG => Buffer::Header,
        _ => Buffer::Unknown,
    }
}

/// The call that the running task is in, whose registers are in the state.
#[inline(always)]
pub fn of_current(state: *const NetState) -> Call {
    // SAFETY: the helper has no preconditions; `state` is this CPU's own.
    let (number, arguments) = unsafe {
        let saved = &raw const (*state).registers;
        (registers::syscall_of(bpf_get_current_task_btf(), saved), registers::later_arguments(&*saved))
    };
    Call { buffer: buffer(number), second: arguments[1], third: arguments[2] }
}

/// `sys_exit(regs, ret)`, on kernels without the sockets' own tracepoints. `MSG_PEEK` is the fourth argument of recvfrom,
/// the third of recvmsg.
#[inline(always)]
pub fn ended(registers: u64, result: i64) {
    const MSG_PEEK: u64 = 2;
    if result <= 0 {
        return;
    }
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
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
    let buffer = buffer(number);
    let peeks = match number {
        RECVFROM => arguments[3] & MSG_PEEK != 0,
        RECVMSG => arguments[2] & MSG_PEEK != 0,
        _ => false,
    };
    if buffer == Buffer::Unknown || peeks {
        return;
    }
    let Some(socket) = Socket::of_descriptor(arguments[0] as u32) else { return };
    let is_sent = matches!(number, WRITE | WRITEV | SENDTO | SENDMSG);
    let call = Call { buffer, second: arguments[1], third: arguments[2] };
    message::take(state, ids, &message::Moved { socket, call, len: result as u64, is_sent });
}
