//! The binary search table of `.eh_frame_hdr` (LSB core specification, "The .eh_frame_hdr section").
//!
//! gimli reads it too, but computes on its numbers unchecked. Every linker writes one form: count as udata4, entries
//! as sdata4 relative to the section; any other form is not used, and the tables are walked instead.

use std::ops::Range;

const DW_EH_PE_UDATA4: u8 = 0x03;
const DW_EH_PE_PCREL_SDATA4: u8 = 0x1b;
const DW_EH_PE_DATAREL_SDATA4: u8 = 0x3b;
/// Version, three encodings, pointer to `.eh_frame`, count.
const PREFIX: usize = 12;
const ENTRY: usize = 8;

/// A table that was found whole.
#[derive(Clone, Debug)]
pub(crate) struct SearchTable {
    entries: Range<usize>,
    address: u64,
    eh_frame: u64,
}

impl SearchTable {
    /// Checks the table of the section at `range` of `file`, loaded at `address`.
    pub(crate) fn find(file: &[u8], range: Range<usize>, address: u64) -> Option<Self> {
        let data = file.get(range.clone())?;
        let [version, pointer, count, table] = *data.first_chunk()?;
        let forms = (DW_EH_PE_PCREL_SDATA4, DW_EH_PE_UDATA4, DW_EH_PE_DATAREL_SDATA4);
        if version != 1 || (pointer, count, table) != forms {
            return None;
        }
        let pointer = word(data, 4)?;
        let count = word(data, 8)? as u32 as usize;
        let len = count.checked_mul(ENTRY)?;
        if count == 0 || data.len().checked_sub(PREFIX)? < len {
            return None;
        }
        let start = range.start.checked_add(PREFIX)?;
        Some(Self {
            entries: start..start.checked_add(len)?,
            address,
            eh_frame: address.wrapping_add(4).wrapping_add_signed(i64::from(pointer)),
        })
    }

    /// Address of the `.eh_frame` that the entries point into.
    pub(crate) fn eh_frame(&self) -> u64 {
        self.eh_frame
    }

    fn entry(&self, data: &[u8], index: usize) -> Option<(u64, u64)> {
        let at = index.checked_mul(ENTRY)?;
        let start = self.address.wrapping_add_signed(i64::from(word(data, at)?));
        let fde = self.address.wrapping_add_signed(i64::from(word(data, at + 4)?));
        Some((start, fde.wrapping_sub(self.eh_frame)))
    }

    /// Offset in `.eh_frame` of the last function that begins at or before `address`.
    pub(crate) fn search(&self, file: &[u8], address: u64) -> Option<usize> {
        let data = file.get(self.entries.clone())?;
        let (mut low, mut high) = (0, data.len() / ENTRY);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(data, middle)?.0 <= address { low = middle + 1 } else { high = middle }
        }
        usize::try_from(self.entry(data, low.checked_sub(1)?)?.1).ok()
    }

    /// Offsets in `.eh_frame` of all functions, in the order of the section.
    pub(crate) fn offsets(&self, file: &[u8]) -> Vec<usize> {
        let data = file.get(self.entries.clone()).unwrap_or_default();
        let mut offsets: Vec<usize> = (0..data.len() / ENTRY)
            .filter_map(|index| usize::try_from(self.entry(data, index)?.1).ok())
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }
}

fn word(data: &[u8], at: usize) -> Option<i32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(i32::from_le_bytes(*bytes))
}
