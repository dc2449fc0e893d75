//! Takes out of an eBPF object what no loader reads.
//!
//! The kernel and the loader read BTF; DWARF would be nine tenths of what is committed and embedded.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf;

/// Writes the object `from` without its DWARF sections to `to`, and returns the size in bytes.
pub fn without_dwarf(from: &Path, to: &Path) -> Result<usize> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let stripped = strip(&bytes).with_context(|| format!("{} is not an ELF object", from.display()))?;
    fs::write(to, &stripped).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(stripped.len())
}

fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes)?;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        // Loaders read BTF as it stands; its relocations are for linking again, and a quarter of the object.
        section.delete = [&b".debug_"[..], b".rel.debug_", b".rel.BTF"].iter().any(|it| name.starts_with(it));
    }
    object.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; the writer wants two.
    if !object.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = object.sections.add();
        names.name = b".shstrtab".as_slice().into();
        names.sh_type = elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(stripped)
}
