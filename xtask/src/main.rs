//! The tasks of the project: `cargo xtask TASK`.
//!
//! Each task is a module with an `Args` struct and a `run` function. Exit codes are those of descry itself:
//! 0 done, 1 failed, 2 wrong usage, 3 the rights or the kernel do not allow it.

#![forbid(unsafe_code)]

mod bench;
mod build_ebpf;
mod codegen;
mod command;
mod demo;
mod fuzz;
mod install;
mod products;
mod repo;
mod source_hash;
mod strip;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::command::NotAllowed;

/// Builds, demonstrates, tests and measures descry.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel side for x86_64 and aarch64.
    BuildEbpf(build_ebpf::Args),
    /// Generate the protobuf code.
    Codegen(codegen::Args),
    /// Profile a bundled worker and show what comes out; needs root.
    Demo(demo::Args),
    /// Run everything that CI runs; needs root for the tests on this kernel.
    Test(test::Args),
    /// Run fuzz targets with stable Rust.
    Fuzz(fuzz::Args),
    /// Measure what descry costs; needs root.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check the rules of the house.
    Tidy,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<NotAllowed>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(task: Task) -> Result<()> {
    match task {
        Task::BuildEbpf(args) => build_ebpf::run(&args),
        Task::Codegen(args) => codegen::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(bench) => bench::run(&bench),
        Task::Tidy => tidy::run(),
    }
}
