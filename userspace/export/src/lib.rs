//! Profiles, spans, system calls and metrics to files and to OTLP endpoints.
#![forbid(unsafe_code)]
pub mod format;
pub mod function;
pub mod otlp;
pub mod queue;
pub mod send;
pub mod span;
pub mod syscall;
