//! Measurements of what descry costs, beside other tools where there are any.

mod burner;
mod export;
mod offcpu;
mod proc;
mod profile;
mod profiler;
mod requests;
mod spread;
mod syscalls;
mod trace;
mod unwind;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The cost of profiling a busy machine, beside perf and bpftrace, in pairs with bare runs.
    Profile(profile::Args),
    /// The cost of measuring system calls, beside bpftrace and strace, in pairs with bare runs.
    Syscalls(syscalls::Args),
    /// The kernel's own account of descry's programs, a sample and a frame.
    Unwind(unwind::Args),
    /// What it costs a program that does little else than switch to have its time off the CPU measured, in pairs.
    #[command(name = "offcpu")]
    OffCpu(offcpu::Args),
    /// What it costs servers to have their requests watched, in pairs with bare runs.
    Requests(requests::Args),
    /// The cost of a traced call, beside bpftrace, in pairs with bare runs.
    Trace(trace::Args),
    /// How fast spans become the bytes of OTLP requests.
    Export(export::Args),
}

/// Runs a measurement.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Profile(args) => profile::run(args),
        Bench::Syscalls(args) => syscalls::run(args),
        Bench::Unwind(args) => unwind::run(args),
        Bench::OffCpu(args) => offcpu::run(args),
        Bench::Requests(args) => requests::run(args),
        Bench::Trace(args) => trace::run(args),
        Bench::Export(args) => export::run(args),
    }
}
