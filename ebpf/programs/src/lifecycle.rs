//! Processes come and go: scope follows them at once, and userspace is told.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use descry_abi::counter::Counter;
use descry_abi::event::{EXIT_OUT_OF_MEMORY, EventKind, Lifecycle};

use crate::config::{FOLLOW, LIFECYCLE, REQUESTS, SCOPE_BY_COMM, SCOPE_BY_EXECUTABLE, SCOPE_COMM};
use crate::emit::{self, count};
use crate::maps::{PROCESSES, SAMPLE_SHARES, SCOPE_EXECUTABLES, UNIT_RULES};
use crate::net::{request, tls};
use crate::task::{Ids, Task, pointer};
use crate::{exclusion, scope};

/// Bits of a wait status that hold the signal that ended a process (`wait(2)`).
const TERMINATING_SIGNAL: u32 = 0x7f;
const SIGKILL: u32 = 9;

/// A process or thread was made.
#[inline(always)]
pub fn fork(parent: *const c_void, child: *const c_void) {
    let (Some(parent), Some(child)) = (Task(pointer(parent)).ids(), Task(pointer(child)).ids()) else {
        return count(Counter::PidNotVisible);
    };
    if parent.tgid == child.tgid || !scope::current_is_watched(parent.tgid) {
        return;
    }
    if FOLLOW.load() != 0 {
        scope::add_process(child.tgid);
    }
    exclusion::inherit(parent.tgid, child.tgid);
    send(EventKind::Fork, child, parent.tgid, Task::current().comm());
}

/// A process began to run another program.
#[inline(always)]
pub fn exec(task: *const c_void, old_pid: u64) {
    let task = Task(pointer(task));
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    // Its mappings are gone; a walk by the old ones would be wrong. None of the entries need be there.
    let _ = PROCESSES.remove(ids.tgid);
    let _ = SAMPLE_SHARES.remove(ids.tgid);
    let _ = UNIT_RULES.remove(ids.tgid);
    exclusion::forget(ids.tgid);
    let comm = task.comm();
    if SCOPE_BY_COMM.load() != 0 && comm == SCOPE_COMM.load() {
        scope::add_process(ids.tgid);
    }
    if SCOPE_BY_EXECUTABLE.load() != 0
        && let Some(executable) = task.executable()
        && SCOPE_EXECUTABLES.get_ptr(executable).is_some()
    {
        scope::add_process(ids.tgid);
    }
    if scope::current_is_watched(ids.tgid) {
        send(EventKind::Exec, ids, old_pid as u32, comm);
    }
}

/// A thread ends. Userspace is told of the last one of a process.
#[inline(always)]
pub fn exit(task: *const c_void) {
    let task = Task(pointer(task));
    if REQUESTS.load() != 0 {
        request::forget_thread();
        tls::forget_thread();
    }
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if task.live_threads() != 0 || !scope::current_is_watched(ids.tgid) {
        return;
    }
    // The number may be given to another process.
    let _ = PROCESSES.remove(ids.tgid);
    let _ = SAMPLE_SHARES.remove(ids.tgid);
    let _ = UNIT_RULES.remove(ids.tgid);
    exclusion::forget(ids.tgid);
    scope::remove_process(ids.tgid);
    let mut status = task.exit_code();
    if status & TERMINATING_SIGNAL == SIGKILL && task.is_out_of_memory() {
        status |= EXIT_OUT_OF_MEMORY;
    }
    send(EventKind::Exit, ids, status, task.comm());
}

/// A thread takes another name.
#[inline(always)]
pub fn rename(task: *const c_void, comm: *const c_void) {
    let Some(ids) = Task(pointer(task)).ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    // SAFETY: bpf_probe_read_kernel checks the address; the kernel passes a buffer of TASK_COMM_LEN = 16 bytes.
    if let Ok(comm) = unsafe { bpf_probe_read_kernel(comm.cast::<[u8; 16]>()) } {
        send(EventKind::Comm, ids, 0, comm);
    }
}

/// Tells userspace the name of a thread that it does not know yet.
#[inline(always)]
pub fn name(ids: Ids, task: Task) {
    send(EventKind::Comm, ids, 0, task.comm());
}

#[inline(always)]
fn send(kind: EventKind, ids: Ids, other: u32, comm: [u8; 16]) {
    if LIFECYCLE.load() == 0 {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let event = Lifecycle { kind: kind as u16, reserved: 0, tgid: ids.tgid, tid: ids.tid, other, time, comm };
    emit::lifecycle(&event);
}
