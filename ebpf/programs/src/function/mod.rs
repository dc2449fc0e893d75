//! Calls of traced functions: from the probe at a function's entry to the one where it returns.
//!
//! Each thread (of Go: each goroutine) has a stack of the calls that have begun. Nothing tells that a call was left by
//! longjmp, an exception or a jump into another function, so the stack pointer does, which grows downwards:
//!
//! ```text
//! a call has begun at sp:  every open call with a smaller sp is gone; one with the same sp too, unless it jumped here
//! a call returns at sp:    every open call with a smaller sp is gone; the last one with the same sp and function is it
//! ```

mod arguments;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_probe_read_user};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::function::{
    COOKIE_ARGUMENTS, COOKIE_GO, CallerKey, Cookie, FunctionCall, FunctionKey, FunctionTotals,
    MAX_OPEN_CALLS, OpenCall, OpenCalls,
};

use crate::atomic::add;
use crate::config::{FUNCTION_EVENT_INTERVAL, REQUESTS};
use crate::emit::{self, count};
use crate::maps::{FUNCTION_RATE, FUNCTION_TOTALS, FUNCTION_ZEROS, OPEN_CALLS};
use crate::net::request;
use crate::registers::{self, Registers};
use crate::scope;
use crate::task::{self, Ids, Task};
use crate::total::record;
use crate::unit::current as current_unit;

/// How far events may run ahead of their rate (ns): a tenth of a second's worth comes at once.
const BURST: u64 = 100_000_000;
/// `g.stack.hi` of Go's runtime: the second word (runtime/runtime2.go, "offset known to runtime/cgo").
const G_STACK_HI: u64 = 8;

/// Who calls, and where its stack is.
struct Caller {
    key: CallerKey,
    sp: u64,
}

/// A function is entered.
#[inline(always)]
pub fn enter(ctx: &ProbeContext) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let cookie = cookie(ctx.as_ptr());
    let registers = registers(ctx);
    let sp = registers::stack_pointer(registers);
    let Some(caller) = caller(cookie, registers, sp) else { return count(Counter::GoroutineFailed) };
    let Some(calls) = open_calls(&caller.key, ids.tgid) else { return count(Counter::FunctionCallersFull) };
    // SAFETY: the pointer was checked by the lookup; only this thread (or the one that runs the goroutine) uses the entry.
    let calls = unsafe { &mut *calls };
    let mut depth = calls.depth as usize;
    for _ in 0..MAX_OPEN_CALLS {
        let Some(last) = last(calls, depth) else { break };
        let is_around = last.sp > caller.sp;
        if is_around || last.sp == caller.sp && !cookie.has(COOKIE_GO) && is_tail_call(registers, sp) {
            break;
        }
        abandon(last.function, calls.tgid);
        depth -= 1;
    }
    calls.depth = depth as u32;
    if depth >= MAX_OPEN_CALLS {
        if let Some(totals) = totals(cookie.function(), calls.tgid) {
            // SAFETY: the pointer was checked by the lookup.
            unsafe { add(&raw mut (*totals).too_deep, 1) };
        }
        return;
    }
    let start = now();
    let sent = has_room(start);
    calls.calls[depth % MAX_OPEN_CALLS] =
        OpenCall { sp: caller.sp, start, function: cookie.function(), sent: sent.into() };
    calls.depth = depth as u32 + 1;
    if sent && cookie.has(COOKIE_ARGUMENTS) {
        arguments::send(cookie.function(), start, ids, unit(cookie, caller.key, ids));
    }
}

/// A function has returned to its caller, through the kernel's return probe.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) {
    // SAFETY: the kernel passes a valid context.
    let registers = unsafe { &*ctx.as_ptr().cast::<Registers>() };
    // The return took the address from the stack, where there is one.
    close(
        cookie(ctx.as_ptr()),
        registers,
        registers::stack_pointer(registers) - registers::RETURN_ADDRESS_BYTES,
    );
}

/// A function is about to return, or to jump into another one: a probe at the very instruction.
#[inline(always)]
pub fn exit(ctx: &ProbeContext) {
    let registers = registers(ctx);
    close(cookie(ctx.as_ptr()), registers, registers::stack_pointer(registers));
}

/// A place in the code is passed (USDT).
#[inline(always)]
pub fn pass(ctx: &ProbeContext) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if !scope::current_is_watched(ids.tgid) {
        return;
    }
    let cookie = cookie(ctx.as_ptr());
    let time = now();
    let Some(totals) = totals(cookie.function(), ids.tgid) else { return };
    // SAFETY: the pointer was checked by the lookup.
    unsafe { add(&raw mut (*totals).durations.count, 1) };
    let sent = has_room(time);
    let unit = ids.tid.into();
    if sent && cookie.has(COOKIE_ARGUMENTS) {
        arguments::send(cookie.function(), time, ids, unit);
    }
    // Without calls around it there is no entry.
    let around = match OPEN_CALLS.get_ptr(thread()) {
        // SAFETY: as in `enter`.
        Some(calls) => unsafe { Around::of(&*calls, (*calls).depth as usize, time) },
        None => Around { depth: 0, parent: 0, root: time },
    };
    let call = OpenCall { sp: 0, start: time, function: cookie.function(), sent: sent.into() };
    emit(totals, &call, time, &around, ids, unit);
}

/// The running thread ends: what it had begun will not return.
#[inline(always)]
pub fn forget_current() {
    forget(thread());
}

/// The running thread, which had this id (in the initial pid namespace) before, goes on as another program.
#[inline(always)]
pub fn forget_thread(tid: u64) {
    forget(CallerKey { unit: tid, ..thread() });
}

#[inline(always)]
fn forget(key: CallerKey) {
    let Some(calls) = OPEN_CALLS.get_ptr(key) else { return };
    // SAFETY: the pointer was checked by the lookup; the thread that used the entry runs here.
    let calls = unsafe { &*calls };
    let mut depth = calls.depth as usize;
    for _ in 0..MAX_OPEN_CALLS {
        let Some(last) = last(calls, depth) else { break };
        abandon(last.function, calls.tgid);
        depth -= 1;
    }
    // It was there just now.
    let _ = OPEN_CALLS.remove(key);
}

/// What a call lies in.
struct Around {
    depth: u32,
    parent: u64,
    root: u64,
}

impl Around {
    /// Of a call with `depth` others around it, that began at `start`.
    #[inline(always)]
    fn of(calls: &OpenCalls, depth: usize, start: u64) -> Self {
        match last(calls, depth) {
            Some(parent) => Self { depth: depth as u32, parent: parent.start, root: calls.calls[0].start },
            None => Self { depth: 0, parent: 0, root: start },
        }
    }
}

/// Ends the call of this function that began at this stack pointer.
#[inline(always)]
fn close(cookie: Cookie, registers: &Registers, sp: u64) {
    let end = now();
    let Some(caller) = caller(cookie, registers, sp) else { return count(Counter::GoroutineFailed) };
    // Not in scope, or made by fork in the middle of a call, which counts where it began.
    let Some(calls) = OPEN_CALLS.get_ptr_mut(caller.key) else { return };
    // SAFETY: as in `enter`.
    let calls = unsafe { &mut *calls };
    let mut depth = calls.depth as usize;
    let mut found = None;
    for _ in 0..MAX_OPEN_CALLS {
        let Some(last) = last(calls, depth) else { break };
        if last.sp > caller.sp {
            break;
        }
        depth -= 1;
        if last.sp == caller.sp && last.function == cookie.function() {
            found = Some(last);
            break;
        }
        abandon(last.function, calls.tgid);
    }
    calls.depth = depth as u32;
    match found {
        Some(call) => closed(cookie, caller.key, calls, depth, &call, end),
        None => count(Counter::FunctionReturnUnmatched),
    }
    if depth == 0 && cookie.has(COOKIE_GO) {
        // There may be any number of goroutines, and nothing tells when one ends. It was there just now.
        let _ = OPEN_CALLS.remove(caller.key);
    }
}

/// Counts a call that returned, and sends it.
#[inline(always)]
fn closed(cookie: Cookie, key: CallerKey, calls: &OpenCalls, depth: usize, call: &OpenCall, end: u64) {
    let Some(totals) = totals(call.function, calls.tgid) else { return };
    let duration = end.saturating_sub(call.start);
    // SAFETY: the pointer was checked by the lookup.
    unsafe { record(&raw mut (*totals).durations, duration) };
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    let around = Around::of(calls, depth, call.start);
    emit(totals, call, end, &around, ids, unit(cookie, key, ids));
}

/// Sends a call.
#[inline(always)]
fn emit(totals: *mut FunctionTotals, call: &OpenCall, end: u64, around: &Around, ids: Ids, unit: u64) {
    if call.sent == 0 {
        if FUNCTION_EVENT_INTERVAL.load() != 0 {
            // SAFETY: the caller checked the pointer.
            unsafe { add(&raw mut (*totals).limited, 1) };
        }
        return;
    }
    let request = if REQUESTS.load() != 0 { request::of_unit(&current_unit(ids.tgid)) } else { 0 };
    let record = FunctionCall {
        kind: EventKind::FunctionCall as u16,
        depth: around.depth as u16,
        function: call.function,
        start: call.start,
        end,
        parent: around.parent,
        root: around.root,
        tgid: ids.tgid,
        tid: ids.tid,
        unit,
        request,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    if !emit::function_call(&record) {
        // SAFETY: as above.
        unsafe { add(&raw mut (*totals).ring_full, 1) };
    }
}

/// The unit that records name.
#[inline(always)]
fn unit(cookie: Cookie, key: CallerKey, ids: Ids) -> u64 {
    if cookie.has(COOKIE_GO) { key.unit } else { ids.tid.into() }
}

#[inline(always)]
fn last(calls: &OpenCalls, depth: usize) -> Option<OpenCall> {
    if depth == 0 { None } else { Some(calls.calls[(depth - 1) % MAX_OPEN_CALLS]) }
}

/// Counts a call that did not return.
#[inline(always)]
fn abandon(function: u32, tgid: u32) {
    if let Some(totals) = totals(function, tgid) {
        // SAFETY: the pointer was checked by the lookup.
        unsafe { add(&raw mut (*totals).unfinished, 1) };
    }
}

/// Whether the call that begins at this stack pointer was jumped to from one that began there: the kernel has then
/// already put its own address in the place of the return address.
#[inline(always)]
fn is_tail_call(registers: &Registers, sp: u64) -> bool {
    let hijacked = Task::current().return_trampoline();
    hijacked != 0 && registers::return_address(registers, sp) == hijacked
}

/// The running thread, as a caller.
#[inline(always)]
fn thread() -> CallerKey {
    let both = bpf_get_current_pid_tgid();
    CallerKey { unit: both & 0xffff_ffff, tgid: (both >> 32) as u32, reserved: 0 }
}

#[inline(always)]
fn caller(cookie: Cookie, registers: &Registers, sp: u64) -> Option<Caller> {
    let mut key = thread();
    if !cookie.has(COOKIE_GO) {
        return Some(Caller { key, sp });
    }
    key.unit = registers::goroutine(registers);
    Some(Caller { key, sp: below_stack_end(registers, sp)? })
}

/// How far below the upper end of the running goroutine's stack this is (wrapping): the same when the stack moves.
#[inline(always)]
pub fn below_stack_end(registers: &Registers, sp: u64) -> Option<u64> {
    let at = registers::goroutine(registers).wrapping_add(G_STACK_HI);
    // SAFETY: bpf_probe_read_user checks the address.
    let high = unsafe { bpf_probe_read_user(at as *const u64) }.ok()?;
    Some(sp.wrapping_sub(high))
}

/// The caller's open calls, made when it makes its first.
#[inline(always)]
fn open_calls(key: &CallerKey, tgid: u32) -> Option<*mut OpenCalls> {
    if let Some(calls) = OPEN_CALLS.get_ptr_mut(key) {
        return Some(calls);
    }
    let zeros = FUNCTION_ZEROS.get_ptr(0)?;
    // SAFETY: the pointer was checked by the lookup; nobody writes there.
    OPEN_CALLS.insert(key, unsafe { &(*zeros).calls }, BPF_NOEXIST.into()).ok()?;
    let calls = OPEN_CALLS.get_ptr_mut(key)?;
    // SAFETY: the pointer was checked by the lookup.
    unsafe { (*calls).tgid = tgid };
    Some(calls)
}

/// This CPU's totals of a function, made when it is first called.
#[inline(always)]
fn totals(function: u32, tgid: u32) -> Option<*mut FunctionTotals> {
    let key = FunctionKey { function, tgid };
    if let Some(totals) = FUNCTION_TOTALS.get_ptr_mut(key) {
        return Some(totals);
    }
    if let Some(zeros) = FUNCTION_ZEROS.get_ptr(0) {
        // Another CPU may be first; then it is there all the same.
        // SAFETY: as in `open_calls`.
        let _ = FUNCTION_TOTALS.insert(key, unsafe { &(*zeros).totals }, BPF_NOEXIST.into());
    }
    let totals = FUNCTION_TOTALS.get_ptr_mut(key);
    if totals.is_none() {
        count(Counter::FunctionsFull);
    }
    totals
}

/// Whether an event more is within the rate. `FUNCTION_RATE` is when the last one would have been due had they come evenly.
/// Two CPUs at once may both take the same room, which costs no more than an event too many.
#[inline(always)]
fn has_room(now: u64) -> bool {
    let interval = FUNCTION_EVENT_INTERVAL.load();
    if interval == 0 {
        return false;
    }
    let Some(due) = FUNCTION_RATE.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer was checked by the lookup.
    unsafe {
        if *due > now + BURST {
            return false;
        }
        *due = now.max(*due) + interval;
    }
    true
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// What the probe carries.
#[inline(always)]
pub fn cookie(ctx: *mut c_void) -> Cookie {
    // SAFETY: the context is the program's own.
    Cookie(unsafe { bpf_get_attach_cookie(ctx) })
}

/// The registers at the probe.
#[inline(always)]
pub fn registers(ctx: &ProbeContext) -> &Registers {
    // SAFETY: the kernel passes a valid context.
    unsafe { &*ctx.as_ptr().cast::<Registers>() }
}
