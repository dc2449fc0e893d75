//! Measurements of what descry costs, beside other tools where there are any.

mod export;
mod proc;
mod profile;
mod profiler;
mod spread;
mod unwind;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The cost of profiling a busy machine, beside perf and bpftrace, in pairs with bare runs.
    Profile(profile::Args),
    /// The kernel's own account of descry's programs, a sample and a frame.
    Unwind(unwind::Args),
    /// How fast spans become the bytes of OTLP requests.
    Export(export::Args),
}

/// Runs a measurement.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Profile(args) => profile::run(args),
        Bench::Unwind(args) => unwind::run(args),
        Bench::Export(args) => export::run(args),
    }
}
