//! The window onto the user stack: one read of a block costs little more than one of a word.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated;
use descry_abi::limits::WINDOW_WORDS;

use crate::maps::State;

/// Bytes of a page at least; a read that stays in one touches nothing that its first byte does not.
const PAGE: u64 = 4096;
/// Bytes below the CFA that the window begins with, so that saved registers of this frame are in it.
const BELOW: u64 = 64;

/// The word at `address`, if the window holds it.
#[inline(always)]
pub fn word(state: *const State, address: u64) -> Option<u64> {
    // SAFETY: `state` is a per-CPU entry; the index is masked to the window's length.
    unsafe {
        let offset = address.wrapping_sub((*state).window_start);
        if offset & 7 != 0 || offset >= (*state).window_len {
            return None;
        }
        let words: *const u64 = (&raw const (*state).window).cast();
        Some(*words.add((offset >> 3) as usize & (WINDOW_WORDS - 1)))
    }
}

/// Moves the window so that it holds the word below `cfa`; false: the memory could not be read.
///
/// It ends with the page of the CFA's last byte, so that it cannot run over the top of the stack. It begins at the stack
/// pointer or, in a large frame, near the CFA and in that same page: the page before may be memory of an `alloca` that
/// was never touched.
#[inline(always)]
pub fn move_to(state: *mut State, cfa: u64) -> bool {
    // SAFETY: `state` is a per-CPU entry; the length is bounded right before its use.
    unsafe {
        let sp = (*state).sp;
        let page_start = cfa.wrapping_sub(1) & !(PAGE - 1);
        let page_end = page_start.wrapping_add(PAGE);
        let near = cfa.wrapping_sub(BELOW);
        let low = if cfa.wrapping_sub(sp) < BELOW {
            sp & !7
        } else if near > page_start {
            near & !7
        } else {
            page_start
        };
        let mut len = page_end.wrapping_sub(low);
        if len > (WINDOW_WORDS * 8) as u64 {
            len = (WINDOW_WORDS * 8) as u64;
        }
        (*state).window_start = low;
        (*state).window_len = len & !7;
        let window: *mut c_void = (&raw mut (*state).window).cast();
        if generated::bpf_probe_read_user(window, len as u32, low as *const c_void) != 0 {
            (*state).window_len = 0;
            return false;
        }
        true
    }
}

/// The word at `address`, wherever it is.
#[inline(always)]
pub fn read(address: u64) -> Option<u64> {
    // SAFETY: bpf_probe_read_user checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}
