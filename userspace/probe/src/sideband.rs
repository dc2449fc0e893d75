//! New executable mappings of every process, from the perf subsystem.
//!
//! The kernel writes a `PERF_RECORD_MMAP2` for each executable mapping that is made or made executable, with the file's
//! device and inode and the path, and a `PERF_RECORD_COMM` for each exec, just before the new program is mapped. Nothing is asked of the watched program: no system call is hooked. Kernel 5.15 and
//! later have all that is used (`mmap2` is of 3.16).

mod parse;
mod ring;

pub use parse::{ExecEvent, MmapEvent};

use std::os::fd::BorrowedFd;

use descry_decode::ids::BootNanos;

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

    /// Readable, by edge, when there is news.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(Ring::descriptor)
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
