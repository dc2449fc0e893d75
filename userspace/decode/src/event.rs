//! What the kernel side tells, decoded: the one closed set of events between the ring and the rest.

use std::net::{IpAddr, SocketAddr};

use crate::ids::{
    BootNanos, CgroupId, Comm, ConnectionId, Cpu, FunctionNumber, RequestId, RuntimeAddress, StackId,
    SyscallNumber, TemplateId, Tgid, Tid, UnitId,
};
pub use descry_abi::event::UnwindEnd;
pub use descry_abi::function::MAX_ARGUMENTS;
pub use descry_abi::net::{Closer, Role};
pub use descry_abi::offcpu::{FileKind, WaitKind, WaitState};

/// One record of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stack sample.
    Sample(Sample),
    /// Registers and stack for a walk in userspace; precedes its sample.
    StackCopy(StackCopy),
    /// A process began to run another program: all its mappings are gone.
    Exec(Lifecycle),
    /// A process or thread was made; `other` is the parent process.
    Fork(Lifecycle),
    /// A thread ended; when it is the last one, its process did.
    Exit(Lifecycle),
    /// A thread took another name, or is met for the first time.
    Comm(Lifecycle),
    /// A system call took long.
    SlowCall(Box<SlowCall>),
    /// The stack of a wait, before or after which come waits that refer to it. Its `weight` is 0.
    Stack(StackId, Sample),
    /// A wait that found no room among the kernel side's sums.
    Wait(Wait),
    /// A long wait of a unit that served a request. It is among the sums too.
    RequestWait(RequestWait),
    /// A connection was seen for the first time.
    Opened(Opened),
    /// Bytes went over a connection.
    Message(Message),
    /// A request and its answer that were seen before.
    Exchange(KnownExchange),
    /// A connection is gone.
    Closed(Closed),
    /// A connect failed.
    ConnectFailed(ConnectFailed),
    /// A traced function returned, or a USDT probe was passed.
    Call(Call),
    /// The arguments of a call that has begun.
    Arguments(Arguments),
}

impl Event {
    /// When it happened.
    pub fn time(&self) -> BootNanos {
        match self {
            Self::Sample(sample) | Self::Stack(_, sample) => sample.time,
            Self::Wait(wait) => wait.time,
            Self::RequestWait(wait) => wait.end,
            Self::StackCopy(copy) => copy.time,
            Self::SlowCall(call) => call.sample.time,
            Self::Opened(event) => event.time,
            Self::Message(event) => event.time,
            Self::Exchange(event) => event.end,
            Self::Closed(event) => event.time,
            Self::ConnectFailed(event) => event.end,
            Self::Call(call) => call.end,
            Self::Arguments(arguments) => arguments.start,
            Self::Exec(event) | Self::Fork(event) | Self::Exit(event) | Self::Comm(event) => event.time,
        }
    }
}

/// A stack sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread.
    pub tid: Tid,
    /// CPU.
    pub cpu: Cpu,
    /// Name of the thread.
    pub comm: Comm,
    /// Cgroup of the task.
    pub cgroup: CgroupId,
    /// Time that the sample stands for (ns).
    pub weight: u64,
    /// Execution unit.
    pub unit: UnitId,
    /// Request that the unit served.
    pub request: RequestId,
    /// Whether the sample hit in the kernel.
    pub in_kernel: bool,
    /// Whether the task is a kernel thread.
    pub kernel_thread: bool,
    /// Whether a [`StackCopy`] of this thread and time came before.
    pub has_copy: bool,
    /// Kernel frames, leaf first.
    pub kernel: Vec<RuntimeAddress>,
    /// User frames, leaf first; every one but the first is to be looked up minus one.
    pub user: Vec<RuntimeAddress>,
    /// Why the kernel's walk ended.
    pub end: UnwindEnd,
}

/// A system call that took long, and has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowCall {
    /// Who made it, and from where. Its time is the end of the call, its weight the duration (ns).
    pub sample: Sample,
    /// When it began.
    pub start: BootNanos,
    /// Which call.
    pub number: SyscallNumber,
    /// What it was given; none: the registers were those of other code when it returned (execve, rt_sigreturn).
    pub arguments: Option<[u64; 6]>,
    /// What it returned; from -4095 to -1 an error number.
    pub result: i64,
    /// The path that it was given, perhaps cut.
    pub path: Option<Vec<u8>>,
}

/// What is needed to walk a user stack in userspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackCopy {
    /// When: that of its sample.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread.
    pub tid: Tid,
    /// Registers of the leaf frame by DWARF number; 17 (x86_64, rip last) or 33 (aarch64, pc last).
    pub registers: Vec<u64>,
    /// Runtime address of the first byte of `stack`.
    pub start: RuntimeAddress,
    /// Stack memory; empty: of a thread that is blocked, whose memory has yet to be read.
    pub stack: Vec<u8>,
}

/// Exec, fork, exit or a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// When.
    pub time: BootNanos,
    /// Process; of a fork, the child's.
    pub tgid: Tgid,
    /// Thread; of a fork, the child's.
    pub tid: Tid,
    /// Fork: the parent process. Exec: the thread's id before. Exit: the wait status.
    pub other: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// Whose wait it is, and why; equal waits are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaitOf {
    /// Stack with which the thread left its CPU; none: not known.
    pub stack: Option<StackId>,
    /// Stack of the thread that woke it; none: not asked for, or it was not woken.
    pub waker: Option<StackId>,
    /// Process.
    pub tgid: Tgid,
    /// Thread.
    pub tid: Tid,
    /// Number of the system call in flight.
    pub syscall: Option<u32>,
    /// What part of a wait.
    pub kind: WaitKind,
    /// In which state the thread left its CPU.
    pub state: WaitState,
    /// What the system call in flight reads or writes.
    pub file: FileKind,
}

/// One wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When it ended.
    pub time: BootNanos,
    /// How long it was (ns).
    pub duration: u64,
    /// Whose it was, and why.
    pub of: WaitOf,
}

/// A long wait of a unit that served a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestWait {
    /// When the thread left its CPU.
    pub start: BootNanos,
    /// When it could run again.
    pub runnable: BootNanos,
    /// When it got a CPU again.
    pub end: BootNanos,
    /// The request.
    pub request: RequestId,
    /// Whose it was, and why; its kind means nothing.
    pub of: WaitOf,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// A unix socket of streams.
    Unix,
    /// Another family or type.
    Other,
}

/// A connection's first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// When.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread.
    pub tid: Tid,
    /// The connection.
    pub connection: ConnectionId,
    /// What carries it.
    pub transport: Transport,
    /// Who opened it.
    pub role: Role,
    /// Whether the message that follows is its first in either direction; else it is older, or nobody can tell.
    pub from_start: bool,
    /// The end in the watched process; none: it has no address.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub remote: Option<SocketAddr>,
}

/// Bytes that one call moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread.
    pub tid: Tid,
    /// The connection.
    pub connection: ConnectionId,
    /// Whether the process sent them; else it received them.
    pub sent: bool,
    /// Whether bytes had moved before it that no message tells of; `offset` counts them.
    pub is_behind_untold: bool,
    /// Bytes of this direction before these, since the first sight of the connection.
    pub offset: u64,
    /// How many moved.
    pub len: u64,
    /// The first of them, as far as they were captured.
    pub bytes: Vec<u8>,
    /// Execution unit.
    pub unit: UnitId,
    /// Request that they belong to.
    pub request: RequestId,
    /// Where they are the plaintext of TLS.
    pub plaintext: Option<Plaintext>,
}

/// What is known of plaintext of TLS. Offsets of plaintext count from the first of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// Whether the first plaintext of its connection was seen.
    pub from_start: bool,
}

/// A request that equals a template, and its answer if that does too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownExchange {
    /// The connection.
    pub connection: ConnectionId,
    /// Whether the process sent the request; else it received it.
    pub is_client: bool,
    /// The request's template.
    pub template: TemplateId,
    /// When the request's bytes went.
    pub start: BootNanos,
    /// When the answer's did; without one the same time.
    pub end: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread that moved the request.
    pub tid: Tid,
    /// Bytes of its direction before the request, since the first sight of the connection.
    pub offset: u64,
    /// The answer; none: it comes in full, or not at all.
    pub answer: Option<KnownAnswer>,
    /// Execution unit.
    pub unit: UnitId,
    /// Request that both belong to.
    pub request: RequestId,
}

/// An answer that equals a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownAnswer {
    /// Its template.
    pub template: TemplateId,
    /// Bytes of its direction before it.
    pub offset: u64,
    /// How many it has.
    pub len: u64,
}

/// A connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// When.
    pub time: BootNanos,
    /// The connection.
    pub connection: ConnectionId,
    /// Who ended it.
    pub by: Closer,
}

/// A connect that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFailed {
    /// When it began.
    pub start: BootNanos,
    /// When it failed.
    pub end: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread that began it.
    pub tid: Tid,
    /// Execution unit.
    pub unit: UnitId,
    /// Request that it was made for.
    pub request: RequestId,
    /// Where to.
    pub remote: SocketAddr,
    /// The error's number; none: the process gave up.
    pub error: Option<u32>,
}

/// An address of a family, if there is one; `AF_INET` is 2, `AF_INET6` 10 (linux/socket.h).
pub(crate) fn address(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let ip = match (family, bytes) {
        (2, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        // An IPv6 socket may carry IPv4.
        (10, bytes) => IpAddr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A call of a traced function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Number of the function.
    pub function: FunctionNumber,
    /// Followed calls around it.
    pub depth: u16,
    /// When it began. No other call of its unit began then.
    pub start: BootNanos,
    /// When it ended; of a USDT probe, its start.
    pub end: BootNanos,
    /// When the innermost call around it began.
    pub parent: Option<BootNanos>,
    /// When the outermost call around it began; its own start where there is none.
    pub root: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread in which it ended.
    pub tid: Tid,
    /// Execution unit: the thread, or a goroutine.
    pub unit: UnitId,
    /// Request that the unit served.
    pub request: RequestId,
    /// Name of the thread.
    pub comm: Comm,
}

/// The arguments of a call that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Number of the function.
    pub function: FunctionNumber,
    /// When the call began.
    pub start: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Thread in which it began.
    pub tid: Tid,
    /// Execution unit.
    pub unit: UnitId,
    /// By their places; none: it could not be read.
    pub values: [Option<Argument>; MAX_ARGUMENTS],
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What the register or the 8 bytes of memory held.
    pub word: u64,
    /// The text that it points at, where it is one; cut at 127 bytes.
    pub text: Vec<u8>,
}
