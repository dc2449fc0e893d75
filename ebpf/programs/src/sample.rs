//! One stack sample: who, where in the kernel, where in the program.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_stack, bpf_ktime_get_boot_ns};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_smp_processor_id};
use aya_ebpf::programs::PerfEventContext;
use descry_abi::counter::Counter;
use descry_abi::event::{
    EventKind, SAMPLE_HAS_COPY, SAMPLE_IN_KERNEL, SAMPLE_KERNEL_THREAD, SampleHeader, UnwindEnd,
};
use descry_abi::limits::MAX_KERNEL_FRAMES;

use crate::config::{KERNEL_STACKS, SAMPLE_WEIGHT};
use crate::emit::{self, count};
use crate::maps::{PROCESSES, SAMPLE_STATE, State};
use crate::registers::{self, Hit, Start};
use crate::task::{self, Task};
use crate::{scope, unwind};

/// How a user stack is walked; see `unwind`.
type Walk = fn(*mut State, &unwind::Tables);

/// Takes one sample of the running task, if it is watched.
#[inline(always)]
pub fn take(ctx: &PerfEventContext, walk: Walk) {
    let Some(ids) = task::current_ids() else { return count(Counter::PidNotVisible) };
    if ids.tid == 0 {
        return count(Counter::Idle);
    }
    if !scope::current_is_watched(ids.tgid) {
        return count(Counter::OutOfScope);
    }
    let Some(state) = SAMPLE_STATE.get_ptr_mut(0) else { return count(Counter::NoState) };

    let (mut flags, mut kernel_frames) = (0, 0);
    let start = match registers::hit(ctx) {
        Hit::User(start) => Some(start),
        Hit::Kernel => {
            flags |= SAMPLE_IN_KERNEL;
            if KERNEL_STACKS.load() != 0 {
                kernel_frames = kernel_stack(ctx, state);
            }
            if Task::current().is_kernel_thread() {
                flags |= SAMPLE_KERNEL_THREAD;
            }
            // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
            registers::saved_start(unsafe { &raw mut (*state).saved })
        }
    };
    // SAFETY: the helpers have no preconditions; `state` is this CPU's own, and samples do not nest.
    let header = unsafe {
        SampleHeader {
            kind: EventKind::Sample as u16,
            flags,
            kernel_frames,
            user_frames: 0,
            time: bpf_ktime_get_boot_ns(),
            tgid: ids.tgid,
            tid: ids.tid,
            cpu: bpf_get_smp_processor_id(),
            end: 0,
            reserved: 0,
            cgroup: bpf_get_current_cgroup_id(),
            weight: SAMPLE_WEIGHT.load(),
            unit: ids.tid.into(),
            request: 0,
            comm: bpf_get_current_comm().unwrap_or_default(),
        }
    };
    // SAFETY: as above.
    unsafe { (*state).header = header };
    let end = if flags & SAMPLE_KERNEL_THREAD != 0 {
        UnwindEnd::NoUserStack
    } else {
        user_stack(state, start, walk)
    };
    // SAFETY: as above.
    unsafe {
        (*state).header.end = end as u16;
        let frames = u64::from((*state).header.kernel_frames) + u64::from((*state).header.user_frames);
        emit::sample(state, frames);
    }
}

/// Writes the kernel's frames to the front of the state's and returns how many.
#[inline(always)]
fn kernel_stack(ctx: &PerfEventContext, state: *mut State) -> u16 {
    // SAFETY: the buffer holds FRAME_SLOTS words, more than are asked for.
    let bytes = unsafe {
        bpf_get_stack(ctx.as_ptr(), (&raw mut (*state).frames).cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0)
    };
    if bytes < 0 {
        count(Counter::KernelStackFailed);
        return 0;
    }
    (bytes as u64 / 8).min(MAX_KERNEL_FRAMES as u64) as u16
}

/// Walks the user stack from `start`, ships a copy where userspace must finish it, and says how the walk ended.
#[inline(always)]
fn user_stack(state: *mut State, start: Option<Start>, walk: Walk) -> UnwindEnd {
    let Some(start) = start else {
        count(Counter::UserRegistersFailed);
        return UnwindEnd::NoRegisters;
    };
    // SAFETY: `state` is this CPU's own.
    let tgid = unsafe { (*state).header.tgid };
    let end = match PROCESSES.get_ptr(tgid) {
        None => UnwindEnd::NoProcess,
        Some(process) => {
            // SAFETY: the pointer was checked by the lookup.
            let process = unsafe { *process };
            unwind::begin(state, &start);
            walk(state, &unwind::Tables::of(process));
            unwind::ended(state)
        }
    };
    count(unwind::counter(end));
    if unwind::needs_userspace(end) && unwind::ship_stack(state) {
        // SAFETY: as above.
        unsafe { (*state).header.flags |= SAMPLE_HAS_COPY };
    }
    end
}
