//! Who a pid is: identity, executable mappings, binaries held open, container, Resource attributes, and the choice of
//! what to watch.
//!
//! Give it pids, events about them, and addresses; get binaries with addresses in their own numbering, and Resources.
//! It reads `/proc` and ELF files, never a target's memory, and never writes. Each cache has a limit, each discard a
//! counter.
#![forbid(unsafe_code)]

pub mod counter;
pub mod descriptor;
mod error;
pub mod identity;
pub mod libraries;
pub mod listening;
pub mod maps;
pub mod namespace;
pub mod object;
mod proc_file;
pub mod table;
pub mod target;

pub use error::ProcessError;
pub use identity::{AttributeValue, Attributes};
