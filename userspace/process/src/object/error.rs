//! Why a mapped file could not be used.

use std::io;
use std::path::PathBuf;

/// Why a mapped file is not an [`Object`](crate::object::Object).
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// No way to the file worked.
    #[error(
        "{path} cannot be opened: {source}; its functions will have no names unless descry has CAP_SYS_ADMIN \
         (or CAP_CHECKPOINT_RESTORE) and CAP_SYS_PTRACE, or the file is still where it was"
    )]
    Unavailable {
        /// The path as the process saw it.
        path: PathBuf,
        /// The answer to the last attempt.
        source: io::Error,
    },
    /// Another file has the path now.
    #[error(
        "{path} is not the file that was mapped any more: it was replaced, and the process cannot be asked"
    )]
    Replaced {
        /// The path as the process saw it.
        path: PathBuf,
    },
    /// A directory, device, pipe or socket.
    #[error("{path} is not a regular file; descry does not open devices and pipes of other programs")]
    NotRegular {
        /// The path as the process saw it.
        path: PathBuf,
    },
    /// The file is not readable as ELF.
    #[error("{path} is not usable as ELF: {source}")]
    NotElf {
        /// The path as the process saw it.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The same file was found unusable before.
    #[error("{path} was found unusable as ELF before")]
    KnownBad {
        /// The path as the process saw it.
        path: PathBuf,
    },
    /// This process has no vdso of its own to read.
    #[error("the vdso of this kernel cannot be read: {reason}; its frames will have no names")]
    NoVdso {
        /// What went wrong.
        reason: String,
    },
}

/// Why bytes are not usable as ELF.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file could not be read.
    #[error("reading {len} bytes at {offset:#x} failed: {source}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It points behind its own end.
    #[error("{len} bytes at {offset:#x} are asked for, and the file has {file_len}")]
    OutOfFile {
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// More is asked for than descry reads.
    #[error("{what} of {len} bytes is more than the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its length.
        len: u64,
        /// The most that is read.
        limit: u64,
    },
    /// It does not begin as ELF files do.
    #[error("it has no valid ELF header")]
    NoHeader,
    /// A field of it makes no sense.
    #[error("{what}")]
    Malformed {
        /// Which, and why.
        what: String,
    },
}
