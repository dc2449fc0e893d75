//! New executable mappings of every process, from the perf subsystem.
//!
//! The kernel writes a `PERF_RECORD_MMAP2` for each executable mapping that is made or made executable, with the file's
//! device and inode and the path, and a `PERF_RECORD_COMM` for each exec, just before the new program is mapped. Nothing is asked of the watched program: no system call is hooked. Kernel 5.15 and
//! later have all that is used (`mmap2` is of 3.16).

mod parse;
mod ring;

pub use parse::{ExecEvent, MmapEvent};

use std::time::Duration;

use descry_decode::ids::BootNanos;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{ProbeError, online_cpus};
use ring::Ring;

/// News of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SideBandEvent {
    /// An executable mapping was made.
    Mmap(MmapEvent),
    /// It began to run another program.
    Exec(ExecEvent),
}

impl SideBandEvent {
    /// When it happened.
    pub fn time(&self) -> BootNanos {
        match self {
            Self::Mmap(event) => event.time,
            Self::Exec(event) => event.time,
        }
    }
}

/// One ring a CPU.
pub struct SideBand {
    rings: Vec<Ring>,
    lost: u64,
    malformed: u64,
}

impl SideBand {
    /// Opens a ring on every CPU that is online.
    pub fn open() -> Result<Self, ProbeError> {
        let rings = online_cpus()?.into_iter().map(Ring::open).collect::<Result<_, _>>()?;
        Ok(Self { rings, lost: 0, malformed: 0 })
    }

    /// Hands over all news since the last call, CPU by CPU: not in the order of time.
    pub fn drain(&mut self, mut handle: impl FnMut(SideBandEvent)) {
        for ring in &mut self.rings {
            ring.drain(|record| match parse::record(record) {
                Ok(parse::Record::Mmap(event)) => handle(SideBandEvent::Mmap(event)),
                Ok(parse::Record::Exec(event)) => handle(SideBandEvent::Exec(event)),
                Ok(parse::Record::Lost(count)) => self.lost += count,
                Ok(parse::Record::Other) => {}
                Err(parse::Malformed) => self.malformed += 1,
            });
        }
    }

    /// Waits for news, or until the time is up.
    pub fn wait(&self, timeout: Duration) -> Result<(), ProbeError> {
        let mut descriptors: Vec<PollFd<'_>> =
            self.rings.iter().map(|ring| PollFd::new(ring.descriptor(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(ProbeError::System { action: "wait for new mappings", source: errno.into() }),
        }
    }

    /// Records that the kernel could not write because a ring was full.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Records of a form that is not known.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}
