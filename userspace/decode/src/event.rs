//! What the kernel side tells, decoded: the one closed set of events between the ring and the rest.

use crate::ids::{
    BootNanos, CgroupId, Comm, Cpu, FunctionNumber, RequestId, RuntimeAddress, Tgid, Tid, UnitId,
};
pub use descry_abi::event::UnwindEnd;
pub use descry_abi::function::MAX_ARGUMENTS;

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
    /// A thread took another name.
    Comm(Lifecycle),
    /// A traced function returned, or a USDT probe was passed.
    Call(Call),
    /// The arguments of a call that has begun.
    Arguments(Arguments),
}

impl Event {
    /// When it happened.
    pub fn time(&self) -> BootNanos {
        match self {
            Self::Sample(sample) => sample.time,
            Self::StackCopy(copy) => copy.time,
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
    /// Stack memory.
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
