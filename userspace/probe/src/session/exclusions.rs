//! What the kernel side leaves out of which process.

use aya::maps::{Array, MapData};
use descry_abi::exclusion::{MESSAGES, SYSCALLS, WAITS, parts_of, slot, word};
use descry_decode::ids::Tgid;

use super::Session;
use crate::ProbeError;

pub(super) const EXCLUDED: &str = "EXCLUDED";

/// What is left out of a process, or may be of some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// Time off the CPU.
    pub waits: bool,
    /// System calls.
    pub syscalls: bool,
    /// Messages on sockets.
    pub messages: bool,
}

impl Exclusion {
    /// As the kernel side knows them.
    pub(super) fn bits(self) -> u32 {
        [(self.waits, WAITS), (self.syscalls, SYSCALLS), (self.messages, MESSAGES)]
            .into_iter()
            .fold(0, |bits, (is_set, bit)| if is_set { bits | bit } else { bits })
    }
}

/// The map.
pub(super) type Excluded = Array<MapData, u64>;

impl Session {
    /// Leaves these parts of a process out, and no others, until it runs another program or ends. False: the kernel side
    /// cannot be told, because another process has its place; nothing of it is left out.
    ///
    /// # Errors
    /// If the kernel side was loaded for no [exclusions](super::Options::exclusions), and what else the kernel refuses.
    pub fn exclude(&mut self, tgid: Tgid, parts: Exclusion) -> Result<bool, ProbeError> {
        let failed = ProbeError::map(EXCLUDED);
        let index = slot(tgid.0);
        let was = self.excluded.get(&index, 0).map_err(&failed)?;
        let is_free = was == 0 || parts_of(was, tgid.0) != 0;
        let is_wanted = parts.bits() != 0 || was != 0;
        if is_free && is_wanted {
            self.excluded.set(index, word(tgid.0, parts.bits()), 0).map_err(failed)?;
        }
        Ok(is_free || parts.bits() == 0)
    }
}
