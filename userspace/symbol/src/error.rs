//! Why an address stayed unknown, or is known less well than it could be.

use std::io;
use std::sync::Arc;

use crate::frame::Symbolized;

/// A reason why names, lines or inlined functions are missing. None of them stops a symbolization.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolError {
    /// A file could not be read.
    #[error("cannot read {name}: {source}; its addresses stay without names")]
    Read {
        /// The file, as its process sees it.
        name: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// A path names a pipe, a device or a directory.
    #[error("{name} is not a regular file, so it is not read")]
    NotRegular {
        /// The file.
        name: Arc<str>,
    },
    /// A file belongs to another user than the process that it describes.
    #[error("{name} belongs to user {found}, not to {expected} as its process; it is not believed")]
    WrongOwner {
        /// The file.
        name: Arc<str>,
        /// The owner of the file.
        found: u32,
        /// The user of the process.
        expected: u32,
    },
    /// A file is not a 64-bit little-endian ELF file, or its headers contradict each other.
    #[error("{name} is no ELF file that descry reads: {reason}")]
    Elf {
        /// The file.
        name: Arc<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// The debug information contradicts itself.
    #[error("the debug information of {name} is damaged: {reason}; names come from its symbol table")]
    Dwarf {
        /// The file.
        name: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// A debug section could not be decompressed.
    #[error("section {section} of {name} cannot be decompressed: {reason}; names come from its symbol table")]
    Compressed {
        /// The file.
        name: Arc<str>,
        /// The section.
        section: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What blazesym needs of a file could not be copied.
    #[error(
        "cannot copy the symbols of {name}: {source}; make room in /var/tmp, or its addresses stay without names"
    )]
    Copy {
        /// The file.
        name: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// blazesym failed in a way that it should not.
    #[error("blazesym cannot name addresses of {name}: {reason}; some of them stay without names")]
    Symbolizer {
        /// The file.
        name: Arc<str>,
        /// What it said.
        reason: String,
    },
    /// No thread could be started to name addresses on.
    #[error("cannot start a thread to name addresses of {name}: {source}; they stay without names")]
    Thread {
        /// The file.
        name: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// The debug information is larger than allowed.
    #[error(
        "the debug information of {name} is {size} bytes, above the limit of {limit}; names come from its symbol table"
    )]
    TooLarge {
        /// The file.
        name: Arc<str>,
        /// Size (bytes).
        size: u64,
        /// [`Limits`](crate::Limits) in force (bytes).
        limit: u64,
    },
    /// Reading a file took more work than allowed; what was found before is kept.
    #[error("{name} needs more than {limit} steps to read; some of its addresses stay without names")]
    TooMuchWork {
        /// The file.
        name: Arc<str>,
        /// [`Limits::max_work`](crate::Limits::max_work).
        limit: u64,
    },
    /// The kernel hides its addresses.
    #[error("the kernel hides its addresses; set kernel.kptr_restrict to 1 and run with CAP_SYSLOG")]
    KernelAddressesHidden,
}

/// What became of a list of addresses.
#[derive(Debug)]
pub struct Outcome {
    /// One entry for each address, in the order of the addresses.
    pub symbols: Vec<Symbolized>,
    /// What went wrong on the way, at most a few entries.
    pub problems: Vec<SymbolError>,
}
