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
    /// 1: processes may be in `SAMPLE_SHARES`.
    SHARES: u32 = 0;
    /// While the ring holds a multiple of so many times `RING_BAND`, its reader is woken. A power of two.
    RING_WAKE_BANDS: u64 = 8;
    /// Parts that the rules leave out of some processes: the bits of `descry_abi::exclusion`.
    EXCLUSIONS: u32 = 0;
    /// 1: kernel frames are wanted.
    KERNEL_STACKS: u32 = 1;
    /// Waits of at least this long (ns) that are made for a request are sent one by one; 0: none is.
    LONG_WAIT: u64 = 0;
    /// System calls that take at least this long (ns) are sent; 0: none is.
    SLOW_CALL: u64 = 0;
    /// Places for near rows of system calls: a power of two.
    NEAR_PLACES: u32 = 1;
    /// 1: lifecycle events of watched processes are sent.
    LIFECYCLE: u32 = 1;
    /// 1: functions are traced.
    FUNCTIONS: u32 = 0;
    /// Nanoseconds between two events of traced calls at least, on average; 0: no events.
    FUNCTION_EVENT_INTERVAL: u64 = 0;

    /// 1: `sched_switch` hands over the state of the task that leaves. Kernel 5.18 and later.
    SWITCH_HAS_STATE: u32 = 0;
    /// 1: what kind of file a call reads or writes is noted: userspace cannot tell it by the names of kernel functions.
    FILE_KINDS: u32 = 0;
    /// 1: requests are numbered, and what a unit does carries its request.
    REQUESTS: u32 = 0;
    /// 1: bytes may be sent without a message that tells of them, so TCP's own numbers are looked at.
    BYTES_UNTOLD: u32 = 0;

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
    /// `task_struct.se.sum_exec_runtime`.
    TASK_RUNTIME: u32 = 0;
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
    /// `signal_struct.oom_mm`; 0: the kernel has none.
    SIGNAL_OOM_MM: u32 = 0;
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

    /// `task_struct.thread.fsbase` (x86_64), `task_struct.thread.uw.tp_value` (aarch64).
    TASK_THREAD_POINTER: u32 = 0;
    /// `task_struct.io_uring`; 0 where the kernel has none.
    TASK_IO_URING: u32 = 0;
    /// `task_struct.files`.
    TASK_FILES: u32 = 0;
    /// `files_struct.fdt`.
    FILES_FDT: u32 = 0;
    /// `fdtable.max_fds`.
    FDTABLE_MAX_FDS: u32 = 0;
    /// `fdtable.fd`.
    FDTABLE_FD: u32 = 0;
    /// `file.private_data`.
    FILE_PRIVATE_DATA: u32 = 0;
    /// `inode.i_mode`.
    INODE_MODE: u32 = 0;
    /// `socket.sk`.
    SOCKET_SK: u32 = 0;
    /// `socket.type`.
    SOCKET_TYPE: u32 = 0;
    /// `socket_alloc.vfs_inode`, from the `struct socket` that a `socket_alloc` begins with.
    SOCKET_ALLOC_INODE: u32 = 0;
    /// `sock.sk_socket`.
    SK_SOCKET: u32 = 0;
    /// `sock.sk_err`.
    SK_ERR: u32 = 0;
    /// `sock.__sk_common.skc_family`.
    SK_FAMILY: u32 = 0;
    /// `sock.__sk_common.skc_state`.
    SK_STATE: u32 = 0;
    /// `sock.sk_protocol`.
    SK_PROTOCOL: u32 = 0;
    /// `sock.__sk_common.skc_num`.
    SK_NUM: u32 = 0;
    /// `sock.__sk_common.skc_dport`.
    SK_DPORT: u32 = 0;
    /// `sock.__sk_common.skc_rcv_saddr`.
    SK_RCV_SADDR: u32 = 0;
    /// `sock.__sk_common.skc_daddr`.
    SK_DADDR: u32 = 0;
    /// `sock.__sk_common.skc_v6_rcv_saddr`.
    SK_V6_RCV_SADDR: u32 = 0;
    /// `sock.__sk_common.skc_v6_daddr`.
    SK_V6_DADDR: u32 = 0;
    /// `inet_connection_sock.icsk_bind_hash`.
    ICSK_BIND_HASH: u32 = 0;
    /// `inet_bind_bucket.fastreuse`.
    TB_FASTREUSE: u32 = 0;
    /// `unix_sock.addr`.
    UNIX_ADDR: u32 = 0;
    /// `tcp_sock.bytes_received`.
    TCP_BYTES_RECEIVED: u32 = 0;
    /// `tcp_sock.rcv_nxt`.
    TCP_RCV_NXT: u32 = 0;
    /// `tcp_sock.copied_seq`.
    TCP_COPIED_SEQ: u32 = 0;
    /// `tcp_sock.bytes_acked`.
    TCP_BYTES_ACKED: u32 = 0;
    /// `tcp_sock.snd_una`.
    TCP_SND_UNA: u32 = 0;
    /// `tcp_sock.write_seq`.
    TCP_WRITE_SEQ: u32 = 0;
    /// `tcp_sock.srtt_us`.
    TCP_SRTT_US: u32 = 0;
    /// `tcp_sock.snd_nxt`.
    TCP_SND_NXT: u32 = 0;
    /// `tcp_sock.tcp_wstamp_ns`; 0 where the kernel does not say.
    TCP_WSTAMP_NS: u32 = 0;
    /// Traces are taken whose lot is not below this; 0: all.
    FIRST_LOT_TAKEN: u64 = 0;
    /// What lots are drawn with.
    LOT_SEED: u64 = 0;
    /// What `CLOCK_BOOTTIME` was before `CLOCK_MONOTONIC` when the measurement began (ns).
    BOOT_BEFORE_MONOTONIC: u64 = 0;
    /// `mm_struct.uprobes_state.xol_area`; 0 where the kernel does not say.
    MM_XOL_AREA: u32 = 0;
    /// `xol_area.vaddr`; 0 where the kernel does not say.
    XOL_VADDR: u32 = 0;
    /// `task_struct.utask`; 0 where the kernel does not say, as for those below.
    TASK_UTASK: u32 = 0;
    /// `uprobe_task.return_instances`.
    UTASK_RETURNS: u32 = 0;
    /// `return_instance.stack`.
    RETURN_STACK: u32 = 0;
    /// `return_instance.orig_ret_vaddr`.
    RETURN_ADDRESS: u32 = 0;
    /// `return_instance.next`.
    RETURN_NEXT: u32 = 0;
}
