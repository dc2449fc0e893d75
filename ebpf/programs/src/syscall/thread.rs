//! The call that each thread is in.
//!
//! A thread is in one call at a time, so its beginning is kept by the thread; an entry is made once and written in place
//! from then on, whichever CPU the thread moves to. It also says that the thread is watched, so the scope is asked once a
//! thread. A thread is known by where the kernel saves its user registers: at the end of its kernel stack, which is its own
//! while it lives. Both tracepoints hand that address over, so no helper need be called to know who runs.
//!
//! An entry lies where that address says. Where another thread was there first, it lies in a hash.

use core::arch::asm;

use descry_abi::counter::Counter;
use descry_abi::syscall::{CallKey, ThreadCall, near_thread};

use crate::atomic;
use crate::emit::count;
use crate::maps::{SYSCALL_NEAR_THREADS, SYSCALL_THREADS};
use crate::scope;
use crate::task::{self, Running};

/// The low half of an address as a number to reckon with, whatever else the verifier knows the address to be.
#[inline(always)]
fn low_half(registers: u64) -> u32 {
    let half: u32;
    // SAFETY: the instruction changes nothing else.
    unsafe {
        asm!("{half} = {low}", half = out(wreg) half, low = in(wreg) registers as u32, options(pure, nomem, nostack));
    }
    half
}

/// The near entry for these registers, which may be another thread's.
#[inline(always)]
fn near(registers: u64) -> Option<*mut ThreadCall> {
    let entry = SYSCALL_NEAR_THREADS.get_ptr_mut(near_thread(low_half(registers)))?;
    // SAFETY: the pointer was checked by the lookup.
    Some(unsafe { &raw mut (*entry).call })
}

#[inline(always)]
fn near_of(registers: u64) -> Option<*mut ThreadCall> {
    // SAFETY: the pointer was checked by the lookup; a word is read at once.
    near(registers).filter(|call| unsafe { (**call).registers } == registers)
}

/// The entry of the running thread, whose registers are saved there, if it has one.
#[inline(always)]
pub fn current(registers: u64) -> Option<*mut ThreadCall> {
    match near_of(registers) {
        Some(call) => Some(call),
        None if scope::is_surely_out(Running::get().process()) => None,
        None => SYSCALL_THREADS.get_ptr_mut(registers),
    }
}

/// Makes the entry of a thread that has none; none: it is not watched, or there was no room.
#[inline(never)]
pub fn first_call(registers: u64) -> Option<*mut ThreadCall> {
    if scope::is_surely_out(Running::get().process()) {
        return None;
    }
    let Some(ids) = task::current_ids() else {
        count(Counter::PidNotVisible);
        return None;
    };
    if !scope::current_is_watched(ids.tgid) {
        return None;
    }
    let key = CallKey { tgid: ids.tgid, number: 0 };
    if let Some(entry) = near(registers) {
        // SAFETY: the pointer was checked by the lookup; whoever writes the address owns the entry.
        unsafe {
            if atomic::put_if_zero(&raw mut (*entry).registers, registers) == 0 {
                (*entry).start = 0;
                (*entry).key = key;
                (*entry).tid = ids.tid;
                return Some(entry);
            }
        }
    }
    let call = ThreadCall { start: 0, key, registers, tid: ids.tid, wanted_row: 0 };
    if SYSCALL_THREADS.insert(registers, call, 0).is_err() {
        count(Counter::SyscallThreadsFull);
        return None;
    }
    SYSCALL_THREADS.get_ptr_mut(registers)
}

/// Forgets the running thread, which ends, and tells the call that it was in. The scope is not asked: its stack will be
/// another's, which must not find the entry of a process that has left the scope meanwhile.
#[inline(always)]
pub fn forget(task: Running) -> Option<ThreadCall> {
    let registers = task.registers_at();
    if let Some(entry) = near_of(registers) {
        // SAFETY: the pointer was checked by the lookup; the address goes last, since the entry is another's after that.
        unsafe {
            let call = *entry;
            (*entry).start = 0;
            (*entry).tid = 0;
            (&raw mut (*entry).registers).write_volatile(0);
            return Some(call);
        }
    }
    // SAFETY: the pointer was checked by the lookup.
    let call = unsafe { *SYSCALL_THREADS.get_ptr(registers)? };
    // It is there.
    let _ = SYSCALL_THREADS.remove(registers);
    Some(call)
}

/// The running thread has taken over the id of another.
#[inline(always)]
pub fn rename(task: Running) {
    let Some(call) = current(task.registers_at()) else { return };
    let Some(ids) = task.ids() else { return };
    // SAFETY: the pointer was checked by its lookup; only the thread itself writes its entry.
    unsafe { (*call).tid = ids.tid }
}
