//! One frame up.
//!
//! ```text
//! CFA        by the row's rule from sp or fp
//! return     *(CFA - 8)            x86_64
//!            *(saved fp + 8) or lr aarch64
//! caller sp  CFA
//! caller fp  *(CFA + 8 * fp_words), *(fp + 8 * fp_words), or unchanged
//! ```

use descry_abi::event::UnwindEnd;
use descry_abi::limits::{FRAME_SLOTS, MAX_USER_FRAMES};
use descry_abi::unwind::{CfaKind, FAR, FpKind, Row};

use super::probed::probed_return;
use super::table::Tables;
use super::{memo, window};
use crate::maps::{Memo, State};
use crate::registers::SIGNAL_FRAME;

const NONE: u8 = CfaKind::None as u8;
const SP: u8 = CfaKind::Sp as u8;
const FP: u8 = CfaKind::Fp as u8;
const PLT: u8 = CfaKind::Plt as u8;
const SIGNAL: u8 = CfaKind::Signal as u8;
const END: u8 = CfaKind::End as u8;
const SP_DEREF: u8 = CfaKind::SpDeref as u8;
const SP_FAR: u8 = CfaKind::SpFar as u8;
const FP_DEREF: u8 = CfaKind::FpDeref as u8;

/// Records the frame at the state's pc and moves to its caller; false: the walk ended, and the state says why.
#[inline(always)]
pub fn step(state: *mut State, memo: *mut Memo, tables: &Tables) -> bool {
    match try_step(state, memo, tables) {
        Ok(()) => true,
        Err(end) => {
            // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
            unsafe { (*state).end = end as u32 };
            false
        }
    }
}

#[inline(always)]
fn try_step(state: *mut State, memo: *mut Memo, tables: &Tables) -> Result<(), UnwindEnd> {
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup, and this CPU's own while the program runs.
    let state = unsafe { &mut *state };
    record(state)?;

    // A return address may lie behind its function's last byte: the call is what counts.
    let address = state.pc.wrapping_sub(1).wrapping_add(state.exact);
    state.exact = 0;
    let row = match memo::get(memo, address, tables.generation) {
        Some(row) => row,
        None => {
            let row = match tables.row(address, &mut state.mapping) {
                Ok(row) => row,
                Err(end) => return through_probe(state, end),
            };
            memo::put(memo, address, tables.generation, row);
            row
        }
    };

    let sp = state.sp;
    let words = u64::from(row.cfa_words);
    let cfa = match row.cfa_kind {
        SP => sp.wrapping_add(words * 8),
        FP => frame_pointer(state)?.wrapping_add(words * 8),
        NONE => match frame_pointer(state)? {
            0 => return Err(UnwindEnd::Root),
            fp => fp.wrapping_add(words * 8),
        },
        PLT => sp.wrapping_add(8).wrapping_add(u64::from(state.pc & 15 >= words) * 8),
        SIGNAL => return interrupted(state),
        END => return Err(UnwindEnd::Root),
        SP_FAR => sp.wrapping_add(FAR).wrapping_add(words * 8),
        SP_DEREF => deref(sp, row.cfa_words)?,
        FP_DEREF => deref(frame_pointer(state)?, row.cfa_words)?,
        _ => return Err(UnwindEnd::ComplexRule),
    };
    up(state, cfa, row)
}

/// Goes on behind a return probe: its address is no place in the program, and what it stands for is recorded instead.
#[inline(always)]
fn through_probe(state: &mut State, end: UnwindEnd) -> Result<(), UnwindEnd> {
    let pc = if matches!(end, UnwindEnd::NoMapping) { probed_return(state.pc, state.sp) } else { 0 };
    if pc == 0 {
        return Err(end);
    }
    state.pc = pc;
    state.header.user_frames = state.header.user_frames.wrapping_sub(1);
    Ok(())
}

/// Writes the pc to the frames.
#[inline(always)]
fn record(state: &mut State) -> Result<(), UnwindEnd> {
    let frames = u64::from(state.header.user_frames);
    if frames >= MAX_USER_FRAMES as u64 {
        return Err(UnwindEnd::TooDeep);
    }
    let slot = (frames + u64::from(state.header.kernel_frames)) as usize & (FRAME_SLOTS - 1);
    // SAFETY: the index is masked to the length; indexing would leave a panic for the verifier to find.
    unsafe { *state.frames.as_mut_ptr().add(slot) = state.pc };
    state.header.user_frames = frames as u16 + 1;
    Ok(())
}

/// The frame pointer, read from where it was saved if that has been put off.
#[inline(always)]
fn frame_pointer(state: &mut State) -> Result<u64, UnwindEnd> {
    if state.fp_at != 0 {
        state.fp = window::read(state.fp_at).ok_or(UnwindEnd::ReadFailed)?;
        state.fp_at = 0;
    }
    Ok(state.fp)
}

/// CFA = *(base + offset) + addend.
#[inline(always)]
fn deref(base: u64, words: u16) -> Result<u64, UnwindEnd> {
    let (offset, addend) = Row::deref_parts(words);
    let at = base.wrapping_add((offset * 8) as u64);
    Ok(window::read(at).ok_or(UnwindEnd::ReadFailed)?.wrapping_add(addend * 8))
}

/// Goes on with the registers that a signal interrupted. That pc is no return address, and neither is the trampoline's,
/// which the kernel made up: both are written plus one, so that the readers of the frames, who subtract one, find them.
#[inline(always)]
fn interrupted(state: &mut State) -> Result<(), UnwindEnd> {
    let sp = state.sp;
    let frames = u64::from(state.header.user_frames);
    if frames > 1 {
        let slot = (frames - 1 + u64::from(state.header.kernel_frames)) as usize & (FRAME_SLOTS - 1);
        // SAFETY: the index is masked to the length.
        unsafe { *state.frames.as_mut_ptr().add(slot) = state.pc.wrapping_add(1) };
    }
    let at = |offset| window::read(sp.wrapping_add(offset)).ok_or(UnwindEnd::ReadFailed);
    let (pc, caller_sp, fp) = (at(SIGNAL_FRAME.pc)?, at(SIGNAL_FRAME.sp)?, at(SIGNAL_FRAME.fp)?);
    if cfg!(bpf_target_arch = "aarch64") {
        state.lr = at(SIGNAL_FRAME.lr)?;
    }
    state.pc = pc.wrapping_add(1);
    state.sp = caller_sp;
    state.fp = fp;
    state.fp_at = 0;
    Ok(())
}

/// Moves to the caller, given the CFA.
#[inline(always)]
fn up(state: &mut State, cfa: u64, row: Row) -> Result<(), UnwindEnd> {
    let in_register = row.fp_kind == FpKind::SameReturnInRegister as u8;
    // A leaf of aarch64 may have no frame at all.
    if cfa < state.sp || (cfa == state.sp && !in_register) {
        return Err(UnwindEnd::NoProgress);
    }
    let by_fp = row.fp_kind == FpKind::AtFp as u8;
    let fp_base = if by_fp { frame_pointer(state)? } else { cfa };
    let fp_at = fp_base.wrapping_add((i64::from(row.fp_words) * 8) as u64);
    let return_at =
        if cfg!(bpf_target_arch = "aarch64") { fp_at.wrapping_add(8) } else { cfa.wrapping_sub(8) };
    let pc = if in_register {
        let lr = state.lr;
        // Only the innermost frame has its return address there.
        state.lr = 0;
        lr
    } else {
        match window::word(state, return_at) {
            Some(word) => word,
            None => {
                if !window::move_to(state, cfa) {
                    return Err(UnwindEnd::ReadFailed);
                }
                match window::word(state, return_at) {
                    Some(word) => word,
                    None => window::read(return_at).ok_or(UnwindEnd::ReadFailed)?,
                }
            }
        }
    };
    if row.fp_kind == FpKind::AtCfa as u8 || by_fp {
        match window::word(state, fp_at) {
            Some(word) => {
                state.fp = word;
                state.fp_at = 0;
            }
            // Few callers use it: read it when one does.
            None => state.fp_at = fp_at,
        }
    }
    if pc == 0 {
        return Err(UnwindEnd::Root);
    }
    state.pc = pc;
    state.sp = cfa;
    Ok(())
}
