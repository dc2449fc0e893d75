//! Addresses to functions, files and lines.
//!
//! You give addresses of an ELF file, of the kernel or of code made at run time; you get, for each, the functions of
//! the source that it lies in, inlined ones included. A file is read with `pread`, page by page, for the addresses asked
//! for, and nothing of it is kept after the call: what names a hundred addresses of a 150 MB file takes a few MB.
//!
//! Files belong to whoever built the watched program and are taken for hostile: nothing is mapped (a file that is
//! truncated while mapped kills its reader), nothing recurses, no other file is followed, all work is bounded by
//! [`Limits`]. Names are given as they are; escaping them for a terminal is the output's duty.
#![forbid(unsafe_code)]

mod budget;
mod counters;
mod dwarf;
mod elf;
mod error;
mod file;
mod frame;
mod gopclntab;
mod kernel;
mod name;
mod options;
mod perf_map;
mod plt;
mod reader;
mod symbolizer;
mod symtab;

pub use counters::Counters;
pub use error::{Outcome, SymbolError};
pub use frame::{FrameKind, SourceFrame, Symbolized};
pub use options::{Limits, ObjectSource, Options};
pub use perf_map::{MAX_MAP_BYTES, MAX_MAP_ENTRIES, PerfMap};
pub use symbolizer::Symbolizer;
