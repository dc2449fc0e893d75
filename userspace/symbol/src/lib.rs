//! Addresses to functions, files and lines.
//!
//! You give addresses of an ELF file, of the kernel or of code made at run time; you get, for each, the functions of
//! the source that it lies in, inlined ones included. [blazesym] reads symbol tables, debug information and
//! kallsyms; what it does not do is done here: names of stripped Go programs and of linkage tables, which of several
//! names of a place is best, and perf maps under the owner's name and with bounds. Nothing of a file is kept.
//!
//! Files belong to whoever built the watched program and are taken for hostile, and blazesym is not made for those. So:
//! - a file that others can make shorter is copied before blazesym maps it ([`Counters::copies`]), which also
//!   decompresses its sections within [`Limits`] and drops all links to other files;
//! - debug information is walked before blazesym sees it, and not used if it nests too deeply or repeats itself;
//! - blazesym runs on a thread with a large stack, its panics are caught ([`Counters::panics`]), it is asked for a few
//!   addresses at a time and forgets what it parsed after them.
//!
//! What is not bounded is time as such: a thread cannot be stopped. It is bounded by the size of what is read.
//! Names are given as they are; escaping them for a terminal is the output's duty.
#![forbid(unsafe_code)]

mod alias;
mod budget;
mod copy;
mod counters;
mod elf;
mod error;
mod file;
mod frame;
mod go_unit;
mod gopclntab;
mod kernel;
mod lookup;
mod name;

mod options;
mod perf_map;
mod plt;
mod resolve;
mod strings;
mod symbolizer;
mod vet;

pub use counters::Counters;
pub use error::{Outcome, SymbolError};
pub use file::is_of_the_system;
pub use frame::{FrameKind, SourceFrame, Symbolized};
pub use go_unit::goroutine_rule;
pub use gopclntab::{GoFunction, go_functions};
pub use kernel::KernelNames;
pub use name::readable;
pub use options::{Limits, ObjectSource, Options};
pub use perf_map::{MAX_MAP_BYTES, MAX_MAP_ENTRIES, PerfMap};
pub use symbolizer::Symbolizer;
