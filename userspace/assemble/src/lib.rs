//! Captured bytes to messages, messages to requests, requests and calls to spans.
//!
//! Everything here is pure: it does no I/O, reads no clock and starts no task. A parser gets the bytes of one
//! connection in the order in which they were sent, with gaps marked, and gives [`protocol::Exchange`]s; it survives
//! whatever bytes come, and what cannot be known it leaves out.
#![forbid(unsafe_code)]

pub mod capture;
pub mod connect;
pub mod connection;
pub mod infer;
pub mod join;
pub mod protocol;
pub mod route;
pub mod span;
pub mod sql;
pub mod template;
pub mod trace_context;
