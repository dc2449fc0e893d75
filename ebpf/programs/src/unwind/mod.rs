//! The user stack, walked by rows.
//!
//! Give it the start registers and a process's tables; get return addresses in the state's frames and the reason why
//! the walk ended. It reads stack memory in blocks, never writes any, and ends after `MAX_USER_FRAMES`.

mod copy;
mod memo;
mod probed;
mod step;
mod table;
mod window;

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::bpf_loop;
use descry_abi::counter::Counter;
use descry_abi::event::UnwindEnd;
use descry_abi::limits::MAX_USER_FRAMES;
use descry_abi::unwind::Process;

pub use copy::{ship_registers, ship_stack};
pub use table::Tables;

use crate::maps::{MEMOS, Memo, PROCESSES, State, WALK_STATES};
use crate::registers::Start;
use step::step;

/// Puts the start registers into the state.
#[inline(always)]
pub fn begin(state: *mut State, start: &Start) {
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
    unsafe {
        (*state).pc = start.pc;
        (*state).sp = start.sp;
        (*state).fp = start.fp;
        (*state).lr = start.lr;
        (*state).fp_at = 0;
        (*state).window_len = 0;
        (*state).exact = 1;
        (*state).mapping = 0;
        (*state).end = 0;
    }
}

/// Why the walk ended.
#[inline(always)]
pub fn ended(state: *const State) -> UnwindEnd {
    // SAFETY: as in `begin`.
    let end = unsafe { (*state).end };
    UnwindEnd::from_u16(end as u16).unwrap_or(UnwindEnd::TooDeep)
}

/// The counter of an end.
#[inline(always)]
pub fn counter(end: UnwindEnd) -> Counter {
    match end {
        UnwindEnd::Root => Counter::UnwindRoot,
        UnwindEnd::TooDeep => Counter::UnwindTooDeep,
        UnwindEnd::NoMapping => Counter::UnwindNoMapping,
        UnwindEnd::NotLoaded => Counter::UnwindNotLoaded,
        UnwindEnd::ComplexRule => Counter::UnwindComplexRule,
        UnwindEnd::ReadFailed => Counter::UnwindReadFailed,
        UnwindEnd::NoProgress => Counter::UnwindNoProgress,
        UnwindEnd::NoProcess => Counter::UnwindNoProcess,
        UnwindEnd::NoUserStack | UnwindEnd::NoRegisters => Counter::UserRegistersFailed,
    }
}

/// Whether userspace can finish the walk with a copy of the stack.
#[inline(always)]
pub fn needs_userspace(end: UnwindEnd) -> bool {
    matches!(end, UnwindEnd::NoMapping | UnwindEnd::NotLoaded | UnwindEnd::ComplexRule | UnwindEnd::NoProcess)
}

/// What a callback of `bpf_loop` gets.
struct LoopContext {
    state: *mut State,
    memo: *mut Memo,
    tables: Tables,
}

/// This CPU's remembered rows.
#[inline(always)]
fn memo() -> Option<*mut Memo> {
    // SAFETY: the helper has no preconditions.
    MEMOS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

/// Walks with `bpf_loop`, two frames a call. Kernel 5.17 and later.
#[inline(always)]
pub fn walk_by_loop(state: *mut State, tables: &Tables) {
    let Some(memo) = memo() else { return };
    let mut context = LoopContext { state, memo, tables: *tables };
    // SAFETY: the callback gets a pointer to this context, which outlives the call. One more than the frames, so
    // that the step beyond the limit says so.
    unsafe {
        bpf_loop(MAX_USER_FRAMES as u32 / 2 + 1, two_steps as *mut c_void, (&raw mut context).cast(), 0);
    }
}

/// The same for programs in which many ways lead to a walk: the verifier goes through a global function once, by itself, and
/// not again for each of them.
#[inline(always)]
pub fn walk_by_shared_loop(state: *mut State, _tables: &Tables) {
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
    let (tgid, program) = unsafe { ((*state).header.tgid, (*state).program) };
    walk_all(tgid, program);
}

/// Walks the walk of this kind of program; 1: there is none. It looks everything up again, as [`walk_some`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_all(tgid: u32, program: u32) -> u64 {
    let Some(state) = WALK_STATES.get_ptr_mut(program) else { return 1 };
    let Some(process) = PROCESSES.get_ptr(tgid) else { return 1 };
    // SAFETY: the pointer was checked by the lookup.
    walk_by_loop(state, &Tables::of(unsafe { *process }));
    0
}

#[inline(never)]
extern "C" fn two_steps(_index: u32, context: *mut LoopContext) -> i64 {
    // SAFETY: bpf_loop passes the context of `walk_by_loop`; the verifier tracks its pointers.
    unsafe {
        let (state, memo, tables) = ((*context).state, (*context).memo, (*context).tables);
        i64::from(!(step(state, memo, &tables) && step(state, memo, &tables)))
    }
}

/// Frames of one call of [`walk_some`].
const FRAMES_A_CALL: usize = 8;

/// Walks by a bounded loop of calls of a global function, which the verifier checks once by itself. Kernel 5.15 and
/// later.
#[inline(always)]
pub fn walk_by_calls(state: *mut State, _tables: &Tables) {
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
    let (tgid, program) = unsafe { ((*state).header.tgid, (*state).program) };
    for _ in 0..=MAX_USER_FRAMES / FRAMES_A_CALL {
        if walk_some(tgid, program) != 0 {
            break;
        }
    }
}

/// Walks some frames of the walk of this kind of program; 1: the walk ended. A global function takes no pointers to maps, so it looks
/// everything up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_some(tgid: u32, program: u32) -> u64 {
    let Some(state) = WALK_STATES.get_ptr_mut(program) else { return 1 };
    let Some(process) = PROCESSES.get_ptr(tgid) else { return 1 };
    let Some(memo) = memo() else { return 1 };
    // SAFETY: the pointer was checked by the lookup.
    let process: Process = unsafe { *process };
    let tables = Tables::of(process);
    for _ in 0..FRAMES_A_CALL {
        if !step(state, memo, &tables) {
            return 1;
        }
    }
    0
}
