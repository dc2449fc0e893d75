//! `codegen PROTO_DIR OUT_DIR`: Rust for the `.proto` files of `proto/`; started by `cargo xtask codegen`.
//!
//! A program of its own, since the compiler of `.proto` files is half of what there would be to build for every task.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The `.proto` files, from the directory of them all.
const PROTOS: [&str; 1] = ["pprof/profile.proto"];

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (proto, out) = args.next().zip(args.next()).context("usage: codegen PROTO_DIR OUT_DIR")?;
    let descriptors = protox::compile(PROTOS, [&proto])?;
    prost_build::Config::new()
        .out_dir(&out)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot generate into {}", out.display()))
}
