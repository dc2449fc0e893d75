//! Ring buffer bytes to events.
//!
//! Give it one record of the ring; get an [`Event`], or the reason why it is none. It never panics, reads no clock,
//! and keeps nothing. The newtypes that the rest of descry speaks in live here too, because every stage is downstream.
#![forbid(unsafe_code)]

mod event;
pub mod ids;
mod net;
mod parse;

pub use event::{Closed, Event, Lifecycle, Message, Opened, Role, Sample, StackCopy, Transport, UnwindEnd};
pub use parse::{DecodeError, decode};
