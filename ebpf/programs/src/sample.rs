//! One stack sample: who, where in the kernel, where in the program.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::programs::PerfEventContext;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;

use crate::config::{SAMPLE_WEIGHT, SHARES};
use crate::emit::{self, count};
use crate::maps::{ProgramKind, SAMPLE_SHARES};
use crate::stack::{self, Taking, Walk};
use crate::{registers, scope, task};

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
    let Some(weight) = weight(ids.tgid) else { return count(Counter::LeftOut) };
    let taking =
        Taking { program: ProgramKind::Sample, record: EventKind::Sample, weight, walk, copies: true };
    if let Some(state) = stack::take(&taking, ctx.as_ptr(), ids, registers::hit(ctx)) {
        emit::stack(state);
    }
}

/// Time that this sample of a process stands for (ns); none: it is not taken. Which ones are is left to chance: every fifth
/// might always meet the program at the same place.
#[inline(always)]
fn weight(tgid: u32) -> Option<u64> {
    if SHARES.load() == 0 {
        return Some(SAMPLE_WEIGHT.load());
    }
    let Some(share) = SAMPLE_SHARES.get_ptr(tgid) else { return Some(SAMPLE_WEIGHT.load()) };
    // SAFETY: the pointer was checked by the lookup; the helper has no preconditions.
    unsafe {
        let taken = (*share).taken;
        (taken != 0 && bpf_get_prandom_u32() < taken).then_some((*share).weight)
    }
}
