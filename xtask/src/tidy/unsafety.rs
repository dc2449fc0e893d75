//! `unsafe` lives in `ebpf/` and in `userspace/probe`; every other crate forbids it, and all share the lints.

use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;

use crate::repo;

const MAY_BE_UNSAFE: &[&str] = &["descry-abi", "descry-probe"];
const FORBIDS: &str = "#![forbid(unsafe_code)]";

pub(super) fn check(findings: &mut Vec<String>) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(repo::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    for package in metadata.workspace_packages() {
        if MAY_BE_UNSAFE.contains(&package.name.as_str()) {
            continue;
        }
        for target in &package.targets {
            if !(target.is_lib() || target.is_bin()) {
                continue;
            }
            let root = fs::read_to_string(&target.src_path)
                .with_context(|| format!("cannot read {}", target.src_path))?;
            if !root.lines().any(|line| line.trim() == FORBIDS) {
                findings
                    .push(format!("{}: does not say {FORBIDS}", repo::shown(target.src_path.as_std_path())));
            }
        }
        let manifest = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: does not take the lints of the workspace", package.name));
        }
    }
    Ok(())
}
