//! Ring buffer bytes to events.
//!
//! Give it one record of the ring; get an [`Event`], or the reason why it is none. [`time_of`] gives the event's time
//! alone. It never panics, reads no clock, and keeps nothing. The newtypes that the rest of descry speaks in live here too, because every stage is downstream.
#![forbid(unsafe_code)]

mod event;
pub mod ids;
mod net;
mod parse;
pub mod syscall;

pub use event::{
    Argument, Arguments, Call, Closed, Closer, ConnectFailed, Event, FileKind, KnownAnswer, KnownExchange,
    Lifecycle, MAX_ARGUMENTS, Message, Opened, Plaintext, RequestWait, Role, Sample, SlowCall, StackCopy,
    Transport, UnwindEnd, Wait, WaitKind, WaitOf, WaitState,
};
pub use parse::{DecodeError, decode, time_of, wait_of};
