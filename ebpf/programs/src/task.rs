//! Reading a task: its ids, name, and executable.

use aya_ebpf::bindings::task_struct;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use descry_abi::limits::MAX_PID_NAMESPACES;
use descry_abi::scope::ExecutableKey;

use crate::config::{
    CGROUP_NODE, CGROUP_PARENT, CSS_SET_CGROUP, FDTABLE_FD, FDTABLE_MAX_FDS, FILE_INODE, FILES_FDT,
    INODE_INO, INODE_MODE, INODE_SB, MM_EXE_FILE, MM_XOL_AREA, NODE_ID, PID_LEVEL, PID_NAMESPACE,
    PID_NAMESPACE_INUM, PID_NUMBERS, SB_DEV, SIGNAL_LIVE, SIGNAL_OOM_MM, TASK_CGROUPS, TASK_COMM,
    TASK_EXIT_CODE, TASK_FILES, TASK_GROUP_LEADER, TASK_INTERFACE, TASK_IO_URING, TASK_MM, TASK_PID,
    TASK_SIGNAL, TASK_TGID, TASK_THREAD_PID, TASK_THREAD_POINTER, UPID_NS, UPID_SIZE, XOL_VADDR,
};
use crate::registers::{self, Registers};

/// A `struct task_struct` of the kernel.
#[derive(Clone, Copy)]
pub struct Task(pub u64);

/// Process and thread id in descry's pid namespace.
#[derive(Clone, Copy)]
pub struct Ids {
    pub tgid: u32,
    pub tid: u32,
}

/// The member of type `T` at `base + offset`.
#[inline(always)]
pub fn member<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 {
        return None;
    }
    // SAFETY: bpf_probe_read_kernel checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The member of type `T` of a struct that the verifier knows as one: a load without a call of a helper.
#[inline(always)]
pub fn direct<T: Copy>(base: *const impl Sized, offset: u32) -> T {
    // SAFETY: the verifier checks that the load lies within the struct.
    unsafe { *base.cast::<u8>().add(offset as usize).cast::<T>() }
}

/// Ids of the running task; none: it has no id in descry's pid namespace.
#[inline(always)]
pub fn current_ids() -> Option<Ids> {
    Running::get().ids()
}

impl Task {
    /// Ids of this task; none: it has no id in descry's pid namespace.
    #[inline(always)]
    pub fn ids(self) -> Option<Ids> {
        if PID_NAMESPACE.load() == 0 {
            return Some(Ids {
                tgid: member(self.0, TASK_TGID.load())?,
                tid: member(self.0, TASK_PID.load())?,
            });
        }
        self.translated_ids()
    }

    fn translated_ids(self) -> Option<Ids> {
        let leader = Task(member(self.0, TASK_GROUP_LEADER.load())?);
        Some(Ids { tgid: leader.number()?, tid: self.number()? })
    }

    /// The task's number in descry's pid namespace. A task has one in its own namespace and in each around it:
    /// `thread_pid->numbers[0..=level]`.
    #[inline(always)]
    fn number(self) -> Option<u32> {
        let pid: u64 = member(self.0, TASK_THREAD_PID.load())?;
        let level: u32 = member(pid, PID_LEVEL.load())?;
        for depth in 0..MAX_PID_NAMESPACES {
            if depth > level {
                break;
            }
            let upid = pid + u64::from(PID_NUMBERS.load()) + u64::from(depth * UPID_SIZE.load());
            let namespace: u64 = member(upid, UPID_NS.load())?;
            let inum: u32 = member(namespace, PID_NAMESPACE_INUM.load())?;
            if inum == PID_NAMESPACE.load() {
                return member(upid, 0);
            }
        }
        None
    }

    /// The task's name.
    #[inline(always)]
    pub fn comm(self) -> [u8; 16] {
        member(self.0, TASK_COMM.load()).unwrap_or_default()
    }

    /// Its `wait(2)` status, at exit.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        member(self.0, TASK_EXIT_CODE.load()).unwrap_or_default()
    }

    /// Threads of its process that have not begun to exit.
    #[inline(always)]
    pub fn live_threads(self) -> u32 {
        let signal: u64 = member(self.0, TASK_SIGNAL.load()).unwrap_or_default();
        member(signal, SIGNAL_LIVE.load()).unwrap_or_default()
    }

    /// Whether the kernel chose its process to be killed because it was out of memory.
    #[inline(always)]
    pub fn is_out_of_memory(self) -> bool {
        if SIGNAL_OOM_MM.load() == 0 {
            return false;
        }
        let signal: u64 = member(self.0, TASK_SIGNAL.load()).unwrap_or_default();
        member::<u64>(signal, SIGNAL_OOM_MM.load()).is_some_and(|memory| memory != 0)
    }

    /// Whether it is a kernel thread: one without memory of its own.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        member::<u64>(self.0, TASK_MM.load()) == Some(0)
    }

    /// Its cgroup in the unified hierarchy.
    #[inline(always)]
    pub fn cgroup(self) -> Option<Cgroup> {
        let css_set: u64 = member(self.0, TASK_CGROUPS.load())?;
        Some(Cgroup(member(css_set, CSS_SET_CGROUP.load())?))
    }

    /// The file that it executes.
    #[inline(always)]
    pub fn executable(self) -> Option<ExecutableKey> {
        let mm: u64 = member(self.0, TASK_MM.load())?;
        let file: u64 = member(mm, MM_EXE_FILE.load())?;
        let inode: u64 = member(file, FILE_INODE.load())?;
        let sb: u64 = member(inode, INODE_SB.load())?;
        Some(ExecutableKey::new(member(inode, INODE_INO.load())?, member(sb, SB_DEV.load())?))
    }

    /// The open file of a descriptor.
    #[inline(always)]
    pub fn file(self, descriptor: u32) -> Option<OpenFile> {
        let files: u64 = member(self.0, TASK_FILES.load())?;
        let table: u64 = member(files, FILES_FDT.load())?;
        let max: u32 = member(table, FDTABLE_MAX_FDS.load())?;
        if descriptor >= max {
            return None;
        }
        let array: u64 = member(table, FDTABLE_FD.load())?;
        member(array.wrapping_add(u64::from(descriptor) * 8), 0).map(OpenFile)
    }

    /// Where functions with a return probe return to instead of their callers; 0: there is no such place yet.
    #[inline(always)]
    pub fn return_trampoline(self) -> u64 {
        if XOL_VADDR.load() == 0 {
            return 0;
        }
        let mm: u64 = member(self.0, TASK_MM.load()).unwrap_or_default();
        let area: u64 = member(mm, MM_XOL_AREA.load()).unwrap_or_default();
        member(area, XOL_VADDR.load()).unwrap_or_default()
    }

    /// The running task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task() })
    }
}

/// The running task as the verifier knows it: its members are loaded for a tenth of what a helper that copies them costs.
#[derive(Clone, Copy)]
pub struct Running(*mut task_struct);

impl Running {
    #[inline(always)]
    pub fn get() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() })
    }

    /// Its ids; none: it has no id in descry's pid namespace.
    #[inline(always)]
    pub fn ids(self) -> Option<Ids> {
        if PID_NAMESPACE.load() == 0 {
            return Some(Ids { tgid: self.process(), tid: self.thread() });
        }
        Task(self.0 as u64).translated_ids()
    }

    /// Where its thread-local storage is; 0: it has none.
    #[inline(always)]
    pub fn thread_pointer(self) -> u64 {
        direct(self.0, TASK_THREAD_POINTER.load())
    }

    /// What io_uring keeps for it; 0: nothing.
    #[inline(always)]
    pub fn io_uring(self) -> u64 {
        let offset = TASK_IO_URING.load();
        if offset == 0 { 0 } else { direct(self.0, offset) }
    }

    /// Its user registers where the kernel has saved them: see [`registers::in_place`].
    #[inline(always)]
    pub fn registers<'a>(self) -> Option<&'a Registers> {
        registers::in_place(self.0)
    }

    /// Their address; it may have none.
    #[inline(always)]
    pub fn registers_at(self) -> u64 {
        // SAFETY: the helper has no preconditions.
        (unsafe { bpf_task_pt_regs(self.0) }) as u64
    }

    /// The system call that it is in, whose saved registers are `saved`; -1: none.
    #[inline(always)]
    pub fn syscall(self, saved: &Registers) -> i32 {
        registers::syscall_of(self.0, saved)
    }

    /// The kernel's own id of the thread.
    #[inline(always)]
    pub fn thread(self) -> u32 {
        direct(self.0, TASK_PID.load())
    }

    /// Its name. In the kernel's struct it follows a pointer, so it can be loaded as words.
    #[inline(always)]
    pub fn comm(self) -> [u8; 16] {
        let half = |offset| direct::<u64>(self.0, TASK_COMM.load() + offset).to_ne_bytes();
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(&half(0));
        comm[8..].copy_from_slice(&half(8));
        comm
    }

    /// The kernel's own id of the process.
    #[inline(always)]
    pub fn process(self) -> u32 {
        direct(self.0, TASK_TGID.load())
    }

    /// Whether it is in a system call of the 32-bit interface.
    #[inline(always)]
    pub fn in_compat_call(self) -> bool {
        direct::<u32>(self.0, TASK_INTERFACE.load()) & registers::COMPAT_CALL != 0
    }
}

/// A `struct file` of the kernel.
#[derive(Clone, Copy)]
pub struct OpenFile(pub u64);

impl OpenFile {
    /// What kind of file it is: the bits of `S_IFMT` (linux/stat.h), as a `FileKind` has them.
    #[inline(always)]
    pub fn kind(self) -> Option<u8> {
        let inode: u64 = member(self.0, FILE_INODE.load())?;
        let mode: u16 = member(inode, INODE_MODE.load())?;
        Some((mode >> 12) as u8)
    }
}

/// A `struct cgroup` of the kernel.
#[derive(Clone, Copy)]
pub struct Cgroup(u64);

impl Cgroup {
    /// The inode number of its directory.
    #[inline(always)]
    pub fn id(self) -> Option<u64> {
        let node: u64 = member(self.0, CGROUP_NODE.load())?;
        member(node, NODE_ID.load())
    }

    /// The cgroup that it is in; none: it is the root. A cgroup begins with its `cgroup_subsys_state`, so a pointer to the
    /// one is a pointer to the other.
    #[inline(always)]
    pub fn parent(self) -> Option<Self> {
        match member(self.0, CGROUP_PARENT.load())? {
            0 => None,
            parent => Some(Self(parent)),
        }
    }
}

/// A pointer argument of a raw tracepoint.
#[inline(always)]
pub fn pointer(argument: *const c_void) -> u64 {
    argument as u64
}
