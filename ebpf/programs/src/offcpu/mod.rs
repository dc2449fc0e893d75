//! Time off the CPU: each watched task's waits, measured where the scheduler switches and added up here.
//!
//! A wait ends when its task gets a CPU again. The part before the task was woken is blocked time, the part after it is
//! run queue time. Both go to a sum by task, stack, system call and state; a stack is sent once, and afterwards known by
//! its hash. The state of a task is found by its id, so it does not matter between which CPUs it moves.

mod stacks;

use aya_ebpf::bindings::{BPF_NOEXIST, task_struct};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::BtfTracePointContext;
use descry_abi::counter::Counter;
use descry_abi::event::{EventKind, RequestWait, Wait};
use descry_abi::exclusion::WAITS;
use descry_abi::offcpu::{Control, NO_STACK, TaskTimes, WaitKey, WaitKind, WaitState, WaitSum};

use crate::config::{
    LONG_WAIT, SWITCH_HAS_STATE, TASK_FLAGS, TASK_ON_CPU, TASK_PID, TASK_RUNTIME, TASK_STATE,
};
use crate::emit::{self, count};
use crate::maps::{OFF_CPU_CONTROL, OFF_CPU_TASKS, WAIT_SUMS};
use crate::net::request;
use crate::stack::Walk;
use crate::task::{self, Ids, Task, direct};
use crate::{exclusion, lifecycle, scope, unit};

/// `PF_EXITING` (include/linux/sched.h): the task is on its way out.
const EXITING: u32 = 4;

/// What userspace says, if time off the CPU is measured now.
#[inline(always)]
fn control() -> Option<Control> {
    // SAFETY: the pointer was checked by the lookup; each of the two numbers is written at once.
    let control = unsafe { *OFF_CPU_CONTROL.get_ptr(0)? };
    (control.active != 0).then_some(control)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// `sched_switch(preempt, prev, next, prev_state)`, in the context of `prev`. The last argument came with Linux 5.18.
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext, walk: Walk) {
    let Some(control) = control() else { return };
    let prev = ctx.arg::<*const c_void>(1).cast_mut().cast::<task_struct>();
    let next = ctx.arg::<*const c_void>(2).cast_mut().cast::<task_struct>();
    let preempted = ctx.arg::<u64>(0) & 0xff != 0;
    let state =
        if SWITCH_HAS_STATE.load() != 0 { ctx.arg::<u64>(3) as u32 } else { direct(prev, TASK_STATE.load()) };
    let leaving = leaving(direct::<u32>(prev, TASK_PID.load()));
    let coming = OFF_CPU_TASKS.get_ptr_mut(direct::<u32>(next, TASK_PID.load()));
    // The clock is what costs most of those that nobody measures.
    if leaving.is_none() && coming.is_none() {
        return;
    }
    let now = now();
    if let Some(times) = coming {
        comes(times, now, control);
    }
    if let Some(ids) = leaving {
        let left = Left { ids, state: if preempted { 0 } else { state }, now, control };
        leaves(ctx, prev, &left, walk);
    }
}

/// Who leaves its CPU, the running task; none: nobody wants to know of it. `pid` is the kernel's own id.
#[inline(always)]
fn leaving(pid: u32) -> Option<Ids> {
    if pid == 0 {
        return None;
    }
    let Some(ids) = task::current_ids() else {
        count(Counter::PidNotVisible);
        return None;
    };
    if !scope::current_is_watched(ids.tgid) {
        return None;
    }
    if exclusion::has(ids.tgid, WAITS) {
        // Of one that was measured until now nothing goes on. It may be gone already.
        if OFF_CPU_TASKS.get_ptr(pid).is_some() {
            let _ = OFF_CPU_TASKS.remove(pid);
        }
        count(Counter::SwitchesExcluded);
        return None;
    }
    Some(ids)
}

/// How the running task leaves its CPU.
struct Left {
    ids: Ids,
    /// The kernel's; 0: it could go on.
    state: u32,
    now: u64,
    control: Control,
}

/// The running task leaves its CPU.
#[inline(always)]
fn leaves(ctx: &BtfTracePointContext, prev: *mut task_struct, how: &Left, walk: Walk) {
    let Left { ids, state, now, control } = *how;
    let pid = direct::<u32>(prev, TASK_PID.load());
    let times = match OFF_CPU_TASKS.get_ptr_mut(pid) {
        Some(times) => times,
        // What a task does after its exit was told is nobody's time any more.
        None if direct::<u32>(prev, TASK_FLAGS.load()) & EXITING != 0 => return,
        None => {
            let times = TaskTimes { tgid: ids.tgid, tid: ids.tid, ..TaskTimes::default() };
            if !add_task(pid, &times, Task::current()) {
                return;
            }
            let Some(times) = OFF_CPU_TASKS.get_ptr_mut(pid) else { return };
            times
        }
    };
    let ran = direct::<u64>(prev, TASK_RUNTIME.load());
    came_unseen(times, ran, now, control);
    let left = stacks::of_running(ctx, ids, now, walk);
    // SAFETY: the pointer was checked by the lookup. No other CPU writes: the task is neither woken nor switched in before
    // this program ends.
    let times = unsafe { &mut *times };
    if times.on != 0 {
        times.cpu += now.wrapping_sub(times.on);
    }
    times.on = 0;
    times.ran = ran;
    times.request = if LONG_WAIT.load() == 0 { 0 } else { request_of_running(ids.tgid, left.syscall) };
    times.stack = left.stack;
    times.syscall = left.syscall;
    times.file = left.file;
    times.state = WaitState::from_kernel(state) as u8;
    times.runnable = if state == 0 { now } else { 0 };
    times.out = now;
}

/// `epoll_wait`, `epoll_pwait`, `epoll_pwait2` (asm/unistd.h).
#[cfg(bpf_target_arch = "x86_64")]
const EPOLL: [i32; 3] = [232, 281, 441];
#[cfg(bpf_target_arch = "aarch64")]
const EPOLL: [i32; 3] = [22, 22, 441];

/// The request that the running thread's unit serves; 0: none is known. A thread that waits in an event loop waits for
/// whoever comes first.
#[inline(always)]
fn request_of_running(tgid: u32, syscall: i32) -> u64 {
    let [epoll, with_mask, with_nanoseconds] = EPOLL;
    if syscall == epoll || syscall == with_mask || syscall == with_nanoseconds {
        return 0;
    }
    request::of_unit(&unit::current(tgid))
}

/// A task gets a CPU: its wait is over.
#[inline(always)]
fn comes(times: *mut TaskTimes, now: u64, control: Control) {
    // SAFETY: the pointer was checked by the lookup. No other CPU writes: the task is on the way to this one.
    let times = unsafe { &mut *times };
    let (out, waker) = (times.out, times.waker);
    let woken = times.runnable;
    times.out = 0;
    times.runnable = 0;
    times.waker = NO_STACK;
    times.on = now;
    if out == 0 {
        return;
    }
    let mut key = key(times, control);
    let runnable = if woken > out { woken } else { out };
    if times.request != 0 && now.wrapping_sub(out) >= LONG_WAIT.load() {
        emit::request_wait(&RequestWait {
            kind: EventKind::RequestWait as u16,
            reserved: [0; 3],
            start: out,
            runnable,
            end: now,
            request: times.request,
            key,
        });
    }
    // A task that a signal kept from blocking was never woken: it could run all the time.
    if woken == 0 {
        key.state = WaitState::Preempted as u8;
    } else if woken > out {
        key.kind = WaitKind::Blocked as u8;
        key.waker = waker;
        add(&key, woken - out, now);
        key.kind = WaitKind::RunQueue as u8;
        key.waker = NO_STACK;
    }
    if now > runnable {
        add(&key, now - runnable, now);
    }
}

/// A task has its CPU, and no program was told that it got it: it had it as long as it ran since it left one. It came while it
/// was being listed, or the CPU was that of a process in whose context the kernel runs no programs, as some virtual machines
/// protect one. `ran`: what the scheduler says of its time on a CPU.
#[inline(always)]
fn came_unseen(times: *mut TaskTimes, ran: u64, now: u64, control: Control) {
    // SAFETY: the pointer was checked by the lookup. No other CPU writes: the task is the running one.
    let (out, runnable, before) = unsafe { ((*times).out, (*times).runnable, (*times).ran) };
    if out == 0 {
        return;
    }
    count(Counter::ArrivalsUnseen);
    let came = now.wrapping_sub(ran.wrapping_sub(before).min(now.wrapping_sub(out)));
    if runnable == 0 {
        // Nor was its waking told.
        // SAFETY: as above.
        unsafe { (*times).runnable = came };
    }
    comes(times, came, control);
}

#[inline(always)]
fn key(times: &TaskTimes, control: Control) -> WaitKey {
    WaitKey {
        stack: times.stack,
        waker: NO_STACK,
        tgid: times.tgid,
        tid: times.tid,
        syscall: times.syscall,
        kind: WaitKind::RunQueue as u8,
        state: times.state,
        file: times.file,
        epoch: control.epoch as u8,
    }
}

/// Adds a wait to its sum. Only one CPU at a time does so for one task, and the key names the task.
#[inline(always)]
fn add(key: &WaitKey, duration: u64, now: u64) {
    if let Some(sum) = WAIT_SUMS.get_ptr_mut(key) {
        // SAFETY: the pointer was checked by the lookup.
        let sum = unsafe { &mut *sum };
        sum.count += 1;
        sum.total += duration;
        if duration > sum.longest {
            sum.longest = duration;
        }
        return;
    }
    let sum = WaitSum { count: 1, total: duration, longest: duration };
    if WAIT_SUMS.insert(key, &sum, BPF_NOEXIST.into()).is_ok() {
        return count(Counter::WaitSums);
    }
    emit::wait(&Wait { kind: EventKind::Wait as u16, reserved: [0; 3], time: now, duration, key: *key });
}

/// `sched_wakeup(task)`: it can run again. Comes after the switch that took its CPU away, on whichever CPU.
#[inline(always)]
pub fn wakeup(ctx: &BtfTracePointContext) {
    if control().is_none() {
        return;
    }
    let task = ctx.arg::<*const c_void>(0).cast_mut().cast::<task_struct>();
    let Some(times) = OFF_CPU_TASKS.get_ptr_mut(direct::<u32>(task, TASK_PID.load())) else { return };
    // SAFETY: the pointer was checked by the lookup. A task is woken by one CPU at a time.
    let times = unsafe { &mut *times };
    if times.out != 0 && times.runnable == 0 {
        times.runnable = now();
    }
}

/// `sched_wakeup_new(task)`: a new task waits for its first CPU.
#[inline(always)]
pub fn wakeup_new(ctx: &BtfTracePointContext) {
    if control().is_none() {
        return;
    }
    let raw = ctx.arg::<*const c_void>(0).cast_mut().cast::<task_struct>();
    let task = Task(raw as u64);
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if !scope::task_is_watched(task, ids.tgid) || exclusion::has(ids.tgid, WAITS) {
        return;
    }
    let now = now();
    let times = TaskTimes {
        out: now,
        runnable: now,
        tgid: ids.tgid,
        tid: ids.tid,
        syscall: -1,
        state: WaitState::New as u8,
        ..TaskTimes::default()
    };
    add_task(direct::<u32>(raw, TASK_PID.load()), &times, task);
}

/// `sched_process_exit(task)`: its time ends here.
#[inline(always)]
pub fn exit() {
    let Some(control) = control() else { return };
    // SAFETY: the helper has no preconditions.
    let pid = unsafe { bpf_get_current_pid_tgid() } as u32;
    let Some(times) = OFF_CPU_TASKS.get_ptr(pid) else { return };
    // SAFETY: the pointer was checked by the lookup; the running task is the only one that writes.
    let times = unsafe { *times };
    let now = now();
    let on = if times.on == 0 { 0 } else { now.wrapping_sub(times.on) };
    let key = WaitKey {
        stack: NO_STACK,
        syscall: -1,
        state: WaitState::Preempted as u8,
        kind: WaitKind::OnCpu as u8,
        ..key(&times, control)
    };
    add(&key, times.cpu + on, now);
    // It was there a moment ago, and nobody else removes it.
    let _ = OFF_CPU_TASKS.remove(pid);
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread that is not the leader takes the leader's id.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let old = ctx.arg::<u64>(1) as u32;
    // SAFETY: the helper has no preconditions.
    let pid = unsafe { bpf_get_current_pid_tgid() } as u32;
    if control().is_none() || old == pid {
        return;
    }
    let Some(times) = OFF_CPU_TASKS.get_ptr(old) else { return };
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    // SAFETY: the pointer was checked by the lookup; the running task is the only one that writes.
    let times = TaskTimes { tid: ids.tid, ..unsafe { *times } };
    // It was there a moment ago, and nobody else removes it.
    let _ = OFF_CPU_TASKS.remove(old);
    add_task(pid, &times, Task::current());
}

/// `sched_waking(task)`, in the context of the waker.
#[inline(always)]
pub fn waking(ctx: &BtfTracePointContext, walk: Walk) {
    if control().is_none() {
        return;
    }
    let task = ctx.arg::<*const c_void>(0).cast_mut().cast::<task_struct>();
    let Some(times) = OFF_CPU_TASKS.get_ptr_mut(direct::<u32>(task, TASK_PID.load())) else { return };
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    let stack = stacks::of_running(ctx, ids, now(), walk).stack;
    // SAFETY: the pointer was checked by the lookup. A task is woken by one CPU at a time.
    unsafe { (*times).waker = stack };
}

/// Puts a task among those that are measured, and tells userspace its name; false: there was no room, or it is there.
#[inline(always)]
fn add_task(pid: u32, times: &TaskTimes, task: Task) -> bool {
    match OFF_CPU_TASKS.insert(pid, times, BPF_NOEXIST.into()) {
        Ok(()) => {
            lifecycle::name(Ids { tgid: times.tgid, tid: times.tid }, task);
            true
        }
        Err(EEXIST) => false,
        Err(_) => {
            count(Counter::TasksFull);
            false
        }
    }
}

/// `-EEXIST` (asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// A task of the list that the kernel goes through for userspace when a measurement begins.
#[inline(always)]
pub fn list(raw: *mut task_struct) {
    if control().is_none() || direct::<u32>(raw, TASK_FLAGS.load()) & EXITING != 0 {
        return;
    }
    let task = Task(raw as u64);
    let Some(ids) = task.ids() else { return count(Counter::PidNotVisible) };
    if !scope::task_is_watched(task, ids.tgid) || exclusion::has(ids.tgid, WAITS) {
        return;
    }
    let now = now();
    let state = direct::<u32>(raw, TASK_STATE.load());
    let mut times = TaskTimes {
        tgid: ids.tgid,
        tid: ids.tid,
        ran: direct::<u64>(raw, TASK_RUNTIME.load()),
        syscall: -1,
        state: WaitState::from_kernel(state) as u8,
        ..TaskTimes::default()
    };
    if direct::<i32>(raw, TASK_ON_CPU.load()) != 0 {
        times.on = now;
    } else {
        times.out = now;
        if state == 0 {
            times.runnable = now;
        } else {
            let waits = stacks::of_blocked(raw, task, ids, now);
            (times.stack, times.syscall, times.file) = (waits.stack, waits.syscall, waits.file);
        }
    }
    let pid = direct::<u32>(raw, TASK_PID.load());
    if !add_task(pid, &times, task) || times.out == 0 || direct::<i32>(raw, TASK_ON_CPU.load()) == 0 {
        return;
    }
    // It got a CPU before it was there to be found.
    if let Some(added) = OFF_CPU_TASKS.get_ptr_mut(pid) {
        // SAFETY: the pointer was checked by the lookup. Should the task be switched at this moment, these few instructions
        // are what is lost.
        let added = unsafe { &mut *added };
        if added.out == now {
            added.out = 0;
            added.runnable = 0;
            added.on = now;
        }
    }
}
