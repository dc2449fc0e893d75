//! Read-only globals: userspace sets them at load, the verifier sees constants.
//!
//! Offsets of kernel struct members (bytes) come from the running kernel's BTF. A name here is the name that userspace
//! overrides, so the two lists must be the same: the loader fails on a name that it does not find.

use aya_ebpf::Global;
use descry_abi::scope::ScopeKind;

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr;)+) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<$ty> = Global::new($value);)+
    };
}

globals! {
    /// A [`ScopeKind`].
    SCOPE_KIND: u32 = ScopeKind::Processes as u32;
    /// 1: children of watched processes are watched.
    FOLLOW: u32 = 0;
    /// 1: a program that runs under the name `SCOPE_COMM` is watched.
    SCOPE_BY_COMM: u32 = 0;
    /// The name, filled up with zeros.
    SCOPE_COMM: [u8; 16] = [0; 16];
    /// 1: programs in the map `SCOPE_EXECUTABLES` are watched.
    SCOPE_BY_EXECUTABLE: u32 = 0;
    /// Inode number of the pid namespace that descry runs in; 0: the initial one, where no translation is needed.
    PID_NAMESPACE: u32 = 0;
    /// Nanoseconds that one sample stands for.
    SAMPLE_WEIGHT: u64 = 0;
    /// 1: kernel frames are wanted.
    KERNEL_STACKS: u32 = 1;
    /// System calls that take at least this long (ns) are sent; 0: none is.
    SLOW_CALL: u64 = 0;
    /// 1: lifecycle events of watched processes are sent.
    LIFECYCLE: u32 = 1;

    /// 1: `sched_switch` hands over the state of the task that leaves. Kernel 5.18 and later.
    SWITCH_HAS_STATE: u32 = 0;

    /// `task_struct.pid`.
    TASK_PID: u32 = 0;
    /// `task_struct.tgid`.
    TASK_TGID: u32 = 0;
    /// `task_struct.comm`.
    TASK_COMM: u32 = 0;
    /// `task_struct.mm`.
    TASK_MM: u32 = 0;
    /// `task_struct.group_leader`.
    TASK_GROUP_LEADER: u32 = 0;
    /// `task_struct.thread_pid`.
    TASK_THREAD_PID: u32 = 0;
    /// `task_struct.signal`.
    TASK_SIGNAL: u32 = 0;
    /// `task_struct.exit_code`.
    TASK_EXIT_CODE: u32 = 0;
    /// `task_struct.__state`.
    TASK_STATE: u32 = 0;
    /// `task_struct.on_cpu`.
    TASK_ON_CPU: u32 = 0;
    /// `task_struct.flags`.
    TASK_FLAGS: u32 = 0;
    /// `task_struct.cgroups`.
    TASK_CGROUPS: u32 = 0;
    /// `css_set.dfl_cgrp`.
    CSS_SET_CGROUP: u32 = 0;
    /// `cgroup.kn`.
    CGROUP_NODE: u32 = 0;
    /// `cgroup.self.parent`.
    CGROUP_PARENT: u32 = 0;
    /// `kernfs_node.id`.
    NODE_ID: u32 = 0;
    /// `signal_struct.live`.
    SIGNAL_LIVE: u32 = 0;
    /// `pid.level`.
    PID_LEVEL: u32 = 0;
    /// `pid.numbers`.
    PID_NUMBERS: u32 = 0;
    /// Size of `struct upid`.
    UPID_SIZE: u32 = 16;
    /// `upid.ns`.
    UPID_NS: u32 = 0;
    /// `pid_namespace.ns.inum`.
    PID_NAMESPACE_INUM: u32 = 0;
    /// `task_struct.thread_info.status` on x86_64, `.flags` on aarch64.
    TASK_INTERFACE: u32 = 0;
    /// `mm_struct.exe_file`.
    MM_EXE_FILE: u32 = 0;
    /// `file.f_inode`.
    FILE_INODE: u32 = 0;
    /// `inode.i_ino`.
    INODE_INO: u32 = 0;
    /// `inode.i_sb`.
    INODE_SB: u32 = 0;
    /// `super_block.s_dev`.
    SB_DEV: u32 = 0;
}
