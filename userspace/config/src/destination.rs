//! Where to send: the settings of one receiver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scalar::{Expression, Pattern, Period, Size, Url};

/// A receiver of OTLP
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its name in logs and metrics.
    pub name: String,
    /// Its base URL; for HTTP the path of the signal is appended.
    pub endpoint: Url,
    /// More URLs that lead to receivers of the same data.
    #[serde(default)]
    pub more_endpoints: Vec<Url>,
    /// Which of several endpoints a request goes to.
    #[serde(default)]
    pub balancing: Balancing,
    /// What is sent; none named: all.
    #[serde(default)]
    pub signals: Vec<SignalName>,
    /// Which spans and log records are sent; the first that fits decides, what none fits is sent.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// What is taken out of texts.
    #[serde(default)]
    pub redaction: Redaction,
    /// How to talk to it; without: grpc for port 4317, else http/protobuf.
    #[serde(default)]
    #[schemars(with = "Protocol")]
    pub protocol: Option<Protocol>,
    /// Compression of requests.
    #[serde(default)]
    pub compression: Compression,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers whose value is a file's content; the files are read anew when they change.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// How long one request may take with its retries; then it is kept for later.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
    /// Certificates; used with https.
    #[serde(default)]
    pub tls: TlsSettings,
    /// What waits in memory.
    #[serde(default)]
    pub queue: Queue,
    /// What waits on disk.
    #[serde(default)]
    pub spool: Spool,
}

fn ten_seconds() -> Period {
    Period(Duration::from_secs(10))
}

/// A signal of OTLP
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalName {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Profiles.
    Profiles,
    /// Log records.
    Logs,
}

/// A way of choosing among endpoints
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balancing {
    /// The first that works.
    #[default]
    Failover,
    /// One after the other, those that work.
    RoundRobin,
}

/// Fits a span or a log record by one of its attributes, or of its Resource's
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The attribute's name.
    pub attribute: String,
    /// Its value as text; without: any.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub value: Option<Pattern>,
    /// What is done with it.
    pub action: FilterAction,
}

/// What is done with what a filter fits
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilterAction {
    /// It is sent.
    Keep,
    /// It is not.
    Drop,
}

/// What is taken out of the texts of spans and log records
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redaction {
    /// Card numbers: 13 to 19 digits whose check digit is right (Luhn).
    pub cards: bool,
    /// Tokens and keys: JSON web tokens, bearer tokens, keys of well-known services, `password=`.
    pub tokens: bool,
    /// E-mail addresses.
    pub emails: bool,
    /// What these regular expressions fit.
    pub patterns: Vec<Expression>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { cards: true, tokens: true, emails: true, patterns: Vec::new() }
    }
}

/// A transport of OTLP
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Protobuf over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON over HTTP.
    #[serde(rename = "http/json")]
    HttpJson,
}

impl Protocol {
    /// As OTEL_EXPORTER_OTLP_PROTOCOL has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }
}

/// A compression
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// What every receiver takes.
    #[default]
    Gzip,
    /// Faster and smaller; the OpenTelemetry Collector takes it.
    Zstd,
}

impl Compression {
    /// As OTEL_EXPORTER_OTLP_COMPRESSION has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// PEM files
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificates to trust instead of the system's.
    #[schemars(with = "PathBuf")]
    pub ca: Option<PathBuf>,
    /// The agent's own certificate chain; with `key`.
    #[schemars(with = "PathBuf")]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[schemars(with = "PathBuf")]
    pub key: Option<PathBuf>,
}

/// What waits in memory
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Requests at most.
    #[schemars(range(min = 1, max = 10000))]
    pub requests: u32,
    /// Their bytes at most; from 4MiB, the largest request.
    pub size: Size,
}

impl Default for Queue {
    fn default() -> Self {
        Self { requests: 64, size: Size(16 << 20) }
    }
}

/// What waits on disk while the receiver cannot be reached
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// The directory, for this destination alone; without: nothing is kept on disk.
    #[schemars(with = "PathBuf")]
    pub directory: Option<PathBuf>,
    /// Bytes at most, from 16MiB; then the oldest is dropped.
    pub size: Size,
}

impl Default for Spool {
    fn default() -> Self {
        Self { directory: None, size: Size(256 << 20) }
    }
}
