//! System calls, counted: how long, how often, with which errors. Slow ones are sent with their stacks.
//!
//! Each call runs `enter` and `exit`, in the time of the program that is measured: both find what they need by an index
//! (`thread`, `rows`), and look into a hash only where two share an index.

mod rows;
mod thread;

use core::hint::cold_path;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user_str};
use aya_ebpf::programs::RawTracePointContext;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::exclusion::SYSCALLS;
use descry_abi::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use descry_abi::syscall::{
    COMPAT, CallKey, ErrorKey, MAX_ERRNO, PATH_BYTES, Replaces, SlowCall, SyscallTraits, TRAIT_SLOTS,
    ThreadCall, Unreturned,
};

use crate::config::SLOW_CALL;
use crate::emit::{self, count};
use crate::maps::{ProgramKind, SYSCALL_ERRORS, SYSCALL_TRAITS, SYSCALL_UNRETURNED, State};
use crate::registers::{self, Hit, Registers};
use crate::stack::{self, Taking, Walk};
use crate::task::{self, Ids, Running};
use crate::{exclusion, scope, unwind};

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
pub fn enter(registers: *const Registers, number: u32) {
    let call = match thread::current(registers as u64) {
        Some(call) => call,
        None => match thread::first_call(registers as u64) {
            Some(call) => call,
            None => return,
        },
    };
    // SAFETY: the pointer was checked by its lookup.
    let tgid = unsafe { (*call).key.tgid };
    if exclusion::has(tgid, SYSCALLS) {
        return count(Counter::SyscallsExcluded);
    }
    let is_compat = !registers::is_surely_native(registers) && Running::get().in_compat_call();
    let number = if is_compat { number | COMPAT } else { number };
    // What can be done before the clock is read is done here: it goes by the kernel's own way in, which reading the clock
    // waits for, while at the end of a call each instruction takes its time.
    // SAFETY: the pointer was checked by its lookup; only the thread itself writes its entry.
    unsafe {
        (*call).key.number = number;
        (*call).wanted_row = rows::wanted(CallKey { tgid, number });
        (*call).start = now();
    }
}

/// A call returns. `HAS_LOOP`: the kernel has `bpf_loop`.
#[inline(always)]
pub fn exit<const HAS_LOOP: bool>(ctx: &RawTracePointContext) {
    let Some(call) = thread::current(ctx.arg(0)) else {
        if !scope::is_surely_out(Running::get().process()) {
            without_beginning(ctx);
        }
        return;
    };
    // SAFETY: the pointer was checked by the lookup; only the thread itself writes its entry.
    let start = unsafe { (*call).start };
    if start == 0 {
        cold_path();
        // SAFETY: as above.
        if !exclusion::has(unsafe { (*call).key.tgid }, SYSCALLS) {
            without_beginning(ctx);
        }
        return;
    }
    // SAFETY: as above.
    unsafe { (*call).start = 0 };
    let duration = now() - start;
    rows::add(call, duration);
    let result: i64 = ctx.arg::<u64>(1) as i64;
    if (-MAX_ERRNO..0).contains(&result) {
        cold_path();
        failed(call, -result as u32);
    }
    if SLOW_CALL.load() != 0 && duration >= SLOW_CALL.load() {
        cold_path();
        slow::<HAS_LOOP>(ctx, call, duration);
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
    let is_child = ctx.arg::<u64>(1) == 0 && !Running::get().in_compat_call() && traits(number).forks != 0;
    if !is_child {
        count(Counter::SyscallBegunBefore);
    }
}

/// Counts an error, if the call is one that tells its result.
#[inline(never)]
fn failed(call: *const ThreadCall, errno: u32) {
    // SAFETY: the caller's pointer was checked by its lookup.
    let call = unsafe { (*call).key };
    if traits(call.number).replaces == Replaces::Always as u8 {
        return;
    }
    let key = &ErrorKey { call, errno };
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
#[inline(never)]
fn slow<const HAS_LOOP: bool>(ctx: &RawTracePointContext, call: *const ThreadCall, duration: u64) {
    // SAFETY: the caller's pointer was checked by its lookup; only the thread itself writes its entry.
    let (key, tid) = unsafe { ((*call).key, (*call).tid) };
    let call = &Returned { key, tid, duration, result: ctx.arg::<u64>(1) as i64 };
    let walk: Walk = if HAS_LOOP { unwind::walk_by_loop } else { unwind::walk_by_calls };
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
    let task = Running::get();
    if old_thread != task.thread() {
        thread::rename(task);
    }
}

/// A thread ends, in the middle of a call as a rule: exit, or one that it was killed in.
#[inline(always)]
pub fn thread_exit() {
    let Some(call) = thread::forget(Running::get()) else { return };
    if call.start != 0 {
        unreturned(call.key, now() - call.start);
    }
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
