//! Samples to a profile.
//!
//! Give an [`Aggregator`] each sample with its stack as [`CodeRef`]s, and the sums of [`Waits`]; it interns the stacks and
//! adds up what is equal.
//! When the measurement ends, say what each code reference is ([`Aggregator::code`]), and get a [`profile::Profile`].
//! Spans are added up as [`request`] metrics.
//! It does no I/O, reads no clock, and keeps a bounded number of stacks and times.
#![forbid(unsafe_code)]

mod aggregator;
mod chain;
mod code;
mod finish;
pub mod histogram;
pub mod profile;
mod prune;
mod reason;
pub mod request;
pub mod syscalls;
pub mod tcp;

pub use aggregator::{Aggregator, Counters, Dimensions, Limits, OTHERS, Observation, StackNumber, Waits};
pub use code::CodeRef;
pub use finish::{KnownCode, KnownProcess, Summary};
pub use prune::LeftOut;
pub use reason::{Circumstances, reason};
