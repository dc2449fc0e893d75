//! Files with garbage in them cost their own names and rows, and nothing else.

use std::process::Command;

use anyhow::{Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::{compile, machine, workload::Workload};

use crate::HZ;

/// Replaces a section of `split` by garbage of the same size, and measures it.
fn check(section: &str, named: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (program, garbage) = (dir.path().join("split"), dir.path().join("garbage"));
    std::fs::copy(compile::native("split")?, &program)?;
    // Always the same, so that a failure comes again.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let size = section_size(&program, section)?;
    std::fs::write(&garbage, bytes.take(size).collect::<Vec<u8>>())?;
    let mut update = std::ffi::OsString::from(format!("{section}="));
    update.push(&garbage);
    let status = Command::new("objcopy").arg("--update-section").arg(update).arg(&program).status()?;
    ensure!(status.success(), "objcopy failed on {section}");
    let workload = Workload::start::<&str>(&program, &[])?;
    let outcome = Descry::profile(HZ, 2)?.pid(workload.pid()).succeed()?;
    let folded = outcome.folded()?;
    ensure!(folded.total() > 500, "{section}: {} samples:\n{}", folded.total(), outcome.stderr);
    ensure!(!outcome.stderr.contains("panicked"), "{section}: a panic:\n{}", outcome.stderr);
    if named {
        ensure!(folded.total_of("sixty") > 0.5, "{section}: no names:\n{}", folded.heaviest(5));
    }
    Ok(())
}

/// The size of a section (bytes), by readelf.
fn section_size(program: &std::path::Path, section: &str) -> Result<usize> {
    let output = Command::new("readelf").arg("-SW").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some(index) = words.iter().position(|word| *word == section) {
            // Name, type, address, offset, size.
            if let Some(size) = words.get(index + 4) {
                return Ok(usize::from_str_radix(size, 16)?);
            }
        }
    }
    anyhow::bail!("{} has no {section}", program.display())
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
