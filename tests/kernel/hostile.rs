//! Files with garbage in them cost their own names and rows, and nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use descry_tests::descry::Descry;
use descry_tests::{compile, garbage, machine, workload::Workload};

use crate::HZ;

/// Overwrites a section of `split` with garbage, and measures it.
fn check(section: &str, named: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("split");
    std::fs::copy(compile::native("split")?, &program)?;
    let (offset, size) = place(&program, section)?;
    let file = OpenOptions::new().write(true).open(&program)?;
    file.write_all_at(&garbage::bytes(size), offset)?;
    drop(file);
    let workload = Workload::start::<&str>(&program, &[])?;
    let outcome = Descry::profile(HZ, 1)?.pid(workload.pid()).succeed()?;
    let folded = outcome.folded()?;
    ensure!(folded.total() > 250, "{section}: {} samples:\n{}", folded.total(), outcome.stderr);
    ensure!(!outcome.stderr.contains("panicked"), "{section}: a panic:\n{}", outcome.stderr);
    if named {
        ensure!(folded.total_of("sixty") > 0.5, "{section}: no names:\n{}", folded.heaviest(5));
    }
    Ok(())
}

/// Where a section lies in its file: offset and size (bytes), by readelf.
fn place(program: &Path, section: &str) -> Result<(u64, usize)> {
    let output = Command::new("readelf").arg("-SW").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(index) = words.iter().position(|word| *word == section) else { continue };
        // Name, type, address, offset, size.
        if let (Some(offset), Some(size)) = (words.get(index + 3), words.get(index + 4)) {
            return Ok((u64::from_str_radix(offset, 16)?, usize::from_str_radix(size, 16)?));
        }
    }
    bail!("{} has no {section}", program.display())
}

#[test]
fn garbage_in_sections() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // Names come from elsewhere where the section is not the one that has them.
    for (section, named) in [
        (".eh_frame", true),
        (".eh_frame_hdr", true),
        (".symtab", false),
        (".strtab", false),
        (".debug_info", false),
        (".debug_abbrev", false),
        (".debug_line", false),
        (".debug_str", false),
        (".debug_rnglists", false),
        (".note.gnu.build-id", true),
    ] {
        check(section, named)?;
    }
    Ok(())
}
