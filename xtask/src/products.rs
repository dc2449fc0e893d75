//! Builds what demonstrations and measurements run: the release binary and the bundled worker.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::{self, step};
use crate::repo;

/// Builds descry as it ships, and returns its path.
pub fn descry() -> Result<PathBuf> {
    step("building descry (some minutes the first time)");
    build(repo::cargo().args(["build", "--release", "--package", "descry"]))?;
    Ok(repo::target().join("release/descry"))
}

/// Builds the worker that spends its CPU time 60/30/10, and returns its path.
///
/// `frame_pointers` builds it for profilers that can walk nothing else.
pub fn burner(frame_pointers: bool) -> Result<PathBuf> {
    step("building the bundled worker");
    workload("burner", frame_pointers)
}

/// Builds the web shop whose waits, calls and requests are known, and returns its path.
pub fn shop() -> Result<PathBuf> {
    step("building the bundled shop");
    workload("shop", false)
}

fn workload(name: &str, frame_pointers: bool) -> Result<PathBuf> {
    // The tests build theirs in the same place.
    let directory = if frame_pointers { "workloads/rust-frame-pointers" } else { "workloads/rust" };
    let target_dir = repo::target().join(directory);
    let mut cargo = repo::cargo();
    cargo
        .args(["build", "--release", "--bin", name])
        .args(["--manifest-path", "tests/workloads/rust/Cargo.toml", "--target-dir"])
        .arg(&target_dir);
    if frame_pointers {
        cargo.env("RUSTFLAGS", "-Cforce-frame-pointers=yes");
    }
    build(&mut cargo)?;
    Ok(target_dir.join("release").join(name))
}

/// Builds an example of a package as descry is built, and returns its path.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    step(format!("building {name}"));
    build(repo::cargo().args(["build", "--release", "--package", package, "--example", name]))?;
    Ok(repo::target().join("release/examples").join(name))
}

/// Cargo shows its progress to a person, and only its warnings and errors to a log.
fn build(cargo: &mut Command) -> Result<()> {
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    command::run(cargo)
}
