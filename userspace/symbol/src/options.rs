//! What to look for, and how much it may cost.

use std::path::PathBuf;
use std::sync::Arc;

/// Bounds on the work for one object. Input is written by whoever built the program, so everything has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Debug sections together, as stored in the file (bytes); above it only symbol tables are read.
    pub max_debug_bytes: u64,
    /// Bytes of a copy of symbol tables and debug sections, decompressed. A copy is made of files that others can
    /// change while they are read; above 32 MiB it does not lie in memory but in `/var/tmp`.
    pub max_decompressed_bytes: u64,
    /// Steps of the checks before and after symbolization, about one for each byte of debug information, for one call;
    /// and one for each byte of memory that symbolization may take in the worst case. Files of the system, to which only
    /// root can write, do not pay for memory. Real files take far less than they pay for.
    pub max_work: u64,
    /// Symbols of one table; a larger table is not used (blazesym's index takes 8 bytes a symbol).
    pub max_symbols: u64,
    /// Bytes of a name; longer ones are cut and end in `…`.
    pub max_name_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_debug_bytes: 1 << 30,
            max_decompressed_bytes: 256 << 20,
            max_work: 1 << 30,
            max_symbols: 4 << 20,
            max_name_bytes: 4096,
        }
    }
}

/// What a [`Symbolizer`](crate::Symbolizer) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read debug information; else names come from symbol tables alone.
    pub debug_info: bool,
    /// Report inlined functions as frames of their own.
    pub inlines: bool,
    /// Report files and lines.
    pub lines: bool,
    /// Bounds on the work.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { debug_info: true, inlines: true, lines: true, limits: Limits::default() }
    }
}

/// One file with code, and where to read it.
#[derive(Clone, Debug)]
pub struct ObjectSource {
    /// Where the file can be opened now, for example `/proc/self/fd/N` when it is gone from its directory.
    pub open_path: PathBuf,
    /// The path as the process sees it.
    pub name: Arc<str>,
    /// A file with the debug information of this one, if the caller found one (by build id or debug link).
    pub debug_path: Option<PathBuf>,
    /// Whether the Go toolchain built it.
    pub is_go: bool,
    /// Whether it holds Rust.
    pub is_rust: bool,
}
