//! Makes `proto/src/generated` from the `.proto` files; needs no `protoc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::repo;

const GENERATED: &str = "proto/src/generated";

/// The options of `codegen`.
#[derive(clap::Args)]
pub struct Args {
    /// Only check that the committed files are what the `.proto` files give.
    #[arg(long)]
    check: bool,
}

/// Generates the code, or checks it.
pub fn run(args: &Args) -> Result<()> {
    if args.check { check() } else { generate(&repo::root().join(GENERATED)) }
}

/// Fails when the committed code is not what the `.proto` files give, and names the files.
pub fn check() -> Result<()> {
    let fresh = tempfile::tempdir()?;
    generate(fresh.path())?;
    let committed = repo::root().join(GENERATED);
    let mut different = Vec::new();
    for name in names(fresh.path())?.into_iter().chain(names(&committed)?) {
        if fs::read(fresh.path().join(&name)).ok() != fs::read(committed.join(&name)).ok() {
            different.push(format!("{GENERATED}/{}", name.display()));
        }
    }
    different.sort();
    different.dedup();
    if different.is_empty() {
        return Ok(());
    }
    bail!("not what the .proto files give: {}; run `cargo xtask codegen`", different.join(", "))
}

fn generate(into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    command::run(
        repo::cargo()
            .args(["run", "--quiet", "--package", "xtask", "--features", "codegen", "--bin", "codegen", "--"])
            .arg(repo::root().join("proto"))
            .arg(into),
    )?;
    for name in names(into)? {
        let file = into.join(name);
        command::run(
            Command::new("rustfmt").args(["--edition", "2024", "--config-path"]).arg(repo::root()).arg(&file),
        )?;
    }
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "rs") {
            names.push(name);
        }
    }
    Ok(names)
}
