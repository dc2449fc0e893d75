//! The walk up a copied stack, with all registers and every rule of DWARF.
//!
//! You give the registers of the leaf frame, the stack memory above its stack pointer, and who knows the code at an
//! address; you get the frames as the kernel side would have written them. Memory outside of the copy is asked of the
//! [`CodeSource`]. Where no entry covers an address, the frame pointer is followed:
//!
//! ```text
//! return address = *(fp + 8)     caller's fp = *fp     caller's sp = fp + 16     fp >= sp
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
    /// a signal frame, which is written plus one, so that minus one is right for all.
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
        let mut frames = Vec::new();
        let Some(mut registers) = Registers::new(registers) else {
            return Walk { frames, end: UnwindEnd::NoRegisters };
        };
        // How the frame at hand was come by decides what its pc means.
        let mut reached = Reached::Leaf;
        let end = loop {
            if frames.len() >= max_frames {
                break UnwindEnd::TooDeep;
            }
            let pc = registers.pc();
            frames.push(RuntimeAddress(if reached == Reached::BySignal { pc.wrapping_add(1) } else { pc }));
            let address = if reached == Reached::ByCall { pc.wrapping_sub(1) } else { pc };
            match self.step(&registers, reached, address, stack, source) {
                Ok((caller, by)) => {
                    registers = caller;
                    reached = by;
                }
                Err(end) => break end,
            }
        };
        Walk { frames, end }
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

/// How the walk came to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It is the first.
    Leaf,
    /// It called the frame before: its pc is a return address.
    ByCall,
    /// A signal interrupted it: its pc is the next instruction to run.
    BySignal,
}
