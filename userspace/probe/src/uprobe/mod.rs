//! Programs at places in the code of other programs.
//!
//! aya attaches one place a link, in 5 ms each, and knows no semaphores. So the programs for places are loaded and linked
//! by hand: [`program`] takes them from the object and gives them the maps that aya made, [`link`] attaches one to many
//! places of a file, with `uprobe_multi` (Linux 6.6) or one by one.

pub(crate) mod link;
pub(crate) mod program;
pub(crate) mod system;

use std::io;

use descry_abi::function::Cookie;
use descry_decode::ids::FileOffset;

/// What the program at a place does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A function begins.
    Enter,
    /// A function that was entered here returns; the kernel puts an address of its own in the place of the return address.
    Leave,
    /// An instruction that leaves a function.
    Exit,
    /// A USDT probe.
    Pass,
    /// A function of TLS begins.
    TlsEnter,
    /// A function of TLS returns, as at `Leave`.
    TlsLeave,
    /// An instruction behind which a function of TLS returns.
    TlsExit,
}

impl Hook {
    /// Those of traced functions.
    pub(crate) const FUNCTIONS: [Self; 4] = [Self::Enter, Self::Leave, Self::Exit, Self::Pass];
    /// Those of TLS.
    pub(crate) const TLS: [Self; 3] = [Self::TlsEnter, Self::TlsLeave, Self::TlsExit];

    /// The program's name in the object.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Enter => "function_enter",
            Self::Leave => "function_leave",
            Self::Exit => "function_exit",
            Self::Pass => "function_pass",
            Self::TlsEnter => "tls_enter",
            Self::TlsLeave => "tls_leave",
            Self::TlsExit => "tls_exit",
        }
    }

    /// Whether it is to run at the return from the place, not at the place.
    pub(crate) fn is_return(self) -> bool {
        matches!(self, Self::Leave | Self::TlsLeave)
    }
}

/// A place in the code of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where its first byte is.
    pub offset: FileOffset,
    /// What its program is told.
    pub cookie: Cookie,
    /// Where the file has a 16-bit counter that the kernel keeps above zero while the place is probed (USDT).
    pub semaphore: Option<FileOffset>,
}

/// A place that the kernel does not probe.
#[derive(Debug)]
pub struct Refused {
    /// The place.
    pub site: Site,
    /// Why.
    pub reason: io::Error,
}
