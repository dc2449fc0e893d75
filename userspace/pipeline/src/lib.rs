//! Between what was measured and what leaves: sampling, filters, redaction.
//!
//! - [`Sampling`] decides where a trace begins on this machine whether it is sent; what is below follows, since it
//!   inherits the flags.
//! - [`Filter`] keeps or drops one span or log record by an attribute of it or of its Resource.
//! - [`Redactor`] takes secrets out of texts.
//!
//! Metrics are made of all spans before any of it. It does no I/O and reads no clock: time is that of the spans.
#![forbid(unsafe_code)]

mod filter;
mod limit;
mod redact;
mod sample;
mod state;

pub use filter::{Action, Filter, keeps};
pub use limit::RateLimit;
pub use redact::{Redactor, RedactorError, Rules};
pub use sample::{Sampler, SamplerError, Sampling, SamplingCounters, is_sampled, leave_out};
