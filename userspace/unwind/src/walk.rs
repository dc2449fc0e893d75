//! The walk up a copied stack, with all registers and every rule of DWARF.
//!
//! You give the registers of the leaf frame, the stack memory above its stack pointer, and who knows the code at an
//! address; you get the frames as the kernel side would have written them. Memory outside of the copy is asked of the
//! [`CodeSource`]. Where no entry covers an address, the frame pointer is followed:
//!
//! ```text
//! return address = *(fp + 8)     caller's fp = *fp     caller's sp = fp + 16     fp >= sp
//! ```
//!
//! The unwinder of C++ and Rust exceptions writes into its own frame before it leaves for a landing pad: for some
//! instructions the return address there is that of a frame further up, and no table says so. Where a walk through
//! such a frame leads nowhere, it goes on from the place further up the stack that holds the same return address:
//!
//! ```text
//! lower addresses                                               higher addresses
//! | unwinder's frame, R | frames that are given up, R | frame with the landing pad |
//!                                                     ^ sp there
//! ```

mod evaluate;
mod memory;
mod registers;
mod step;

use crate::cfi::Cfi;
use crate::section::Context;
use descry_abi::event::UnwindEnd;
use descry_decode::ids::RuntimeAddress;
use memory::Memory;
use registers::Registers;
use std::sync::Arc;

/// What is known of the code at an address.
#[derive(Clone, Debug)]
pub enum Code {
    /// A file with call frame information; ELF address = runtime address - `bias` (wrapping).
    Cfi {
        /// The file's tables.
        cfi: Arc<Cfi>,
        /// Runtime address - ELF address.
        bias: u64,
    },
    /// Code without tables (made at run time, Go, stripped): it is taken to keep frame pointers.
    FramePointer,
    /// A mapped file whose tables are not at hand.
    NotLoaded,
    /// No mapping.
    Unmapped,
}

/// Who knows the process that is walked.
pub trait CodeSource {
    /// What is known of the code at `address`.
    fn code(&mut self, address: RuntimeAddress) -> Code;

    /// Fills `bytes` with memory of the process from `address` on; `false`: it cannot. Asked only for memory outside
    /// of the stack copy.
    fn read(&mut self, address: RuntimeAddress, bytes: &mut [u8]) -> bool {
        let _ = (address, bytes);
        false
    }
}

/// A stack and why it ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Leaf first. The first is the interrupted instruction; the others are return addresses, but for one right after
    /// a signal frame or a jump to a landing pad, which is written plus one, so that minus one is right for all.
    pub frames: Vec<RuntimeAddress>,
    /// Why the walk ended.
    pub end: UnwindEnd,
}

/// Copied stack memory.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// Runtime address of the first byte.
    pub start: RuntimeAddress,
    /// What lay there.
    pub bytes: &'a [u8],
}

/// Walks stacks; keep one per thread, it owns the scratch space (about 20 KiB).
#[derive(Default)]
pub struct Walker {
    context: Context,
}

impl std::fmt::Debug for Walker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").finish_non_exhaustive()
    }
}

impl Walker {
    /// A walker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks from the leaf frame, whose `registers` are numbered by DWARF: 17 of x86_64 or 33 of aarch64. Another
    /// number gives no frames and [`UnwindEnd::NoRegisters`].
    pub fn walk(
        &mut self,
        registers: &[u64],
        stack: Stack<'_>,
        source: &mut dyn CodeSource,
        max_frames: usize,
    ) -> Walk {
        let Some(leaf) = Registers::new(registers) else {
            return Walk { frames: Vec::new(), end: UnwindEnd::NoRegisters };
        };
        let Climb { walk, unwinder } = self.climb(leaf, Reached::Leaf, stack, source, max_frames);
        if walk.end != UnwindEnd::Root
            && let Some((len, caller)) = unwinder
            && let Some(left_for) = caller.further_up(stack)
        {
            let rest = max_frames.saturating_sub(len);
            let Climb { walk: above, .. } = self.climb(left_for, Reached::ByCall, stack, source, rest);
            if above.end == UnwindEnd::Root {
                let frames = walk.frames.iter().take(len).copied().chain(above.frames).collect();
                return Walk { frames, end: above.end };
            }
        }
        walk
    }

    /// Goes up from the frame of `registers` as far as the tables lead.
    fn climb(
        &mut self,
        mut registers: Registers,
        mut reached: Reached,
        stack: Stack<'_>,
        source: &mut dyn CodeSource,
        max_frames: usize,
    ) -> Climb {
        let mut frames = Vec::new();
        let mut unwinder = None;
        let end = loop {
            if frames.len() >= max_frames {
                break UnwindEnd::TooDeep;
            }
            let pc = registers.pc();
            frames.push(RuntimeAddress(if reached == Reached::Exact { pc.wrapping_add(1) } else { pc }));
            let is_after_call = matches!(reached, Reached::ByCall | Reached::ByUnwinder);
            let address = if is_after_call { pc.wrapping_sub(1) } else { pc };
            match self.step(&registers, reached, address, stack, source) {
                Ok((caller, by)) => {
                    registers = caller;
                    reached = by;
                    if by == Reached::ByUnwinder && unwinder.is_none() {
                        unwinder = Some((frames.len(), registers.clone()));
                    }
                }
                Err(end) => break end,
            }
        };
        Climb { walk: Walk { frames, end }, unwinder }
    }

    fn step(
        &mut self,
        registers: &Registers,
        reached: Reached,
        address: u64,
        stack: Stack<'_>,
        source: &mut dyn CodeSource,
    ) -> Result<(Registers, Reached), UnwindEnd> {
        let code = source.code(RuntimeAddress(address));
        let mut memory = Memory { stack, source };
        match code {
            Code::Cfi { cfi, bias } => {
                step::by_cfi(&cfi, bias, address, registers, reached, &mut memory, &mut self.context)
            }
            Code::FramePointer => step::by_frame_pointer(registers, &mut memory),
            Code::NotLoaded => Err(UnwindEnd::NotLoaded),
            Code::Unmapped => Err(UnwindEnd::NoMapping),
        }
    }
}

/// A walk by the tables alone.
struct Climb {
    walk: Walk,
    /// The frame that the first unwinder of exceptions on the way returned to: the number of frames below, and its
    /// registers.
    unwinder: Option<(usize, Registers)>,
}

/// How the walk came to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It is the first.
    Leaf,
    /// It called the frame before: its pc is a return address.
    ByCall,
    /// The same, and the frame before is one that may return to a landing pad instead.
    ByUnwinder,
    /// By a signal or a jump: its pc is the next instruction to run.
    Exact,
}
