//! The signals of OpenTelemetry.

/// The names by which the OTLP specification and the exporter's environment know a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Plural lower-case name, for messages: `profiles`, `spans`.
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
    /// `opentelemetry.proto.trace.v1`.
    pub const TRACES: Self = Self {
        name: "spans",
        variable_infix: "TRACES",
        http_path: "/v1/traces",
        grpc_path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        rejected_json_name: "rejectedSpans",
    };
    /// `opentelemetry.proto.metrics.v1`.
    pub const METRICS: Self = Self {
        name: "metrics",
        variable_infix: "METRICS",
        http_path: "/v1/metrics",
        grpc_path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        rejected_json_name: "rejectedDataPoints",
    };
    /// `opentelemetry.proto.logs.v1`.
    pub const LOGS: Self = Self {
        name: "logs",
        variable_infix: "LOGS",
        http_path: "/v1/logs",
        grpc_path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        rejected_json_name: "rejectedLogRecords",
    };
}
