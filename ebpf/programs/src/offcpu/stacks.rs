//! The stacks on which tasks wait: taken, sent once, and known by an id from then on.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_get_task_stack};
use aya_ebpf::programs::BtfTracePointContext;
use descry_abi::counter::Counter;
use descry_abi::event::{
    EventKind, SAMPLE_HAS_COPY, SAMPLE_IN_KERNEL, SAMPLE_KERNEL_THREAD, SampleHeader, UnwindEnd,
};
use descry_abi::limits::{COPY_PAUSE, FRAME_SLOTS, MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use descry_abi::offcpu::{FileKind, NO_STACK};

use crate::config::{FILE_KINDS, KERNEL_STACKS};
use crate::emit::{self, count};
use crate::maps::{COPY_STATES, PROCESSES, ProgramKind, STACKS_SENT, State, WALK_STATES};
use crate::registers::{self, Hit};
use crate::stack::{self, Taking, Walk};
use crate::task::{Ids, Task};
use crate::unwind;

/// Where a task waits.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// Id of its stack.
    pub stack: u64,
    /// The system call in flight; -1: none.
    pub syscall: i32,
    /// A [`FileKind`].
    pub file: u8,
}

impl Waiting {
    const UNKNOWN: Self = Self { stack: NO_STACK, syscall: NO_CALL.0, file: NO_CALL.1 };
}

const NO_CALL: (i32, u8) = (-1, FileKind::Unknown as u8);

/// Takes the stack of the running task, and sends it if it was not sent before.
#[inline(always)]
pub fn of_running(ctx: &BtfTracePointContext, ids: Ids, now: u64, walk: Walk) -> Waiting {
    let taking = Taking {
        program: ProgramKind::OffCpu,
        record: EventKind::Stack,
        weight: 0,
        walk,
        copies: may_copy(now),
    };
    let Some(state) = stack::take(&taking, ctx.as_ptr(), ids, Hit::Kernel) else { return Waiting::UNKNOWN };
    // SAFETY: `state` is this CPU's and this kind of program's own; the helper has no preconditions.
    let (copied, (syscall, file)) = unsafe {
        let header = &(*state).header;
        let end = UnwindEnd::from_u16(header.end);
        if !taking.copies && end.is_some_and(unwind::needs_userspace) {
            count(Counter::CopyTooSoon);
        }
        let has_registers = header.flags & SAMPLE_KERNEL_THREAD == 0 && end != Some(UnwindEnd::NoRegisters);
        let call = if has_registers { call(bpf_get_current_task_btf(), state) } else { NO_CALL };
        (header.flags & SAMPLE_HAS_COPY != 0, call)
    };
    let hash = stack_id();
    // What userspace finds out about a copied stack holds for this one only.
    let id = if copied { mix(hash, now) } else { hash };
    if !copied && STACKS_SENT.get_ptr(id).is_some() {
        return Waiting { stack: id, syscall, file };
    }
    // SAFETY: as above.
    unsafe { (*state).header.weight = id };
    if emit::wait_stack(state) && !copied {
        // Without room for the id the stack is sent again, which does no harm.
        let _ = STACKS_SENT.insert(id, 0, 0);
    }
    Waiting { stack: id, syscall, file }
}

/// The system call that a task is in, whose user registers are in the state, and the kind of file that it reads or writes.
#[inline(always)]
fn call(task: *mut task_struct, state: *mut State) -> (i32, u8) {
    // SAFETY: `state` is this CPU's and this kind of program's own.
    let saved = unsafe { &raw const (*state).saved };
    let syscall = registers::syscall_of(task, saved);
    if FILE_KINDS.load() == 0 || !is_of_any_file(syscall) {
        return (syscall, FileKind::Unknown as u8);
    }
    // SAFETY: as above.
    let descriptor = registers::first_argument(unsafe { &*saved }) as u32;
    let kind = Task(task as u64).file(descriptor).and_then(|file| file.kind());
    (syscall, kind.unwrap_or(FileKind::Unknown as u8))
}

/// Whether a call reads or writes any kind of file, which its first argument names (asm/unistd.h: read, write, readv, writev,
/// and those with a position).
#[inline(always)]
fn is_of_any_file(syscall: i32) -> bool {
    #[cfg(bpf_target_arch = "x86_64")]
    return matches!(syscall, 0 | 1 | 17..=20 | 295 | 296 | 327 | 328);
    #[cfg(bpf_target_arch = "aarch64")]
    return matches!(syscall, 63..=70 | 286 | 287);
}

/// Whether enough time has gone since this CPU's last copy.
#[inline(always)]
fn may_copy(now: u64) -> bool {
    match COPY_STATES.get_ptr(ProgramKind::OffCpu as u32) {
        // SAFETY: the pointer was checked by the lookup; the entry is this CPU's own.
        Some(copy) => now.wrapping_sub(unsafe { (*copy).header.time }) > COPY_PAUSE,
        None => false,
    }
}

/// One word into a hash.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// The id of the stack in this CPU's state: equal for equal frames of one process while its mappings are the same. A global
/// function: the verifier goes through the frames once, and not again for each way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stack_id() -> u64 {
    let Some(state) = WALK_STATES.get_ptr(ProgramKind::OffCpu as u32) else { return NO_STACK };
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup, and so is the process; the index is bounded.
    unsafe {
        let header = &(*state).header;
        let generation = PROCESSES.get_ptr(header.tgid).map_or(0, |process| (*process).generation);
        let frames = u64::from(header.kernel_frames) + u64::from(header.user_frames);
        let mut hash = mix(u64::from(header.tgid) << 32 | u64::from(generation), u64::from(header.end));
        hash = mix(hash, u64::from(header.kernel_frames));
        for index in 0..MAX_KERNEL_FRAMES + MAX_USER_FRAMES {
            if index as u64 >= frames {
                break;
            }
            hash = mix(hash, *(*state).frames.as_ptr().add(index & (FRAME_SLOTS - 1)));
        }
        // `NO_STACK` is taken.
        hash | 1
    }
}

/// Sends the stack of a blocked task: the kernel's frames, and registers from which userspace walks the rest.
#[inline(always)]
pub fn of_blocked(raw: *mut task_struct, task: Task, ids: Ids, now: u64) -> Waiting {
    let mut waits = Waiting::UNKNOWN;
    let Some(state) = WALK_STATES.get_ptr_mut(ProgramKind::Tasks as u32) else {
        count(Counter::NoState);
        return waits;
    };
    // SAFETY: `state` is this CPU's and this kind of program's own; the buffer holds FRAME_SLOTS words, more than are
    // asked for; the helpers have no other preconditions.
    unsafe {
        let bytes = if KERNEL_STACKS.load() != 0 {
            bpf_get_task_stack(raw, (&raw mut (*state).frames).cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0)
        } else {
            0
        };
        if bytes < 0 {
            count(Counter::KernelStackFailed);
        }
        let is_kernel_thread = task.is_kernel_thread();
        let id = mix(u64::from(ids.tid), now) | 1;
        (*state).header = SampleHeader {
            kind: EventKind::Stack as u16,
            flags: SAMPLE_IN_KERNEL | if is_kernel_thread { SAMPLE_KERNEL_THREAD } else { 0 },
            kernel_frames: (bytes.max(0) as u64 / 8).min(MAX_KERNEL_FRAMES as u64) as u16,
            user_frames: 0,
            time: now,
            tgid: ids.tgid,
            tid: ids.tid,
            cpu: 0,
            end: if is_kernel_thread { UnwindEnd::NoUserStack } else { UnwindEnd::NoRegisters } as u16,
            reserved: 0,
            cgroup: bpf_get_current_cgroup_id(),
            weight: id,
            unit: ids.tid.into(),
            request: 0,
            comm: task.comm(),
        };
        if !is_kernel_thread {
            if registers::saved_of(raw, &raw mut (*state).saved) {
                (waits.syscall, waits.file) = call(raw, state);
                if unwind::ship_registers(ProgramKind::Tasks, state) {
                    (*state).header.flags |= SAMPLE_HAS_COPY;
                }
            } else {
                count(Counter::UserRegistersFailed);
            }
        }
        if emit::wait_stack(state) {
            waits.stack = id;
        }
    }
    waits
}
