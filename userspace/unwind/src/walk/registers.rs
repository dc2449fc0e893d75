//! The registers of one frame, as far as they are known.

use super::Stack;
use crate::elf::Architecture;
use gimli::{AArch64, Register, X86_64};

/// Values by DWARF number. A caller's register that no rule gives back is unknown.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    architecture: Architecture,
    values: [Option<u64>; AARCH64_LEN],
}

const X86_64_LEN: usize = 17;
const AARCH64_LEN: usize = 33;
/// DWARF for the Arm 64-bit architecture, section 4.1: the program counter has number 32.
const AARCH64_PC: Register = Register(32);

impl Registers {
    pub(crate) fn new(values: &[u64]) -> Option<Self> {
        let architecture = match values.len() {
            X86_64_LEN => Architecture::X86_64,
            AARCH64_LEN => Architecture::Aarch64,
            _ => return None,
        };
        let mut all = [None; AARCH64_LEN];
        for (place, value) in all.iter_mut().zip(values) {
            *place = Some(*value);
        }
        Some(Self { architecture, values: all })
    }

    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }

    pub(crate) fn get(&self, register: Register) -> Option<u64> {
        self.values.get(usize::from(register.0)).copied().flatten()
    }

    /// Vector registers and the like are not tracked.
    pub(crate) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.values.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }

    pub(crate) fn pc(&self) -> u64 {
        self.get(self.pc_register()).unwrap_or_default()
    }

    pub(crate) fn sp(&self) -> u64 {
        self.get(self.sp_register()).unwrap_or_default()
    }

    pub(crate) fn fp(&self) -> Option<u64> {
        self.get(self.fp_register())
    }

    /// Puts the frame at another place; `pc` may carry a pointer authentication code, which is taken off: Linux gives
    /// aarch64 processes addresses of 48 bits unless they ask for more.
    pub(crate) fn go_to(&mut self, pc: u64, sp: u64) {
        let pc = match self.architecture {
            Architecture::X86_64 => pc,
            Architecture::Aarch64 => pc & ((1 << 48) - 1),
        };
        self.set(self.pc_register(), Some(pc));
        self.set(self.sp_register(), Some(sp));
    }

    /// These with the stack pointer above the next place up the stack that holds the pc.
    pub(crate) fn further_up(&self, stack: Stack<'_>) -> Option<Self> {
        let sp = self.sp();
        let above = stack.bytes.get(usize::try_from(sp.checked_sub(stack.start.0)?).ok()?..)?;
        let (words, _) = above.as_chunks::<8>();
        let at = words.iter().position(|word| u64::from_le_bytes(*word) == self.pc())?;
        let mut further_up = self.clone();
        further_up.set(self.sp_register(), Some(sp.checked_add((at as u64 + 1) * 8)?));
        Some(further_up)
    }

    pub(crate) fn pc_register(&self) -> Register {
        match self.architecture {
            Architecture::X86_64 => X86_64::RA,
            Architecture::Aarch64 => AARCH64_PC,
        }
    }

    pub(crate) fn sp_register(&self) -> Register {
        match self.architecture {
            Architecture::X86_64 => X86_64::RSP,
            Architecture::Aarch64 => AArch64::SP,
        }
    }

    pub(crate) fn fp_register(&self) -> Register {
        match self.architecture {
            Architecture::X86_64 => X86_64::RBP,
            Architecture::Aarch64 => AArch64::X29,
        }
    }
}
