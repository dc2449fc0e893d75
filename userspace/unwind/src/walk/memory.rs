//! Memory of the process: the stack copy, and what its owner can still read.

use super::{CodeSource, Stack};
use descry_decode::ids::RuntimeAddress;

pub(crate) struct Memory<'a> {
    pub(crate) stack: Stack<'a>,
    pub(crate) source: &'a mut dyn CodeSource,
}

impl Memory<'_> {
    /// The little-endian number of `size` (at most 8) bytes at `address`.
    pub(crate) fn number(&mut self, address: u64, size: u8) -> Option<u64> {
        let mut bytes = [0; 8];
        let wanted = bytes.get_mut(..usize::from(size))?;
        let copied = || {
            let offset = usize::try_from(address.checked_sub(self.stack.start.0)?).ok()?;
            self.stack.bytes.get(offset..offset.checked_add(wanted.len())?)
        };
        match copied() {
            Some(copy) => wanted.copy_from_slice(copy),
            None if self.source.read(RuntimeAddress(address), wanted) => {}
            None => return None,
        }
        Some(u64::from_le_bytes(bytes))
    }

    pub(crate) fn word(&mut self, address: u64) -> Option<u64> {
        self.number(address, 8)
    }
}
