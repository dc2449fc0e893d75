//! The settings. Their documentation is the schema's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scalar::{Address, Pattern, Period, Size, Url};

/// The configuration of descry's agent
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which processes to watch: the first rule that fits a process decides.
    pub rules: Vec<Rule>,
    /// What is done with processes that no rule fits.
    pub others: Switches,
    /// Continuous CPU profiles.
    pub profile: Profile,
    /// What is told of each process.
    pub resource: ResourceSettings,
    /// Where to send. None: to the endpoint of the OTEL_EXPORTER_OTLP_* variables, else to files.
    pub destinations: Vec<Destination>,
    /// Where files go if nothing else is named.
    pub file: FileOutput,
    /// Health, readiness and metrics over HTTP.
    pub health: Health,
    /// descry's own logs, traces and counters.
    pub telemetry: Telemetry,
}

/// Fits a process if all of its patterns do; it has at least one
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The path of the program, in its own mount namespace.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub exe: Option<Pattern>,
    /// The name of the process, as in /proc/PID/comm.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub comm: Option<Pattern>,
    /// The path of its cgroup (v2), as in /proc/PID/cgroup.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub cgroup: Option<Pattern>,
    /// The id of its container.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub container: Option<Pattern>,
    /// Whether these processes are in the profiles.
    #[serde(default = "yes")]
    pub profile: bool,
}

fn yes() -> bool {
    true
}

/// What is done with a process
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Whether it is in the profiles.
    pub profile: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self { profile: true }
    }
}

/// Continuous CPU profiles
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Whether to profile at all.
    pub enabled: bool,
    /// Samples a second and CPU.
    #[schemars(range(min = 1, max = 999))]
    pub frequency: u64,
    /// How long one profile is; from 1s to 10m.
    pub window: Period,
    /// Whether kernel frames are kept.
    pub kernel: bool,
    /// Whether inlined functions are shown.
    pub inlines: bool,
    /// Kernel memory for unwind tables at most (MiB).
    #[schemars(range(min = 1, max = 512))]
    pub unwind_memory: u32,
}

impl Default for Profile {
    fn default() -> Self {
        let window = Period(Duration::from_secs(10));
        Self { enabled: true, frequency: 19, window, kernel: true, inlines: true, unwind_memory: 64 }
    }
}

/// What is told of each process
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceSettings {
    /// Attributes that every Resource gets, unless it has them.
    pub attributes: BTreeMap<String, String>,
    /// Whether arguments of programs are told; they may hold secrets.
    pub command_args: bool,
}

/// A receiver of OTLP
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its name in logs and metrics.
    pub name: String,
    /// Its base URL; for HTTP the path of the signal is appended.
    pub endpoint: Url,
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

/// OTLP as lines of JSON
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileOutput {
    /// The directory; it is made when it is not there.
    pub directory: PathBuf,
    /// Bytes of all files at most, from 16MiB; then the oldest file is removed.
    pub size: Size,
}

impl Default for FileOutput {
    fn default() -> Self {
        Self { directory: PathBuf::from("/var/lib/descry/otlp"), size: Size(256 << 20) }
    }
}

/// Health, readiness and metrics
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Whether to serve them.
    pub enabled: bool,
    /// A loopback address.
    pub address: Address,
}

impl Default for Health {
    fn default() -> Self {
        Self { enabled: true, address: Address(([127, 0, 0, 1], 8687).into()) }
    }
}

/// descry's own logs, traces and counters
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where they are sent, by OTLP over HTTP; without: nowhere. Read at the start only.
    #[schemars(with = "Url")]
    pub endpoint: Option<Url>,
}
