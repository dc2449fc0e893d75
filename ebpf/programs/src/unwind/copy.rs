//! Registers and stack for a walk in userspace.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::limits::STACK_COPY_BYTES;

use crate::emit::{self, count};
use crate::maps::{COPY_STATES, CopyState, ProgramKind, State};
use crate::registers::{self, Registers};

const PAGE: u64 = 4096;

/// Sends the registers of the leaf frame and the stack from its stack pointer up, page by page to the first that
/// cannot be read; false: nothing was sent.
#[inline(always)]
pub fn ship_stack(program: ProgramKind, state: *const State) -> bool {
    let Some(copy) = COPY_STATES.get_ptr_mut(program as u32) else {
        count(Counter::NoState);
        return false;
    };
    // SAFETY: both states are per-CPU entries that were checked by their lookups; offsets are bounded before use.
    unsafe {
        if !registers::saved(&raw mut (*copy).saved) {
            count(Counter::StackCopyFailed);
            return false;
        }
        let start = registers::stack_pointer(&(*copy).saved) & !7;
        let mut len = 0u64;
        for _ in 0..STACK_COPY_BYTES as u64 / PAGE {
            let at = start.wrapping_add(len);
            let part = PAGE - (at & (PAGE - 1));
            if len > STACK_COPY_BYTES as u64 - PAGE || part > PAGE {
                break;
            }
            let to: *mut c_void = (&raw mut (*copy).bytes).cast::<u8>().add(len as usize).cast();
            if bpf_probe_read_user(to, part as u32, at as *const c_void) != 0 {
                break;
            }
            len += part;
        }
        if len == 0 {
            count(Counter::StackCopyFailed);
            return false;
        }
        let registers = &raw const (*copy).saved;
        fill_header(copy, state, registers, len);
        emit::stack_copy(copy, len)
    }
}

/// Sends the registers that the state has saved, of a task that is blocked: userspace reads its memory itself.
#[inline(always)]
pub fn ship_registers(program: ProgramKind, state: *const State) -> bool {
    let Some(copy) = COPY_STATES.get_ptr_mut(program as u32) else {
        count(Counter::NoState);
        return false;
    };
    // SAFETY: both states are per-CPU entries that were checked by their lookups.
    unsafe { fill_header(copy, state, &raw const (*state).saved, 0) };
    emit::stack_copy(copy, 0)
}

/// # Safety
///
/// The pointers are those of per-CPU entries that were checked by their lookups.
#[inline(always)]
unsafe fn fill_header(copy: *mut CopyState, state: *const State, saved: *const Registers, len: u64) {
    // SAFETY: by the caller.
    unsafe {
        let header = &mut (*copy).header;
        header.kind = EventKind::StackCopy as u16;
        header.registers_len = registers::COPIED;
        header.len = len as u32;
        header.time = (*state).header.time;
        header.tgid = (*state).header.tgid;
        header.tid = (*state).header.tid;
        header.start = registers::stack_pointer(&*saved) & !7;
        registers::copy(&*saved, &mut header.registers);
    }
}
