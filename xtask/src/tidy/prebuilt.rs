//! The committed objects are those of the sources, and do not tell where they were built.

use std::env;
use std::fs;

use anyhow::Result;

use crate::build_ebpf::ARCHITECTURES;
use crate::repo;
use crate::source_hash;

/// Where people's directories are.
const HOMES: &[&str] = &["/home/", "/root/", "/Users/", "/tmp/"];

pub(super) fn check(findings: &mut Vec<String>) -> Result<()> {
    let directory = repo::root().join("ebpf/prebuilt");
    if let Err(error) = source_hash::check(&directory) {
        findings.push(format!("{error:#}"));
    }
    let mut paths: Vec<String> = HOMES.iter().map(|home| (*home).to_owned()).collect();
    paths.push(repo::root().display().to_string());
    paths.extend(env::var("HOME").ok().filter(|home| home.len() > 1));
    for arch in ARCHITECTURES {
        let object = directory.join(format!("descry.{arch}.bpf.o"));
        let Ok(bytes) = fs::read(&object) else {
            findings.push(format!("{}: is missing; run `cargo xtask build-ebpf`", repo::shown(&object)));
            continue;
        };
        for path in &paths {
            if bytes.windows(path.len()).any(|window| window == path.as_bytes()) {
                findings.push(format!(
                    "{}: names a path of the machine that built it: {path}",
                    repo::shown(&object)
                ));
            }
        }
    }
    Ok(())
}
