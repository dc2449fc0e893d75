//! What the sender must know of one OpenTelemetry signal.
//!
//! A further signal is one more [`Signal`] constant and one more [`SignalRequest`] implementation;
//! transports, retries, settings and accounting are the same for all of them.

use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};

use crate::otlp::json::Json;

/// The names by which the OTLP specification and the exporter's environment know a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Plural lower-case name, for messages: `profiles`.
    pub name: &'static str,
    /// The part between `OTEL_EXPORTER_OTLP_` and the option in the per-signal variables: `PROFILES`.
    pub variable_infix: &'static str,
    /// Path below the base endpoint for OTLP/HTTP ("OTLP/HTTP Request" in the OTLP specification).
    pub http_path: &'static str,
    /// Path of the unary gRPC method (`/PACKAGE.SERVICE/METHOD`).
    pub grpc_path: &'static str,
    /// JSON name of the rejected count in the response's `partialSuccess`.
    pub rejected_json_name: &'static str,
}

impl Signal {
    /// `opentelemetry.proto.profiles.v1development`, the profiling signal in development.
    pub const PROFILES: Self = Self {
        name: "profiles",
        variable_infix: "PROFILES",
        http_path: "/v1development/profiles",
        grpc_path: "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        rejected_json_name: "rejectedProfiles",
    };
}

/// What a receiver says beside "accepted": the `partial_success` field of an export response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Items of the request that the receiver did not keep.
    pub rejected: u64,
    /// The receiver's explanation, or a warning when nothing was rejected. Foreign text.
    pub message: String,
}

/// An OTLP export request that the sender can send.
pub trait SignalRequest: prost::Message {
    /// The signal that it belongs to.
    const SIGNAL: Signal;
    /// The response message of the same service.
    type Response: prost::Message + Default + 'static;
    /// The items in it, in the unit in which the receiver counts rejected ones
    /// (profiles, spans, data points, log records).
    fn items(&self) -> u64;
    /// The request in OTLP's JSON encoding.
    ///
    /// # Errors
    /// If a value has no JSON form.
    fn to_json(&self) -> serde_json::Result<Vec<u8>>;
    /// The `partial_success` field of the response, if it was set.
    fn partial_success(response: Self::Response) -> Option<PartialSuccess>;
}

impl SignalRequest for ExportProfilesServiceRequest {
    const SIGNAL: Signal = Signal::PROFILES;
    type Response = ExportProfilesServiceResponse;

    fn items(&self) -> u64 {
        let profiles = self.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
        profiles.map(|scope| scope.profiles.len() as u64).sum()
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Json(self))
    }

    fn partial_success(response: ExportProfilesServiceResponse) -> Option<PartialSuccess> {
        response.partial_success.map(|partial| PartialSuccess {
            rejected: u64::try_from(partial.rejected_profiles).unwrap_or(0),
            message: partial.error_message,
        })
    }
}
