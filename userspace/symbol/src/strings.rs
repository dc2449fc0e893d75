//! Strings of ELF string tables.

use object::elf;

use crate::budget::{Budget, Exhausted};
use crate::elf::{ElfFile, Section};

/// The string at `offset` of a string table, at most `max` bytes of it.
pub(crate) fn read_name(
    elf: &ElfFile,
    strings: Option<&Section>,
    offset: u32,
    max: usize,
    budget: &Budget,
) -> Result<Vec<u8>, Exhausted> {
    let mut name = Vec::new();
    let Some(strings) = strings.filter(|strings| strings.kind == elf::SHT_STRTAB.0) else { return Ok(name) };
    let mut at = u64::from(offset);
    let mut block = [0; 256];
    while name.len() < max && at < strings.size {
        let wanted =
            block.len().min(max - name.len()).min(usize::try_from(strings.size - at).unwrap_or(usize::MAX));
        let Some(part) = block.get_mut(..wanted) else { break };
        let Ok(read) = elf.file.read_at(part, strings.offset.saturating_add(at)) else { break };
        budget.spend(read as u64)?;
        let bytes = part.get(..read).unwrap_or_default();
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => {
                name.extend_from_slice(bytes.get(..end).unwrap_or_default());
                break;
            }
            None => name.extend_from_slice(bytes),
        }
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(name)
}
