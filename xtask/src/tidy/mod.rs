//! The rules of the house that no compiler checks.
//!
//! Every check returns findings, one line each; a run shows those of all checks, and fails when there is one.

mod dependencies;
mod prebuilt;
mod text;
mod unsafety;

use anyhow::{Result, bail};

use crate::codegen;

/// Runs every check.
pub fn run() -> Result<()> {
    let mut findings = Vec::new();
    dependencies::check(&mut findings)?;
    unsafety::check(&mut findings)?;
    text::check(&mut findings)?;
    prebuilt::check(&mut findings)?;
    if let Err(error) = codegen::check() {
        findings.push(format!("{error:#}"));
    }
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("tidy found {} thing(s)", findings.len())
}
