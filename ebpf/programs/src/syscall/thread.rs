//! The call that each thread is in.
//!
//! A thread is in one call at a time, so its beginning is kept by the thread's id; an entry is made once and written in
//! place from then on, whichever CPU the thread moves to. It also says that the thread is watched, so the scope is asked once
//! a thread. The thread's id is the kernel's own: it needs no translation.
//!
//! An entry lies at the low bits of its id. Where another thread was there first, it lies in a hash.

use descry_abi::counter::Counter;
use descry_abi::limits::NEAR_SYSCALL_THREADS;
use descry_abi::syscall::{CallKey, ThreadCall};

use crate::atomic;
use crate::emit::count;
use crate::maps::{SYSCALL_NEAR_THREADS, SYSCALL_THREADS};
use crate::scope;
use crate::task::{self, Running};

/// The near entry of a thread's index, which may be another's.
#[inline(always)]
fn near(thread: u32) -> Option<*mut ThreadCall> {
    let entry = SYSCALL_NEAR_THREADS.get_ptr_mut(thread & (NEAR_SYSCALL_THREADS - 1))?;
    // SAFETY: the pointer was checked by the lookup.
    Some(unsafe { &raw mut (*entry).call })
}

#[inline(always)]
fn near_of(thread: u32) -> Option<*mut ThreadCall> {
    // SAFETY: the pointer was checked by the lookup; a word is read at once.
    near(thread).filter(|call| unsafe { (**call).thread } == thread)
}

/// The two ids of an entry as one word, the kernel's own in its high half (BPF is little-endian here).
#[inline(always)]
fn owner(entry: *mut ThreadCall) -> *mut u64 {
    const { assert!(core::mem::offset_of!(ThreadCall, thread) == core::mem::offset_of!(ThreadCall, tid) + 4) }
    // SAFETY: the caller's pointer is valid, and the two members are neighbours.
    unsafe { (&raw mut (*entry).tid).cast() }
}

/// The entry of the running thread, if it has one.
#[inline(always)]
pub fn current(task: Running) -> Option<*mut ThreadCall> {
    let thread = task.thread();
    match near_of(thread) {
        Some(call) => Some(call),
        None if scope::is_surely_out(task.process()) => None,
        None => SYSCALL_THREADS.get_ptr_mut(thread),
    }
}

/// Makes the entry of a thread that has none; none: it is not watched, or there was no room.
#[inline(always)]
pub fn first_call(task: Running) -> Option<*mut ThreadCall> {
    if scope::is_surely_out(task.process()) {
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
    put(ThreadCall { start: 0, key, tid: ids.tid, thread: task.thread() })
}

/// Puts an entry where its thread finds it; none: there was no room.
#[inline(always)]
fn put(call: ThreadCall) -> Option<*mut ThreadCall> {
    if let Some(entry) = near(call.thread) {
        // SAFETY: the pointer was checked by the lookup; whoever writes the ids owns the entry.
        unsafe {
            let ids = u64::from(call.thread) << 32 | u64::from(call.tid);
            if atomic::put_if_zero(owner(entry), ids) == 0 {
                (*entry).start = call.start;
                (*entry).key = call.key;
                return Some(entry);
            }
        }
    }
    if SYSCALL_THREADS.insert(call.thread, call, 0).is_err() {
        count(Counter::SyscallThreadsFull);
        return None;
    }
    SYSCALL_THREADS.get_ptr_mut(call.thread)
}

/// Takes away the entry of a thread.
#[inline(always)]
fn remove(thread: u32) -> Option<ThreadCall> {
    if let Some(entry) = near_of(thread) {
        // SAFETY: the pointer was checked by the lookup; the ids go last, since the entry is another's after that.
        unsafe {
            let call = *entry;
            (*entry).start = 0;
            owner(entry).write_volatile(0);
            return Some(call);
        }
    }
    // SAFETY: the pointer was checked by the lookup.
    let call = unsafe { *SYSCALL_THREADS.get_ptr(thread)? };
    // It is there.
    let _ = SYSCALL_THREADS.remove(thread);
    Some(call)
}

/// Forgets the running thread, which ends, and tells the call that it was in.
#[inline(always)]
pub fn forget(task: Running) -> Option<ThreadCall> {
    if scope::is_surely_out(task.process()) {
        return None;
    }
    remove(task.thread())
}

/// The running thread has taken over the id of another, and keeps its call.
#[inline(always)]
pub fn rename(old_thread: u32, task: Running) {
    let Some(mut call) = remove(old_thread) else { return };
    if let Some(ids) = task::current_ids() {
        call.tid = ids.tid;
    }
    call.thread = task.thread();
    put(call);
}
