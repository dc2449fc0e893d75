//! Dependencies point one way along the flow of the data, and some crates may not come in at all.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::repo;

/// The stages in the order of the data: a crate may depend only on those before it.
const ORDER: &[&str] = &[
    "descry-abi",
    "descry-proto",
    "descry-telemetry",
    "descry-config",
    "descry-decode",
    "descry-unwind",
    "descry-probe",
    "descry-process",
    "descry-symbol",
    "descry-function",
    "descry-assemble",
    "descry-aggregate",
    "descry-pipeline",
    "descry-spool",
    "descry-export",
    "descry",
    "descry-tests",
];

/// Crates that only some may depend on directly, and who may.
const RESERVED: &[(&str, &[&str])] = &[
    // The one who loads programs and writes maps.
    ("aya", &["descry-probe"]),
    ("aya-obj", &["descry-probe"]),
    ("aya-log", &["descry-probe"]),
    // Stages are wired in one place.
    ("descry-probe", &["descry", "descry-tests"]),
    ("descry", &["descry-tests"]),
    // A library's errors are types.
    ("anyhow", &["descry", "descry-tests", "xtask"]),
    ("clap", &["descry", "descry-tests", "xtask"]),
];

/// Crates that may not be anywhere below the binaries, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls with ring: nothing to link, nothing to install"),
    ("openssl-sys", "TLS is rustls with ring: nothing to link, nothing to install"),
    ("native-tls", "TLS is rustls with ring: nothing to link, nothing to install"),
    ("hyper-tls", "TLS is rustls with ring: nothing to link, nothing to install"),
    ("aws-lc-rs", "needs cmake and minutes to build; rustls takes ring"),
    ("aws-lc-sys", "needs cmake and minutes to build; rustls takes ring"),
    ("async-std", "the runtime is tokio"),
    ("smol", "the runtime is tokio"),
    ("serde_yaml", "no longer maintained"),
    ("bindgen", "needs libclang to build; offsets come from BTF"),
];

pub(super) fn check(findings: &mut Vec<String>) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(repo::root().join("Cargo.toml"))
        .other_options(["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
        .exec()
        .context("cargo metadata")?;
    for package in metadata.workspace_packages() {
        direction(package, findings);
        reserved(package, findings);
    }
    forbidden(&metadata, findings)
}

fn place(name: &str) -> Option<usize> {
    ORDER.iter().position(|stage| *stage == name)
}

fn direction(package: &Package, findings: &mut Vec<String>) {
    if package.name.as_str() == "xtask" {
        return;
    }
    let Some(own) = place(&package.name) else {
        findings.push(format!(
            "{}: has no place in the order of the stages (xtask/src/tidy/dependencies.rs)",
            package.name
        ));
        return;
    };
    for dependency in &package.dependencies {
        if dependency.kind != DependencyKind::Development
            && place(&dependency.name).is_some_and(|it| it >= own)
        {
            findings.push(format!("{}: may not depend on {}: it comes later", package.name, dependency.name));
        }
    }
}

fn reserved(package: &Package, findings: &mut Vec<String>) {
    for dependency in &package.dependencies {
        for (name, users) in RESERVED {
            let outside = !users.contains(&package.name.as_str());
            if dependency.name == *name && outside && dependency.kind != DependencyKind::Development {
                findings.push(format!(
                    "{}: may not depend on {name}: only {} may",
                    package.name,
                    users.join(", ")
                ));
            }
        }
    }
}

/// Looks at what is built for Linux with the features that are on, tests and build scripts included.
fn forbidden(metadata: &Metadata, findings: &mut Vec<String>) -> Result<()> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let built: BTreeSet<&str> = resolve.nodes.iter().map(|node| metadata[&node.id].name.as_str()).collect();
    for (name, why) in FORBIDDEN {
        if built.contains(name) {
            findings
                .push(format!("the crate {name} came in: {why} (`cargo tree -i {name}` says from where)"));
        }
    }
    Ok(())
}
