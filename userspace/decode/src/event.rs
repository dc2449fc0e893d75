//! What the kernel side tells, decoded: the one closed set of events between the ring and the rest.

use crate::ids::{
    BootNanos, CgroupId, Comm, Cpu, RequestId, RuntimeAddress, StackId, SyscallNumber, Tgid, Tid, UnitId,
};
pub use descry_abi::event::UnwindEnd;
pub use descry_abi::offcpu::{WaitKind, WaitState};

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
}

impl Event {
    /// When it happened.
    pub fn time(&self) -> BootNanos {
        match self {
            Self::Sample(sample) | Self::Stack(_, sample) => sample.time,
            Self::Wait(wait) => wait.time,
            Self::StackCopy(copy) => copy.time,
            Self::SlowCall(call) => call.sample.time,
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
