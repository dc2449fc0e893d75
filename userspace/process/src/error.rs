//! Why something about a process could not be had.

use std::io;

use descry_decode::ids::Tgid;
use nix::errno::Errno;

/// Why `/proc` did not tell what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The process is not there, or ended while it was read.
    #[error("no process has pid {tgid} (in the pid namespace that descry runs in); it may have ended")]
    NoSuchProcess {
        /// The pid.
        tgid: Tgid,
    },
    /// The kernel refuses.
    #[error(
        "/proc/{tgid}/{file} may not be read: {source}; run as root, or give descry CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    )]
    Denied {
        /// The pid.
        tgid: Tgid,
        /// The file below `/proc/PID`.
        file: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another failure to read.
    #[error("/proc/{tgid}/{file} cannot be read: {source}")]
    Read {
        /// The pid.
        tgid: Tgid,
        /// The file below `/proc/PID`.
        file: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is not as proc(5) says.
    #[error("/proc/{tgid}/{file} is not as proc(5) describes it: {reason}; is this procfs a substitute?")]
    Malformed {
        /// The pid.
        tgid: Tgid,
        /// The file below `/proc/PID`.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl ProcessError {
    /// Sorts the kernel's answer to reading `/proc/PID/file`.
    pub(crate) fn from_io(tgid: Tgid, file: &str, source: io::Error) -> Self {
        let errno = source.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(Errno::ENOENT | Errno::ESRCH) => Self::NoSuchProcess { tgid },
            Some(Errno::EACCES | Errno::EPERM) => Self::Denied { tgid, file: file.to_owned(), source },
            _ => Self::Read { tgid, file: file.to_owned(), source },
        }
    }
}
