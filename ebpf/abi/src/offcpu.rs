//! Time off the CPU: the state of each watched task, and the sums of its waits.
//!
//! ```text
//! switched out ---- blocked ---- woken ---- run queue ---- switched in
//!      out                      runnable                      now
//! ```

/// Stack id of a wait whose stack is not known.
pub const NO_STACK: u64 = 0;

/// What a sum adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum WaitKind {
    /// From being switched out to being woken.
    Blocked = 0,
    /// From being able to run to running.
    RunQueue = 1,
    /// On a CPU: the whole of a thread that has ended.
    OnCpu = 2,
}

impl WaitKind {
    /// The kind of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Blocked,
            1 => Self::RunQueue,
            2 => Self::OnCpu,
            _ => return None,
        })
    }
}

/// In which state a task left its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum WaitState {
    /// It could have gone on: another one took its place.
    Preempted = 0,
    /// It waits, and a signal wakes it.
    Interruptible = 1,
    /// It waits, and no signal wakes it.
    Uninterruptible = 2,
    /// It was stopped, by a signal or a debugger.
    Stopped = 3,
    /// It has not run yet.
    New = 4,
}

impl WaitState {
    /// The state of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Preempted,
            1 => Self::Interruptible,
            2 => Self::Uninterruptible,
            3 => Self::Stopped,
            4 => Self::New,
            _ => return None,
        })
    }

    /// From `task_struct.__state` (include/linux/sched.h: `TASK_INTERRUPTIBLE` 1, `TASK_UNINTERRUPTIBLE` 2,
    /// `__TASK_STOPPED` 4, `__TASK_TRACED` 8; the bits above say more of these).
    pub const fn from_kernel(state: u32) -> Self {
        if state == 0 {
            Self::Preempted
        } else if state & (4 | 8) != 0 {
            Self::Stopped
        } else if state & 1 != 0 {
            Self::Interruptible
        } else {
            Self::Uninterruptible
        }
    }
}

/// The kind of file that a system call reads or writes: the type in its inode's mode (linux/stat.h: `S_IFMT`), shifted to
/// its low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    /// Not known, or of no type: the kernel's own anonymous files.
    Unknown = 0,
    /// A pipe.
    Pipe = 1,
    /// A terminal or another character device.
    Character = 2,
    /// A directory.
    Directory = 4,
    /// A disk.
    Block = 6,
    /// A file.
    Regular = 8,
    /// A symbolic link.
    Link = 10,
    /// A socket.
    Socket = 12,
}

impl FileKind {
    /// The kind of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Unknown,
            1 => Self::Pipe,
            2 => Self::Character,
            4 => Self::Directory,
            6 => Self::Block,
            8 => Self::Regular,
            10 => Self::Link,
            12 => Self::Socket,
            _ => return None,
        })
    }
}

/// What is known of a watched task; the key is its id in the initial pid namespace. Times are ns of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskTimes {
    /// When it left its CPU; 0: it has one.
    pub out: u64,
    /// When it could run again; 0: not yet, or it has a CPU.
    pub runnable: u64,
    /// When it got its CPU; 0: it has none.
    pub on: u64,
    /// Time on a CPU before `on` (ns).
    pub cpu: u64,
    /// What the scheduler said of its time on a CPU when it left it, or was listed (`se.sum_exec_runtime`, ns).
    pub ran: u64,
    /// Id of the stack with which it left its CPU.
    pub stack: u64,
    /// Id of the stack of the task that woke it.
    pub waker: u64,
    /// The request that its unit served when it left its CPU; 0: none, or nobody asks.
    pub request: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// System call in flight when it left its CPU; -1: none.
    pub syscall: i32,
    /// A [`WaitState`].
    pub state: u8,
    /// A [`FileKind`]: what the system call in flight reads or writes.
    pub file: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
const _: () = assert!(size_of::<TaskTimes>() == 80);

/// What waits are added up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct WaitKey {
    /// Id of the stack with which the task left its CPU.
    pub stack: u64,
    /// Id of the waker's stack; [`NO_STACK`] where wakers are not asked for.
    pub waker: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// System call in flight; -1: none.
    pub syscall: i32,
    /// A [`WaitKind`].
    pub kind: u8,
    /// A [`WaitState`].
    pub state: u8,
    /// A [`FileKind`].
    pub file: u8,
    /// The low 8 bits of [`Control::epoch`].
    pub epoch: u8,
}
const _: () = assert!(size_of::<WaitKey>() == 32);

/// Waits added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WaitSum {
    /// How many.
    pub count: u64,
    /// How long together (ns).
    pub total: u64,
    /// The longest (ns).
    pub longest: u64,
}
const _: () = assert!(size_of::<WaitSum>() == 24);

/// What userspace tells the programs while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// 0: nothing is measured.
    pub active: u32,
    /// Goes into every [`WaitKey`]. After it has changed, the sums of the epochs before do not grow any more.
    pub epoch: u32,
}
const _: () = assert!(size_of::<Control>() == 8);
