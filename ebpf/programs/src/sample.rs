//! One stack sample: who, where in the kernel, where in the program.

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::PerfEventContext;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;

use crate::config::SAMPLE_WEIGHT;
use crate::emit::{self, count};
use crate::maps::ProgramKind;
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
    let taking = Taking {
        program: ProgramKind::Sample,
        record: EventKind::Sample,
        weight: SAMPLE_WEIGHT.load(),
        walk,
        copies: true,
    };
    if let Some(state) = stack::take(&taking, ctx.as_ptr(), ids, registers::hit(ctx)) {
        emit::stack(state);
    }
}
