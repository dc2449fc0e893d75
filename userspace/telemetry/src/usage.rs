//! What descry itself costs.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// CPU time and memory of this process since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// User and system time of all threads, ended ones included, in nanoseconds.
    pub cpu_ns: u64,
    /// The most memory that was resident at once, in bytes.
    pub peak_rss_bytes: u64,
}

/// The kernel did not say.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// `getrusage` failed.
    #[error("cannot read this process's CPU time: {source}; getrusage must be allowed by the seccomp filter")]
    CpuTime {
        /// The reason.
        #[source]
        source: nix::Error,
    },
    /// `/proc/self/status` cannot be read.
    #[error("cannot read this process's memory from /proc/self/status: {source}; mount /proc")]
    Memory {
        /// The reason.
        #[source]
        source: procfs::ProcError,
    },
    /// `/proc/self/status` has no `VmHWM`.
    #[error("/proc/self/status has no VmHWM line; mount the kernel's own /proc")]
    NoPeak,
}

impl ProcessUsage {
    /// Asks the kernel.
    ///
    /// The peak is `VmHWM`, not `ru_maxrss`: that one also remembers the program that called exec.
    ///
    /// # Errors
    /// If `getrusage` or `/proc/self/status` cannot be read.
    pub fn now() -> Result<Self, UsageError> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(|source| UsageError::CpuTime { source })?;
        let status = procfs::process::Process::myself()
            .and_then(|process| process.status())
            .map_err(|source| UsageError::Memory { source })?;
        let peak_kib = status.vmhwm.ok_or(UsageError::NoPeak)?;
        let cpu = duration(usage.user_time()) + duration(usage.system_time());
        Ok(Self {
            cpu_ns: u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
            peak_rss_bytes: peak_kib.saturating_mul(1024),
        })
    }
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}
