//! System calls, counted: how long, how often, with which errors. Slow ones are sent with their stacks.
//!
//! A thread is in one call at a time, so its beginning is kept by the thread's id; an entry is made once and written in
//! place from then on. It also says that the thread is watched, so the scope is asked once a thread. The thread's id is
//! the kernel's own: it needs no translation.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user_str};
use aya_ebpf::programs::RawTracePointContext;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::histogram::{BUCKETS, Histogram, bucket};
use descry_abi::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use descry_abi::syscall::{
    COMPAT, CallKey, ErrorKey, MAX_ERRNO, PATH_BYTES, Replaces, SlowCall, SyscallTraits, TRAIT_SLOTS,
    ThreadCall, Unreturned,
};

use crate::config::SLOW_CALL;
use crate::emit::{self, count};
use crate::maps::{
    ProgramKind, SYSCALL_EMPTY, SYSCALL_ERRORS, SYSCALL_OTHERS, SYSCALL_ROWS, SYSCALL_SPARE_ROWS,
    SYSCALL_THREADS, SYSCALL_TRAITS, SYSCALL_UNRETURNED, State,
};
use crate::registers::{self, Hit};
use crate::scope;
use crate::stack::{self, Taking, Walk};
use crate::task::{self, Ids};

/// The kernel's own id of the running thread.
#[inline(always)]
fn thread() -> u32 {
    task::current_thread()
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// What userspace told of a call.
#[inline(always)]
fn traits(number: u32) -> SyscallTraits {
    let known = if number < TRAIT_SLOTS as u32 { SYSCALL_TRAITS.get_ptr(number) } else { None };
    // SAFETY: the pointer was checked by the lookup.
    known.map_or(SyscallTraits::default(), |known| unsafe { *known })
}

/// A call begins.
#[inline(always)]
pub fn enter(number: u32) {
    let number = if task::in_compat_call() { number | COMPAT } else { number };
    let thread = thread();
    match SYSCALL_THREADS.get_ptr_mut(thread) {
        // SAFETY: the pointer was checked by the lookup; only the thread itself writes its entry.
        Some(call) => unsafe {
            (*call).key.number = number;
            (*call).start = now();
        },
        None => first(thread, number),
    }
}

/// The first call of a thread.
#[inline(always)]
fn first(thread: u32, number: u32) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let key = CallKey { tgid: ids.tgid, number };
    let call = ThreadCall { start: now(), key, tid: ids.tid, reserved: 0 };
    if SYSCALL_THREADS.insert(thread, call, 0).is_err() {
        count(Counter::SyscallThreadsFull);
    }
}

/// A call returns.
#[inline(always)]
pub fn exit(ctx: &RawTracePointContext, walk: Walk) {
    let Some(call) = SYSCALL_THREADS.get_ptr_mut(thread()) else { return without_beginning(ctx) };
    // SAFETY: the pointer was checked by the lookup; only the thread itself writes its entry.
    let (start, key, tid) = unsafe { ((*call).start, (*call).key, (*call).tid) };
    if start == 0 {
        return without_beginning(ctx);
    }
    // SAFETY: as above.
    unsafe { (*call).start = 0 };
    let duration = now() - start;
    match row(key) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        Some(row) => unsafe { record(row, duration) },
        None => count_other(key.number, duration),
    }
    let result: i64 = ctx.arg::<u64>(1) as i64;
    if (-MAX_ERRNO..0).contains(&result) && traits(key.number).replaces != Replaces::Always as u8 {
        failed(&ErrorKey { call: key, errno: -result as u32 });
    }
    if SLOW_CALL.load() != 0 && duration >= SLOW_CALL.load() {
        slow(ctx, &Returned { key, tid, duration, result }, walk);
    }
}

/// A call returns whose beginning was not seen: it began before the measurement, or its thread is not watched, or it is a
/// child, which returns from a call of its parent's.
#[inline(never)]
fn without_beginning(ctx: &RawTracePointContext) {
    // A task outside the namespace is not watched; its calls are counted at their beginning.
    let Some(ids) = task::current_ids() else { return };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let number = registers::call_number(ctx.arg(0)).unwrap_or_default();
    let is_child = ctx.arg::<u64>(1) == 0 && !task::in_compat_call() && traits(number).forks != 0;
    if !is_child {
        count(Counter::SyscallBegunBefore);
    }
}

/// This CPU's part of a row, which is made where there is none.
#[inline(always)]
fn row(key: CallKey) -> Option<*mut Histogram> {
    match SYSCALL_ROWS.get_ptr_mut(key) {
        Some(row) => Some(row),
        None => new_row(key),
    }
}

/// Makes a row. The kernel keeps little memory at hand for that and fetches more a moment later, so there are spare rows.
#[inline(always)]
fn new_row(key: CallKey) -> Option<*mut Histogram> {
    let empty = SYSCALL_EMPTY.get_ptr(0)?;
    // SAFETY: the pointer was checked by the lookup.
    let empty = unsafe { &*empty };
    // Another CPU may have made it meanwhile: then it is there, which is all that counts.
    let _ = SYSCALL_ROWS.insert(key, empty, BPF_NOEXIST.into());
    if let Some(row) = SYSCALL_ROWS.get_ptr_mut(key) {
        return Some(row);
    }
    let _ = SYSCALL_SPARE_ROWS.insert(key, empty, BPF_NOEXIST.into());
    SYSCALL_SPARE_ROWS.get_ptr_mut(key)
}

/// Adds a duration to a histogram that only this CPU writes.
#[inline(always)]
unsafe fn record(row: *mut Histogram, duration: u64) {
    let index = bucket(duration) as usize;
    // SAFETY: the caller's pointer is valid; the index is bounded.
    unsafe {
        (*row).count += 1;
        (*row).sum += duration;
        if duration > (*row).max {
            (*row).max = duration;
        }
        if index < BUCKETS {
            *(&raw mut (*row).buckets).cast::<u64>().add(index) += 1;
        }
    }
}

/// Counts a call for which there is no row.
#[inline(always)]
fn count_other(number: u32, duration: u64) {
    count(Counter::SyscallOthers);
    if let Some(row) = SYSCALL_OTHERS.get_ptr_mut(u32::from(traits(number).blocking != 0)) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        unsafe { record(row, duration) }
    }
}

/// Counts an error.
#[inline(always)]
fn failed(key: &ErrorKey) {
    if SYSCALL_ERRORS.get_ptr(key).is_none() {
        // Another CPU may have made it meanwhile: then it is there.
        let _ = SYSCALL_ERRORS.insert(key, 0, BPF_NOEXIST.into());
    }
    match SYSCALL_ERRORS.get_ptr_mut(key) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        Some(errors) => unsafe { *errors += 1 },
        None => count(Counter::SyscallErrorsFull),
    }
}

/// A call that returned.
struct Returned {
    key: CallKey,
    tid: u32,
    duration: u64,
    result: i64,
}

/// Sends a slow call with the stack that made it.
#[inline(always)]
fn slow(ctx: &RawTracePointContext, call: &Returned, walk: Walk) {
    let taking = Taking {
        program: ProgramKind::Syscall,
        record: EventKind::SlowCall,
        weight: call.duration,
        copies: true,
        walk,
    };
    let ids = Ids { tgid: call.key.tgid, tid: call.tid };
    let Some(state) = stack::take(&taking, ctx.as_ptr(), ids, Hit::Kernel) else { return };
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
    unsafe {
        let more = describe(state, ctx.arg(0), call);
        emit::slow_call(state, more);
    }
}

/// Writes what is known of a call behind the state's frames, and returns how many bytes that is.
#[inline(always)]
unsafe fn describe(state: *mut State, registers: u64, call: &Returned) -> u64 {
    // SAFETY: the caller's pointer is valid.
    let (header, saved) = unsafe { ((*state).header, &raw const (*state).saved) };
    let frames = u64::from(header.kernel_frames) + u64::from(header.user_frames);
    if frames > (MAX_KERNEL_FRAMES + MAX_USER_FRAMES) as u64 {
        return 0;
    }
    let arguments = registers::call_arguments(registers, saved);
    let traits = traits(call.key.number);
    let is_replaced = traits.replaces == Replaces::Always as u8
        || traits.replaces == Replaces::OnSuccess as u8 && call.result == 0;
    let path = if is_replaced { 0 } else { usize::from(traits.path) };
    // SAFETY: `frames` was bounded above; FRAME_SLOTS leaves room for the description and the path.
    unsafe {
        let to = (&raw mut (*state).frames).cast::<u64>().add(frames as usize).cast::<SlowCall>();
        let mut path_len = 0;
        if let Some(address) = arguments.get(path.wrapping_sub(1)) {
            let text = to.add(1).cast::<c_void>();
            let read = bpf_probe_read_user_str(text, PATH_BYTES as u32, *address as *const c_void);
            // The zero at the end is counted. What cannot be read is no path.
            path_len = (read - 1).clamp(0, PATH_BYTES as i64 - 1) as u64;
        }
        *to = SlowCall {
            start: header.time.wrapping_sub(call.duration),
            result: call.result,
            arguments,
            number: call.key.number,
            path_len: path_len as u16,
            has_arguments: (!is_replaced).into(),
        };
        size_of::<SlowCall>() as u64 + path_len.next_multiple_of(8)
    }
}

/// A thread that is not its process's first has begun to run another program, and has taken over the id of the first.
#[inline(always)]
pub fn exec(old_thread: u32) {
    let thread = thread();
    if old_thread == thread {
        return;
    }
    let Some(call) = SYSCALL_THREADS.get_ptr(old_thread) else { return };
    // SAFETY: the pointer was checked by the lookup.
    let mut call = unsafe { *call };
    if let Some(ids) = task::current_ids() {
        call.tid = ids.tid;
    }
    let _ = SYSCALL_THREADS.remove(old_thread);
    if SYSCALL_THREADS.insert(thread, call, 0).is_err() {
        count(Counter::SyscallThreadsFull);
    }
}

/// A thread ends, in the middle of a call as a rule: exit, or one that it was killed in.
#[inline(always)]
pub fn thread_exit() {
    let thread = thread();
    let Some(call) = SYSCALL_THREADS.get_ptr(thread) else { return };
    // SAFETY: the pointer was checked by the lookup.
    let call = unsafe { *call };
    if call.start != 0 {
        unreturned(call.key, now() - call.start);
    }
    // It is there.
    let _ = SYSCALL_THREADS.remove(thread);
}

/// Counts a call that never returns.
#[inline(always)]
fn unreturned(key: CallKey, duration: u64) {
    if SYSCALL_UNRETURNED.get_ptr(key).is_none() {
        // Another CPU may have made it meanwhile: then it is there.
        let _ = SYSCALL_UNRETURNED.insert(key, Unreturned::default(), BPF_NOEXIST.into());
    }
    match SYSCALL_UNRETURNED.get_ptr_mut(key) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        Some(calls) => unsafe {
            (*calls).count += 1;
            (*calls).sum += duration;
        },
        None => count(Counter::SyscallUnreturnedFull),
    }
}
