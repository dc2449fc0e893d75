//! The hash that says from which sources the prebuilt objects were built.
//!
//! It equals what this prints, in the root of the checkout:
//!
//! ```sh
//! find ebpf/abi ebpf/programs -name target -prune -o -type f \( -name '*.rs' -o -name Cargo.toml -o -name Cargo.lock \) -print \
//!   | LC_ALL=C sort | xargs sha256sum | sha256sum
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::repo;

/// The directories whose sources make the objects.
const SOURCES: [&str; 2] = ["ebpf/abi", "ebpf/programs"];

/// The file beside the objects that holds the hash.
pub const FILE: &str = "SOURCE.sha256";

/// The hash of the sources as they are now, in hex.
pub fn compute() -> Result<String> {
    let mut files = Vec::new();
    for directory in SOURCES {
        let inside = WalkDir::new(repo::root().join(directory))
            .into_iter()
            .filter_entry(|entry| entry.file_name() != "target" && entry.file_name() != ".git");
        for entry in inside {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type().is_file()
                && (name.ends_with(".rs") || name == "Cargo.toml" || name == "Cargo.lock")
            {
                files.push(repo::shown(entry.path()));
            }
        }
    }
    files.sort();
    let mut list = String::new();
    for file in files {
        let bytes = fs::read(repo::root().join(&file)).with_context(|| format!("cannot read {file}"))?;
        writeln!(list, "{}  {file}", hex(&bytes))?;
    }
    Ok(hex(list.as_bytes()))
}

/// Writes the hash of the sources as they are now beside the objects in `directory`.
pub fn write(directory: &Path) -> Result<()> {
    let file = directory.join(FILE);
    fs::write(&file, format!("{}\n", compute()?)).with_context(|| format!("cannot write {}", file.display()))
}

/// Fails when the objects in `directory` were built from other sources.
pub fn check(directory: &Path) -> Result<()> {
    let file = directory.join(FILE);
    let built = fs::read_to_string(&file).with_context(|| {
        format!("cannot read {}: build the kernel side with `cargo xtask build-ebpf`", file.display())
    })?;
    if built.trim() != compute()? {
        bail!(
            "the objects in {} were built from other sources than those in {}: run `cargo xtask build-ebpf`",
            repo::shown(directory),
            SOURCES.join(" and "),
        );
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
