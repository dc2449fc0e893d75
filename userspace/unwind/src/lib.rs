//! Call frame information to unwind rows, and the userspace unwinder.
//!
//! You give the bytes of an ELF file; you get
//!
//! - [`rows::Rows`]: for every address of its code, how to find the caller's frame, in the few shapes that the kernel
//!   side understands ([`rows::build`]);
//! - those rows as the 8-byte slots that the kernel side reads ([`layout::layout`]);
//! - [`pool::Pool`]: where in the kernel's tables they go, and what has to leave for them;
//! - [`walk::Walker`]: the walk up a copied stack with all registers, for what a row cannot express.
//!
//! Nothing here does I/O, reads a clock or trusts its input: a broken entry costs its function and is counted.
#![forbid(unsafe_code)]

pub mod cfi;
mod elf;
mod error;
mod expression;
mod fde;
pub mod layout;
pub mod pool;
mod report;
pub mod rows;
mod rule;
mod search_table;
mod section;

pub mod walk;

pub use elf::Architecture;
pub use error::Error;
pub use report::{Limits, Report};
pub use rule::Rule;
