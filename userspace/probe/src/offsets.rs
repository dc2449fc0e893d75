//! The kernel struct members that the programs read, and the globals that hold their offsets.

use crate::ProbeError;
use crate::btf::Btf;

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

/// Says whether a task is in a system call of the 32-bit interface.
#[cfg(target_arch = "x86_64")]
const INTERFACE: &str = "task_struct.thread_info.status";
#[cfg(target_arch = "aarch64")]
const INTERFACE: &str = "task_struct.thread_info.flags";

/// The same for time off the CPU.
const OFF_CPU_MEMBERS: &[(&str, &str)] = &[
    ("TASK_STATE", "task_struct.__state"),
    ("TASK_ON_CPU", "task_struct.on_cpu"),
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

/// The globals with their values on the running kernel; `off_cpu`: also those for time off the CPU.
pub(crate) fn of_kernel(release: &str, off_cpu: bool) -> Result<Vec<(&'static str, u32)>, ProbeError> {
    let btf = Btf::of_kernel()?;
    let missing = |member| ProbeError::NoMember { member, release: release.to_owned() };
    let mut values = Vec::with_capacity(MEMBERS.len() + OFF_CPU_MEMBERS.len() + 2);
    let off_cpu_members = if off_cpu { OFF_CPU_MEMBERS } else { &[] };
    for &(global, member) in MEMBERS.iter().chain(off_cpu_members) {
        values.push((global, btf.offset(member).ok_or_else(|| missing(member))?));
    }
    values.push(("UPID_SIZE", btf.size("upid").ok_or_else(|| missing("upid"))?));
    let has_state = btf.arguments("btf_trace_sched_switch").is_some_and(|count| count >= SWITCH_ARGUMENTS);
    values.push(("SWITCH_HAS_STATE", has_state.into()));
    Ok(values)
}
