//! Addresses to functions, files and lines.
#![forbid(unsafe_code)]

mod frame;

pub use frame::{FrameKind, SourceFrame, Symbolized};
