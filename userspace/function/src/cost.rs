//! What a probe costs the program that runs into it.

use std::fmt;

/// What the kernel does with the instruction below a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cost {
    /// A nop of five bytes, which Linux 6.18 turns into a call.
    Optimized,
    /// A nop, a push or a branch: the kernel does it itself.
    Emulated,
    /// Anything else: the processor does it in single step.
    SingleStepped,
}

impl Cost {
    /// Time of a probe here (ns), as measured on a virtual machine with Linux 6.18. Other machines differ; the ratios stay.
    pub fn nanos(self) -> u64 {
        match self {
            Self::Optimized => 530,
            Self::Emulated => 830,
            Self::SingleStepped => 11_400,
        }
    }

    /// Time that the kernel's return probe adds to the probe at the entry (ns), measured as above.
    pub const RETURN_PROBE: u64 = 600;
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optimized => "optimized",
            Self::Emulated => "emulated",
            Self::SingleStepped => "single-stepped",
        })
    }
}
