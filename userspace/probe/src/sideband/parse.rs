//! Bytes of a perf record to an event. Formats: perf_event_open(2), linux/perf_event.h.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use descry_decode::ids::{BootNanos, Comm, FileOffset, RuntimeAddress, Tgid};

/// An executable mapping was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmapEvent {
    /// When.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// First address.
    pub start: RuntimeAddress,
    /// Bytes.
    pub len: u64,
    /// Where in the file it begins.
    pub offset: FileOffset,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file's inode number; 0: no file.
    pub inode: u64,
    /// Path in the mount namespace of the process; `//anon`, `[vdso]` and the like without a file.
    pub path: PathBuf,
}

/// A process began to run another program: what it had mapped before is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecEvent {
    /// When: after the old program's mappings went, before the new one's were made.
    pub time: BootNanos,
    /// Process.
    pub tgid: Tgid,
    /// Name of the process from now on.
    pub comm: Comm,
}

/// A record, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Mmap(MmapEvent),
    Exec(ExecEvent),
    Lost(u64),
    Other,
}

/// The record is shorter than its form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_MMAP2: u32 = 10;
/// In the header's `misc`: the name changed because of an exec.
const PERF_RECORD_MISC_COMM_EXEC: u16 = 1 << 13;
/// Bytes of a record's header.
const HEADER: usize = 8;
/// Bytes of a MMAP2 before the path.
const MMAP2_FIXED: usize = HEADER + 64;
/// `struct sample_id` with PERF_SAMPLE_TID and PERF_SAMPLE_TIME.
const SAMPLE_ID: usize = 16;

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let word = bytes.get(at..at + 2).and_then(|slice| slice.try_into().ok());
    word.map(u16::from_ne_bytes).ok_or(Malformed)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let word = bytes.get(at..at + 4).and_then(|slice| slice.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or(Malformed)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Malformed> {
    let word = bytes.get(at..at + 8).and_then(|slice| slice.try_into().ok());
    word.map(u64::from_ne_bytes).ok_or(Malformed)
}

/// Reads one record with its header.
pub(super) fn record(bytes: &[u8]) -> Result<Record, Malformed> {
    match u32_at(bytes, 0)? {
        PERF_RECORD_LOST => Ok(Record::Lost(u64_at(bytes, HEADER + 8)?)),
        PERF_RECORD_MMAP2 => mmap2(bytes).map(Record::Mmap),
        PERF_RECORD_COMM if u16_at(bytes, 4)? & PERF_RECORD_MISC_COMM_EXEC != 0 => {
            comm(bytes).map(Record::Exec)
        }
        _ => Ok(Record::Other),
    }
}

/// `pid, tid, comm[], sample_id`.
fn comm(bytes: &[u8]) -> Result<ExecEvent, Malformed> {
    let comm_end = bytes.len().checked_sub(SAMPLE_ID).ok_or(Malformed)?;
    let name = bytes.get(HEADER + 8..comm_end).ok_or(Malformed)?;
    let mut comm = Comm::default();
    for (to, from) in comm.0.iter_mut().zip(name) {
        *to = *from;
    }
    Ok(ExecEvent { time: BootNanos(u64_at(bytes, comm_end + 8)?), tgid: Tgid(u32_at(bytes, HEADER)?), comm })
}

/// `pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags, filename[], sample_id`.
fn mmap2(bytes: &[u8]) -> Result<MmapEvent, Malformed> {
    let path_end = bytes.len().checked_sub(SAMPLE_ID).ok_or(Malformed)?;
    let path = bytes.get(MMAP2_FIXED..path_end).ok_or(Malformed)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(MmapEvent {
        tgid: Tgid(u32_at(bytes, HEADER)?),
        start: RuntimeAddress(u64_at(bytes, HEADER + 8)?),
        len: u64_at(bytes, HEADER + 16)?,
        offset: FileOffset(u64_at(bytes, HEADER + 24)?),
        device: (u32_at(bytes, HEADER + 32)?, u32_at(bytes, HEADER + 36)?),
        inode: u64_at(bytes, HEADER + 40)?,
        path: PathBuf::from(OsStr::from_bytes(path)),
        time: BootNanos(u64_at(bytes, path_end + 8)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![];
        let path = b"/usr/lib/libx.so\0\0\0\0\0\0\0\0";
        let size = (MMAP2_FIXED + path.len() + SAMPLE_ID) as u16;
        bytes.extend(PERF_RECORD_MMAP2.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(size.to_ne_bytes());
        bytes.extend([7u32.to_ne_bytes(), 8u32.to_ne_bytes()].concat());
        bytes.extend([0x7f00_0000_1000u64, 0x2000, 0x3000].map(u64::to_ne_bytes).concat());
        bytes.extend([8u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
        bytes.extend([99u64, 0].map(u64::to_ne_bytes).concat());
        bytes.extend([5u32.to_ne_bytes(), 2u32.to_ne_bytes()].concat());
        bytes.extend(path);
        bytes.extend([7u32.to_ne_bytes(), 8u32.to_ne_bytes()].concat());
        bytes.extend(123u64.to_ne_bytes());
        bytes
    }

    #[test]
    fn reads_a_mapping() {
        let Ok(Record::Mmap(event)) = record(&sample()) else { panic!("not a mapping") };
        let expected = MmapEvent {
            time: BootNanos(123),
            tgid: Tgid(7),
            start: RuntimeAddress(0x7f00_0000_1000),
            len: 0x2000,
            offset: FileOffset(0x3000),
            device: (8, 1),
            inode: 99,
            path: "/usr/lib/libx.so".into(),
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn reads_an_exec() {
        let mut bytes = vec![];
        bytes.extend(PERF_RECORD_COMM.to_ne_bytes());
        bytes.extend(PERF_RECORD_MISC_COMM_EXEC.to_ne_bytes());
        bytes.extend(40u16.to_ne_bytes());
        bytes.extend([7u32.to_ne_bytes(), 7u32.to_ne_bytes()].concat());
        bytes.extend(b"nginx\0\0\0");
        bytes.extend([7u32.to_ne_bytes(), 7u32.to_ne_bytes()].concat());
        bytes.extend(55u64.to_ne_bytes());
        let Ok(Record::Exec(event)) = record(&bytes) else { panic!("not an exec") };
        assert_eq!(
            (event.tgid, event.time, event.comm.to_string().as_str()),
            (Tgid(7), BootNanos(55), "nginx")
        );
        bytes[5] = 0;
        assert_eq!(record(&bytes), Ok(Record::Other), "a thread took another name");
    }

    #[test]
    fn survives_every_truncation() {
        let whole = sample();
        for len in 0..MMAP2_FIXED {
            assert_eq!(record(&whole[..len]), Err(Malformed), "{len} bytes");
        }
    }
}
