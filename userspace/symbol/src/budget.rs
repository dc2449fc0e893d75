//! The work that one call may do.

use std::cell::Cell;

/// Steps that a byte of a name costs if it is kept: all names of a call take at most a 32nd of its steps in bytes.
pub(crate) const KEPT_BYTE: u64 = 32;
/// Steps that a frame costs if it is kept (it takes up to 200 bytes until it is handed out).
pub(crate) const KEPT_FRAME: u64 = 1024;

/// Counts down; shared by all parsers of one call.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Cell<u64>,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Budget {
    pub(crate) fn new(steps: u64) -> Self {
        Self { left: Cell::new(steps) }
    }

    /// Pays for work; once it fails, it fails for good.
    #[inline]
    pub(crate) fn spend(&self, steps: u64) -> Result<(), Exhausted> {
        match self.left.get().checked_sub(steps) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Exhausted)
            }
        }
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }
}
