//! Profiles, spans, metrics and log records as OTLP messages.
//!
//! Give it a [`Profile`]; get one [`ProfilesData`] ([`profiles_data`]), or requests under a size limit, each with a
//! dictionary of its own ([`requests`]). Give a [`TraceWriter`] spans, a [`LogWriter`] log records, or
//! [`metrics::metrics_requests`] what was counted; get requests of these signals. It does no I/O and reads no clock. The messages keep the rules of the data
//! models that [`check`], [`check_traces`] and [`check_metrics`] verify.
//!
//! What a profile becomes:
//!
//! * One `ResourceProfiles` a process, with the process's Resource. A measurement without samples is one
//!   `ResourceProfiles` without attributes, so that a reader still sees what was measured, and when.
//! * Two `Profile`s a process, because one has one `sample_type`: first `samples`/`count`, the shape that
//!   OpenTelemetry's eBPF profiler sends, then the time: `cpu`, `off_cpu` or `wall`/`nanoseconds`, as in the comments
//!   of profiles.proto. The period type is the time's type.
//! * Where the times of samples are known, the first has timestamps and no values (each counts one); the second has
//!   the sum over the samples.
//! * A truncated stack ends, at its root, in a location of its own without mapping and address, whose only function
//!   is `[truncated]`.
//! * An unknown frame is a location without lines: its mapping and address identify it.
//! * Addresses are those of the ELF file, so a mapping has a memory range only where its locations lie in it (the
//!   kernel, programs at fixed addresses); profiles.proto wants the addresses inside the range.

mod attributes;
mod build;
mod check;
mod dictionary;
pub mod json;
mod logs;
pub mod metrics;
mod requests;
mod traces;
mod wire;

use descry_aggregate::profile::Profile;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;

pub(crate) use build::REASON;
pub use check::{Rule, Violation, check, check_metrics, check_traces};
pub use logs::{LogRecord, LogWriter, Severity};
pub use requests::{Requests, requests};
pub use traces::{EncodedResource, TraceRequest, TraceWriter};

/// Name of the instrumentation scope of everything that descry sends.
pub const SCOPE_NAME: &str = "descry";

/// Most bytes of one request before compression: receivers refuse gRPC messages over 4 MiB unless told otherwise.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024 - 1024;

/// Function name of the location that ends a stack whose root is missing.
pub(crate) const TRUNCATED: &str = "[truncated]";

/// What a profile does not say itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpOptions {
    /// Version of the instrumentation scope.
    pub scope_version: String,
}

impl Default for OtlpOptions {
    /// This build's version.
    fn default() -> Self {
        Self { scope_version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The whole profile as one message.
pub fn profiles_data(profile: &Profile, options: &OtlpOptions) -> ProfilesData {
    let source = build::Source::new(profile, options.clone());
    source.message(&source.pieces(), 0)
}
