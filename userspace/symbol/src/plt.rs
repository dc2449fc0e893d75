//! Entries of the procedure linkage table: `name@plt`.
//!
//! Entry `i` jumps to the symbol of relocation `i` of `.rela.plt`. Layouts: the x86-64 psABI (one header of 16 bytes,
//! entries of 16; `.plt.sec` without a header) and the AArch64 ELF ABI as GNU ld and lld write it (a header of 32,
//! entries of 16 or, with branch protection, 24). A table whose sizes do not agree with its relocations names nothing.

use object::elf;

use crate::budget::{Budget, Exhausted};
use crate::elf::{ElfFile, Section, u32_at};
use crate::strings::read_name;

const RELOCATION_LEN: u64 = 24;
const SYMBOL_LEN: u64 = 24;
const MAX_NAME: usize = 4096;

/// The name of the entry at `address`.
pub(crate) fn lookup(elf: &ElfFile, address: u64, budget: &Budget) -> Result<Option<Vec<u8>>, Exhausted> {
    let Some(section) = elf.code_section(address) else { return Ok(None) };
    let Some(relocations) = elf.section(".rela.plt") else { return Ok(None) };
    let count = relocations.size / RELOCATION_LEN;
    let Some(index) = entry_index(elf.machine, section, count, address) else { return Ok(None) };
    let Some(symbols) = elf.sections.get(relocations.link as usize).filter(|s| s.kind == elf::SHT_DYNSYM.0)
    else {
        return Ok(None);
    };
    budget.spend(RELOCATION_LEN + SYMBOL_LEN)?;
    let Ok(relocation) = elf.file.read_vec(relocations.offset.saturating_add(index * RELOCATION_LEN), 24)
    else {
        return Ok(None);
    };
    // ELF64_R_SYM: the upper half of r_info.
    let symbol = u64::from(u32_at(&relocation, 12));
    if symbol == 0 || symbol >= symbols.size / SYMBOL_LEN {
        return Ok(None);
    }
    let Ok(symbol) = elf.file.read_vec(symbols.offset.saturating_add(symbol * SYMBOL_LEN), 24) else {
        return Ok(None);
    };
    let mut name =
        read_name(elf, elf.sections.get(symbols.link as usize), u32_at(&symbol, 0), MAX_NAME, budget)?;
    if name.is_empty() {
        return Ok(None);
    }
    name.extend_from_slice(b"@plt");
    Ok(Some(name))
}

fn entry_index(machine: u16, section: &Section, count: u64, address: u64) -> Option<u64> {
    let at = address.checked_sub(section.address)?;
    let (header, entry) = match (machine, &*section.name) {
        (m, ".plt.sec") if m == elf::EM_X86_64.0 => (0, 16),
        (m, ".plt") if m == elf::EM_X86_64.0 => (16, 16),
        (m, ".plt") if m == elf::EM_AARCH64.0 => (32, section.size.checked_sub(32)?.checked_div(count)?),
        _ => return None,
    };
    if entry == 0 || section.size != count.checked_mul(entry)?.checked_add(header)? {
        return None;
    }
    at.checked_sub(header).map(|at| at / entry)
}
