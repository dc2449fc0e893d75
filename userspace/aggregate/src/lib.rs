//! Samples to a profile.
//!
//! Give an [`Aggregator`] each sample with its stack as [`CodeRef`]s; it interns the stacks and adds up equal samples.
//! When the measurement ends, say what each code reference is ([`Aggregator::code`]), and get a [`profile::Profile`].
//! It does no I/O, reads no clock, and keeps a bounded number of stacks and times.
#![forbid(unsafe_code)]

mod aggregator;
mod code;
mod finish;
pub mod histogram;
pub mod profile;
pub mod syscalls;

pub use aggregator::{Aggregator, Counters, Dimensions, Limits, OTHERS, Observation};
pub use code::CodeRef;
pub use finish::{KnownCode, KnownProcess, Summary};
