//! What `descry syscalls` measured: a table for people, an object of JSON, OTLP metrics, and spans of slow calls.
//!
//! Give it a [`SyscallReport`](descry_aggregate::syscalls::SyscallReport); get bytes or messages. It does no I/O of its own and
//! reads no clock. Text from watched programs comes out without characters that could drive a terminal.

mod json;
mod otlp;
mod text;

use std::fmt;
use std::str::FromStr;

use descry_abi::histogram::Histogram;
use descry_aggregate::histogram::quantile;

pub use json::json;
pub use otlp::{metrics, slow_span};
pub use text::text;

/// What it can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallFormat {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

impl SyscallFormat {
    /// The name that [`FromStr`] takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for SyscallFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No format has this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown format {name:?}; use text or json")]
pub struct UnknownSyscallFormat {
    /// What was asked for.
    pub name: String,
}

impl FromStr for SyscallFormat {
    type Err = UnknownSyscallFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownSyscallFormat { name: name.to_owned() }),
        }
    }
}

/// The quantiles that are shown: p50, p95, p99 (ns); 0 of no calls.
fn quantiles(durations: &Histogram) -> [u64; 3] {
    [0.5, 0.95, 0.99].map(|share| quantile(durations, share).unwrap_or_default())
}
