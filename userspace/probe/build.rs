//! Tells the crate where the kernel side's object is: `DESCRY_EBPF_DIR` where it is set (a fresh build), else the one
//! that the repository keeps in `ebpf/prebuilt`.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=DESCRY_EBPF_DIR");
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let dir = std::env::var_os("DESCRY_EBPF_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../ebpf/prebuilt"), PathBuf::from);
    let object = dir.join(format!("descry.{architecture}.bpf.o"));
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!("cargo::error=no kernel object at {}: run `cargo xtask build-ebpf`", object.display());
    }
    println!("cargo::rustc-env=DESCRY_EBPF_OBJECT={}", object.display());
}
