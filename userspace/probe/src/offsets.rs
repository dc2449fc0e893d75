//! The kernel struct members that the programs read, and the globals that hold their offsets.

use crate::ProbeError;
use crate::btf::Btf;
use crate::doctor::Feature;

/// Where a thread's pointer to its thread-local storage is kept.
const THREAD_POINTER: &str = if cfg!(target_arch = "aarch64") {
    "task_struct.thread.uw.tp_value"
} else {
    "task_struct.thread.fsbase"
};

/// (global of the kernel side, member).
const MEMBERS: &[(&str, &str)] = &[
    ("TASK_PID", "task_struct.pid"),
    ("TASK_TGID", "task_struct.tgid"),
    ("TASK_COMM", "task_struct.comm"),
    ("TASK_MM", "task_struct.mm"),
    ("TASK_GROUP_LEADER", "task_struct.group_leader"),
    ("TASK_THREAD_PID", "task_struct.thread_pid"),
    ("TASK_SIGNAL", "task_struct.signal"),
    ("TASK_EXIT_CODE", "task_struct.exit_code"),
    ("SIGNAL_LIVE", "signal_struct.live"),
    ("PID_LEVEL", "pid.level"),
    ("PID_NUMBERS", "pid.numbers"),
    ("UPID_NS", "upid.ns"),
    ("PID_NAMESPACE_INUM", "pid_namespace.ns.inum"),
    ("MM_EXE_FILE", "mm_struct.exe_file"),
    ("FILE_INODE", "file.f_inode"),
    ("INODE_INO", "inode.i_ino"),
    ("INODE_SB", "inode.i_sb"),
    ("SB_DEV", "super_block.s_dev"),
    ("TASK_INTERFACE", INTERFACE),
];

/// The same of members that some kernels have not; their globals stay 0 there.
const OPTIONAL: &[(&str, &str)] = &[
    ("MM_XOL_AREA", "mm_struct.uprobes_state.xol_area"),
    ("XOL_VADDR", "xol_area.vaddr"),
    ("TASK_UTASK", "task_struct.utask"),
    ("UTASK_RETURNS", "uprobe_task.return_instances"),
    ("RETURN_STACK", "return_instance.stack"),
    ("RETURN_ADDRESS", "return_instance.orig_ret_vaddr"),
    ("RETURN_NEXT", "return_instance.next"),
    ("SIGNAL_OOM_MM", "signal_struct.oom_mm"),
    ("TASK_IO_URING", "task_struct.io_uring"),
    ("TCP_WSTAMP_NS", "tcp_sock.tcp_wstamp_ns"),
];

/// The function by which files and pipes are sent since Linux 6.5, which the sockets' tracepoints tell of.
const TOLD_SPLICE: &str = "splice_to_socket";

/// Says whether a task is in a system call of the 32-bit interface.
#[cfg(target_arch = "x86_64")]
const INTERFACE: &str = "task_struct.thread_info.status";
#[cfg(target_arch = "aarch64")]
const INTERFACE: &str = "task_struct.thread_info.flags";

/// The same for what descriptors stand for.
const FILE_MEMBERS: &[(&str, &str)] = &[
    ("TASK_FILES", "task_struct.files"),
    ("FILES_FDT", "files_struct.fdt"),
    ("FDTABLE_MAX_FDS", "fdtable.max_fds"),
    ("FDTABLE_FD", "fdtable.fd"),
    ("INODE_MODE", "inode.i_mode"),
];

/// The same for connections, messages and execution units.
const NET_MEMBERS: &[(&str, &str)] = &[
    ("TASK_THREAD_POINTER", THREAD_POINTER),
    ("FILE_PRIVATE_DATA", "file.private_data"),
    ("SOCKET_SK", "socket.sk"),
    ("SOCKET_TYPE", "socket.type"),
    ("SOCKET_ALLOC_INODE", "socket_alloc.vfs_inode"),
    ("SK_SOCKET", "sock.sk_socket"),
    ("SK_ERR", "sock.sk_err"),
    ("SK_FAMILY", "sock.__sk_common.skc_family"),
    ("SK_STATE", "sock.__sk_common.skc_state"),
    ("SK_PROTOCOL", "sock.sk_protocol"),
    ("SK_NUM", "sock.__sk_common.skc_num"),
    ("SK_DPORT", "sock.__sk_common.skc_dport"),
    ("SK_RCV_SADDR", "sock.__sk_common.skc_rcv_saddr"),
    ("SK_DADDR", "sock.__sk_common.skc_daddr"),
    ("SK_V6_RCV_SADDR", "sock.__sk_common.skc_v6_rcv_saddr"),
    ("SK_V6_DADDR", "sock.__sk_common.skc_v6_daddr"),
    ("ICSK_BIND_HASH", "inet_connection_sock.icsk_bind_hash"),
    ("TB_FASTREUSE", "inet_bind_bucket.fastreuse"),
    ("UNIX_ADDR", "unix_sock.addr"),
    ("TCP_BYTES_RECEIVED", "tcp_sock.bytes_received"),
    ("TCP_RCV_NXT", "tcp_sock.rcv_nxt"),
    ("TCP_COPIED_SEQ", "tcp_sock.copied_seq"),
    ("TCP_BYTES_ACKED", "tcp_sock.bytes_acked"),
    ("TCP_SND_UNA", "tcp_sock.snd_una"),
    ("TCP_WRITE_SEQ", "tcp_sock.write_seq"),
    ("TCP_SRTT_US", "tcp_sock.srtt_us"),
    ("TCP_SND_NXT", "tcp_sock.snd_nxt"),
];

/// The same for time off the CPU.
const OFF_CPU_MEMBERS: &[(&str, &str)] = &[
    ("TASK_STATE", "task_struct.__state"),
    ("TASK_ON_CPU", "task_struct.on_cpu"),
    ("TASK_RUNTIME", "task_struct.se.sum_exec_runtime"),
    ("TASK_FLAGS", "task_struct.flags"),
    ("TASK_CGROUPS", "task_struct.cgroups"),
    ("CSS_SET_CGROUP", "css_set.dfl_cgrp"),
    ("CGROUP_NODE", "cgroup.kn"),
    ("CGROUP_PARENT", "cgroup.self.parent"),
    ("NODE_ID", "kernfs_node.id"),
];

/// Arguments that `btf_trace_sched_switch` has where it hands over the state of the task that leaves: its own first one,
/// preempt, prev, next, prev_state.
const SWITCH_ARGUMENTS: usize = 5;

/// The globals with their values on the running kernel; those for time off the CPU and for sockets where they are asked
/// for.
pub(crate) fn of_kernel(
    release: &str,
    off_cpu: bool,
    net: bool,
) -> Result<Vec<(&'static str, u32)>, ProbeError> {
    let btf = Btf::of_kernel()?;
    let missing = |member| ProbeError::NoMember { member, release: release.to_owned() };
    let wanted =
        [(true, MEMBERS), (off_cpu, OFF_CPU_MEMBERS), (net, NET_MEMBERS), (off_cpu || net, FILE_MEMBERS)];
    let mut values = Vec::new();
    for &(global, member) in wanted.iter().filter(|(is_wanted, _)| *is_wanted).flat_map(|(_, all)| *all) {
        values.push((global, btf.offset(member).ok_or_else(|| missing(member))?));
    }
    values.extend(OPTIONAL.iter().filter_map(|(global, member)| Some((*global, btf.offset(member)?))));
    values.push(("UPID_SIZE", btf.size("upid").ok_or_else(|| missing("upid"))?));
    let has_state = btf.arguments("btf_trace_sched_switch").is_some_and(|count| count >= SWITCH_ARGUMENTS);
    values.push(("SWITCH_HAS_STATE", has_state.into()));
    let untold = Feature::SocketTracepoints.is_hidden() || !btf.has_function(TOLD_SPLICE);
    values.push(("BYTES_UNTOLD", untold.into()));
    Ok(values)
}
