//! Records of the ring buffer. Each begins with its kind (u16); each is 8-byte aligned.

use crate::offcpu::WaitKey;

/// The first two bytes of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum EventKind {
    /// [`SampleHeader`], then `kernel_frames` and `user_frames` addresses (u64), each leaf first.
    Sample = 1,
    /// [`StackCopyHeader`], then `len` bytes of user stack. Precedes the sample of the same thread and time.
    StackCopy = 2,
    /// [`Lifecycle`].
    Exec = 3,
    /// [`Lifecycle`].
    Fork = 4,
    /// [`Lifecycle`].
    Exit = 5,
    /// [`Lifecycle`].
    Comm = 6,
    /// As a sample, then a [`SlowCall`](crate::syscall::SlowCall) and its path; `weight` is the call's duration.
    SlowCall = 7,
    /// [`SampleHeader`] with frames as a sample's; `weight` is the id by which a [`WaitKey`] refers to the stack.
    Stack = 10,
    /// [`Wait`].
    Wait = 11,
    /// [`RequestWait`].
    RequestWait = 12,
    /// [`crate::net::Opened`].
    ConnectionOpened = 16,
    /// [`crate::net::Message`], then `captured` bytes.
    Message = 17,
    /// [`crate::net::Closed`].
    ConnectionClosed = 18,
    /// [`crate::template::Exchange`].
    Exchange = 19,
    /// [`crate::tcp::ConnectFailed`].
    ConnectFailed = 24,
    /// [`crate::function::FunctionCall`].
    FunctionCall = 8,
    /// [`crate::function::FunctionArguments`].
    FunctionArguments = 9,
}

impl EventKind {
    /// The kind of this number, if there is one.
    pub const fn from_u16(n: u16) -> Option<Self> {
        Some(match n {
            1 => Self::Sample,
            2 => Self::StackCopy,
            3 => Self::Exec,
            4 => Self::Fork,
            5 => Self::Exit,
            6 => Self::Comm,
            7 => Self::SlowCall,
            10 => Self::Stack,
            11 => Self::Wait,
            12 => Self::RequestWait,
            16 => Self::ConnectionOpened,
            17 => Self::Message,
            18 => Self::ConnectionClosed,
            19 => Self::Exchange,
            24 => Self::ConnectFailed,
            8 => Self::FunctionCall,
            9 => Self::FunctionArguments,
            _ => return None,
        })
    }
}

/// Why the walk up a user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum UnwindEnd {
    /// There was no user stack (a kernel thread).
    NoUserStack = 0,
    /// At the root.
    Root = 1,
    /// At the limit of frames.
    TooDeep = 2,
    /// At an address in no known mapping.
    NoMapping = 3,
    /// In a binary whose rows are not loaded.
    NotLoaded = 4,
    /// At a rule that no row can express.
    ComplexRule = 5,
    /// Stack memory could not be read.
    ReadFailed = 6,
    /// The next frame was not further up the stack.
    NoProgress = 7,
    /// The process has no mapping table.
    NoProcess = 8,
    /// The user registers could not be read.
    NoRegisters = 9,
}

impl UnwindEnd {
    /// The reason of this number, if there is one.
    pub const fn from_u16(n: u16) -> Option<Self> {
        Some(match n {
            0 => Self::NoUserStack,
            1 => Self::Root,
            2 => Self::TooDeep,
            3 => Self::NoMapping,
            4 => Self::NotLoaded,
            5 => Self::ComplexRule,
            6 => Self::ReadFailed,
            7 => Self::NoProgress,
            8 => Self::NoProcess,
            9 => Self::NoRegisters,
            _ => return None,
        })
    }
}

/// [`SampleHeader::flags`]: the sample hit in the kernel (a system call, fault or interrupt of this task).
pub const SAMPLE_IN_KERNEL: u16 = 1;
/// [`SampleHeader::flags`]: a [`StackCopyHeader`] of the same thread and time was written before.
pub const SAMPLE_HAS_COPY: u16 = 2;
/// [`SampleHeader::flags`]: a kernel thread.
pub const SAMPLE_KERNEL_THREAD: u16 = 4;

/// A stack sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHeader {
    /// [`EventKind::Sample`].
    pub kind: u16,
    /// `SAMPLE_*` bits.
    pub flags: u16,
    /// Kernel addresses that follow.
    pub kernel_frames: u16,
    /// User addresses that follow the kernel's. The first is the interrupted instruction; the others are return
    /// addresses, but for one right after a signal frame, which is written plus one, so that minus one is right for all.
    pub user_frames: u16,
    /// When (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Logical CPU number.
    pub cpu: u32,
    /// An [`UnwindEnd`].
    pub end: u16,
    /// Zero.
    pub reserved: u16,
    /// Id of the cgroup (v2) of the task; its inode number in the cgroup file system.
    pub cgroup: u64,
    /// Time that this sample stands for (ns). Of a [`EventKind::Stack`]: its id.
    pub weight: u64,
    /// Execution unit: the thread id, or the number of the goroutine or task.
    pub unit: u64,
    /// Request that the unit served, 0: none known.
    pub request: u64,
    /// Name of the thread, filled up with zeros.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<SampleHeader>() == 80);

/// Registers of a stack copy, as numbered by DWARF: on x86_64 rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip (17);
/// on aarch64 x0..x30 sp pc (33).
pub const MAX_REGISTERS: usize = 33;

/// What is needed to walk a user stack in userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StackCopyHeader {
    /// [`EventKind::StackCopy`].
    pub kind: u16,
    /// Registers that are meaningful: 17 or 33.
    pub registers_len: u16,
    /// Bytes of stack that follow; 0: of a thread that is blocked, whose memory userspace reads itself.
    pub len: u32,
    /// As in the sample (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Runtime address of the first byte of the copy: the stack pointer of the leaf frame, rounded down to 8.
    pub start: u64,
    /// Registers of the leaf frame, in DWARF's numbering.
    pub registers: [u64; MAX_REGISTERS],
}
const _: () = assert!(size_of::<StackCopyHeader>() == 32 + MAX_REGISTERS * 8);

/// Beside the wait status of an exit: the kernel killed the process because it was out of memory.
pub const EXIT_OUT_OF_MEMORY: u32 = 1 << 16;

/// Exec, fork, exit, comm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lifecycle {
    /// An [`EventKind`].
    pub kind: u16,
    /// Zero.
    pub reserved: u16,
    /// Process. Fork: the child's.
    pub tgid: u32,
    /// Thread. Fork: the child's.
    pub tid: u32,
    /// Fork: the parent process. Exec: the thread id before it became the leader. Exit: the wait status, and
    /// [`EXIT_OUT_OF_MEMORY`].
    pub other: u32,
    /// When (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// Name of the thread from now on, filled up with zeros.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Lifecycle>() == 40);

/// One wait that found no room among the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Wait {
    /// [`EventKind::Wait`].
    pub kind: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// When it ended (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// How long it was (ns).
    pub duration: u64,
    /// Whose it was, and why.
    pub key: WaitKey,
}
const _: () = assert!(size_of::<Wait>() == 24 + size_of::<WaitKey>());

/// A long wait of a unit that served a request. It is among the sums too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RequestWait {
    /// [`EventKind::RequestWait`].
    pub kind: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// When the thread left its CPU (ns, `CLOCK_BOOTTIME`).
    pub start: u64,
    /// When it could run again: not before `start`.
    pub runnable: u64,
    /// When it got a CPU again: not before `runnable`.
    pub end: u64,
    /// The request.
    pub request: u64,
    /// Whose the wait was, and why; its kind means nothing.
    pub key: WaitKey,
}
const _: () = assert!(size_of::<RequestWait>() == 40 + size_of::<WaitKey>());
