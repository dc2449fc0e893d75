//! What descry says about itself: log lines on stderr, named counters, its own cost, and (when asked)
//! all of that as OTLP.
//!
//! You make one [`Counters`] and hand it to the stages; you call [`logging::init`] once; and where the
//! user gave an endpoint you keep an [`OwnTelemetry`] until the end. Nothing here looks at the data of
//! watched programs, and nothing leaves the machine without an endpoint.
#![forbid(unsafe_code)]

mod counter;
pub mod logging;
mod own;
mod runtime_client;
mod usage;

pub use counter::{Counter, Counters, Reading};
pub use logging::{LogFormat, Logging, LoggingError};
pub use own::{OwnTelemetry, OwnTelemetryError};
pub use usage::{ProcessUsage, UsageError};
