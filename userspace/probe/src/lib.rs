//! Loads, attaches and reads the kernel side. The only user of aya, and the only crate of userspace with `unsafe`.
//!
//! - [`Session`]: the loaded programs and maps; attach them, drain their events, read their counters.
//! - [`Tables`]: the pool of unwind tables, written through shared memory.
//! - [`SideBand`]: new executable mappings of every process, from the perf subsystem.
//! - [`Wake`]: what ends a wait for either ring early.
//! - [`HeldChild`]: a program that was started and waits before its first instruction.
//! - [`doctor`]: what this kernel gives.

mod btf;
mod clock;
mod cpu;
pub mod doctor;
mod error;
mod memory;
mod offsets;
mod session;
mod sideband;
mod spawn;
mod tables;
mod uprobe;
mod wake;

pub use cpu::{online_cpus, possible_cpus};
pub use error::ProbeError;
pub use memory::{give_code_back, give_memory_back, keep_large_blocks_apart, map_file};
pub use session::{
    Captured, Exclusion, FunctionFigures, Functions, OffCpu, Options, Sampler, Sampling, Scope, Session,
    SocketHooks, SyscallCount, Syscalls, TcpCount, TlsProbes, TlsSites, Wanted,
};
pub use sideband::{ExecEvent, MmapEvent, SideBand, SideBandEvent};
pub use spawn::HeldChild;
pub use tables::Tables;
pub use uprobe::{Hook, Refused, Site};
pub use wake::Wake;
