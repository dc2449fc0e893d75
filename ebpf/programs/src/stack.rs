//! The stack of the running task: its kernel frames, then its user frames; what only userspace can walk is shipped.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_stack, bpf_ktime_get_boot_ns};
use descry_abi::counter::Counter;
use descry_abi::event::{
    EventKind, SAMPLE_HAS_COPY, SAMPLE_IN_KERNEL, SAMPLE_KERNEL_THREAD, SampleHeader, UnwindEnd,
};
use descry_abi::limits::MAX_KERNEL_FRAMES;

use crate::config::{KERNEL_STACKS, REQUESTS};
use crate::emit::count;
use crate::maps::{PROCESSES, ProgramKind, State, WALK_STATES};
use crate::net::request;
use crate::registers::{self, Hit, Start};
use crate::task::{Ids, Running, Task};
use crate::{unit, unwind};

/// How a user stack is walked; see `unwind`.
pub type Walk = fn(*mut State, &unwind::Tables);

/// What a stack is taken for.
pub struct Taking {
    /// The kind of program, which has a state of its own.
    pub program: ProgramKind,
    /// The kind of record.
    pub record: EventKind,
    /// Time that it stands for (ns).
    pub weight: u64,
    /// How user stacks are walked.
    pub walk: Walk,
    /// Whether a stack that only userspace can walk is shipped.
    pub copies: bool,
}

/// Takes the stack of the running task into the state of this kind of program: header and frames are ready to be sent.
/// `ctx` is the program's context.
#[inline(always)]
pub fn take(taking: &Taking, ctx: *mut c_void, ids: Ids, hit: Hit) -> Option<*mut State> {
    let Some(state) = WALK_STATES.get_ptr_mut(taking.program as u32) else {
        count(Counter::NoState);
        return None;
    };
    let task = Task::current();
    let (mut flags, mut kernel_frames) = (0, 0);
    let start = match hit {
        Hit::User(start) => Some(start),
        Hit::Kernel => {
            flags |= SAMPLE_IN_KERNEL;
            if KERNEL_STACKS.load() != 0 {
                kernel_frames = kernel(ctx, state);
            }
            if task.is_kernel_thread() {
                flags |= SAMPLE_KERNEL_THREAD;
            }
            // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
            registers::saved_start(unsafe { &raw mut (*state).saved })
        }
    };
    let (mut unit, mut request) = (ids.tid.into(), 0);
    if REQUESTS.load() != 0 {
        let current = unit::current(ids.tgid);
        (unit, request) = (current.number(ids), request::of_unit(&current));
    }
    // SAFETY: the helpers have no preconditions; `state` is this CPU's and this kind of program's own.
    unsafe {
        (*state).program = taking.program as u32;
        (*state).header = SampleHeader {
            kind: taking.record as u16,
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
            weight: taking.weight,
            unit,
            request,
            comm: Running::get().comm(),
        };
    }
    let end =
        if flags & SAMPLE_KERNEL_THREAD != 0 { UnwindEnd::NoUserStack } else { user(taking, state, start) };
    // SAFETY: as above.
    unsafe { (*state).header.end = end as u16 };
    Some(state)
}

/// Writes the kernel's frames to the front of the state's and returns how many.
#[inline(always)]
fn kernel(ctx: *mut c_void, state: *mut State) -> u16 {
    // SAFETY: the buffer holds FRAME_SLOTS words, more than are asked for.
    let bytes =
        unsafe { bpf_get_stack(ctx, (&raw mut (*state).frames).cast(), (MAX_KERNEL_FRAMES * 8) as u32, 0) };
    if bytes < 0 {
        count(Counter::KernelStackFailed);
        return 0;
    }
    (bytes as u64 / 8).min(MAX_KERNEL_FRAMES as u64) as u16
}

/// Walks the user stack from `start`, ships a copy where userspace must finish it, and says how the walk ended.
#[inline(always)]
fn user(taking: &Taking, state: *mut State, start: Option<Start>) -> UnwindEnd {
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
            (taking.walk)(state, &unwind::Tables::of(process));
            unwind::ended(state)
        }
    };
    count(unwind::counter(end));
    if taking.copies && unwind::needs_userspace(end) && unwind::ship_stack(taking.program, state) {
        // SAFETY: as above.
        unsafe { (*state).header.flags |= SAMPLE_HAS_COPY };
    }
    end
}
