//! The settings. Their documentation is the schema's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::destination::Destination;
use crate::scalar::{Address, Pattern, Period, Ratio, Size, Url};

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
    /// Profiles of the time that threads wait.
    pub off_cpu: OffCpu,
    /// Requests as spans and metrics.
    pub requests: Requests,
    /// System calls as metrics.
    pub syscalls: Syscalls,
    /// Calls of functions as spans and metrics.
    pub functions: Functions,
    /// What becomes of processes, as log records.
    pub logs: Logs,
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

/// Fits a process if all of its patterns do, and its ports if it has any; it has at least one
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
    /// Its systemd unit, without .service.
    #[serde(default)]
    #[schemars(with = "Pattern")]
    pub unit: Option<Pattern>,
    /// Ports of TCP or UDP; it listens on one of them.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 65_535)))]
    pub ports: Vec<u16>,
    /// Whether these processes are in the CPU profiles.
    #[serde(default = "yes")]
    pub profile: bool,
    /// Samples a second and CPU, fewer than those of `profile`; without: as many.
    #[serde(default)]
    #[schemars(with = "u64", range(min = 1, max = 999))]
    pub frequency: Option<u64>,
    /// Whether their waits are in the off-CPU profiles.
    #[serde(default = "yes")]
    pub off_cpu: bool,
    /// Whether their requests are told.
    #[serde(default = "yes")]
    pub requests: bool,
    /// Only requests in these protocols; none: in all.
    #[serde(default)]
    pub protocols: Vec<RequestProtocol>,
    /// Traces that a service of these may begin a second; 0: any number; without: as `requests` says.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 0, max = 1_000_000))]
    pub traces_per_second: Option<u32>,
    /// Whether their system calls are counted.
    #[serde(default = "yes")]
    pub syscalls: bool,
    /// Whether calls of their functions are told.
    #[serde(default = "yes")]
    pub functions: bool,
    /// Whether log records tell of them.
    #[serde(default = "yes")]
    pub logs: bool,
}

fn yes() -> bool {
    true
}

impl Rule {
    /// What is done with the processes that it fits.
    #[must_use]
    pub fn switches(&self) -> Switches {
        Switches {
            profile: self.profile,
            frequency: self.frequency,
            off_cpu: self.off_cpu,
            requests: self.requests,
            protocols: self.protocols.clone(),
            traces_per_second: self.traces_per_second,
            syscalls: self.syscalls,
            functions: self.functions,
            logs: self.logs,
        }
    }
}

/// A protocol of requests
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestProtocol {
    /// HTTP/1.
    Http,
    /// HTTP/2 and gRPC.
    Http2,
    /// PostgreSQL.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis.
    Redis,
    /// DNS.
    Dns,
}

impl RequestProtocol {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Dns => "dns",
        }
    }
}

/// What is done with a process, of what is measured at all
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Whether it is in the CPU profiles.
    pub profile: bool,
    /// Samples a second and CPU, fewer than those of `profile`; without: as many.
    #[schemars(with = "u64", range(min = 1, max = 999))]
    pub frequency: Option<u64>,
    /// Whether its waits are in the off-CPU profiles.
    pub off_cpu: bool,
    /// Whether its requests are told.
    pub requests: bool,
    /// Only requests in these protocols; none: in all.
    pub protocols: Vec<RequestProtocol>,
    /// Traces that a service of these may begin a second; 0: any number; without: as `requests` says.
    #[schemars(with = "u32", range(min = 0, max = 1_000_000))]
    pub traces_per_second: Option<u32>,
    /// Whether its system calls are counted.
    pub syscalls: bool,
    /// Whether calls of its functions are told.
    pub functions: bool,
    /// Whether log records tell of it.
    pub logs: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            profile: true,
            frequency: None,
            off_cpu: true,
            requests: true,
            protocols: Vec::new(),
            traces_per_second: None,
            syscalls: true,
            functions: true,
            logs: true,
        }
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

/// Profiles of the time that threads wait
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OffCpu {
    /// Whether waits are measured: it costs each switch of threads two to four microseconds.
    pub enabled: bool,
    /// Waits made for a request that took longer become spans below it, with their reason; from 100us to 1h. Without: none
    /// do.
    #[schemars(with = "Period")]
    pub longer_than: Option<Period>,
}

/// Requests as spans and metrics
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// Whether requests on sockets are followed.
    pub enabled: bool,
    /// Patterns by which HTTP requests are named, like /users/{name}/*; the first that fits counts.
    pub routes: Vec<String>,
    /// Which traces are sent; without: by OTEL_TRACES_SAMPLER, else parentbased_always_on.
    #[schemars(with = "Sampler")]
    pub sampler: Option<Sampler>,
    /// The share of traces that a sampler by ratio keeps, 0 to 1; without: OTEL_TRACES_SAMPLER_ARG, else 1.
    #[schemars(with = "Ratio")]
    pub sampler_ratio: Option<Ratio>,
    /// Traces that a service may begin a second; 0: any number.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub traces_per_second: u32,
}

impl Default for Requests {
    fn default() -> Self {
        Self { enabled: true, routes: Vec::new(), sampler: None, sampler_ratio: None, traces_per_second: 0 }
    }
}

/// A sampler, by its name in OTEL_TRACES_SAMPLER
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share, by trace id.
    Traceidratio,
    /// As the caller says; all that begin here.
    ParentbasedAlwaysOn,
    /// As the caller says; none that begin here.
    ParentbasedAlwaysOff,
    /// As the caller says; a share of those that begin here.
    ParentbasedTraceidratio,
}

impl Sampler {
    /// As OTEL_TRACES_SAMPLER has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysOn => "always_on",
            Self::AlwaysOff => "always_off",
            Self::Traceidratio => "traceidratio",
            Self::ParentbasedAlwaysOn => "parentbased_always_on",
            Self::ParentbasedAlwaysOff => "parentbased_always_off",
            Self::ParentbasedTraceidratio => "parentbased_traceidratio",
        }
    }
}

/// System calls as metrics
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Syscalls {
    /// Whether system calls are measured: it costs each of them some hundred nanoseconds.
    pub enabled: bool,
    /// Calls made for a request that took longer become spans below it, with their arguments; from 100us to 1h. Without:
    /// none do.
    #[schemars(with = "Period")]
    pub slower_than: Option<Period>,
}

/// Calls of functions as spans and metrics
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Functions {
    /// Functions of the files that watched processes use, as [FILE:]GLOB; none: no functions are traced. A call costs whoever
    /// uses the file one to ten microseconds.
    pub names: Vec<String>,
    /// Calls a second that become spans, of all functions together; 0: none. Metrics count all calls.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub spans_per_second: u32,
}

impl Default for Functions {
    fn default() -> Self {
        Self { names: Vec::new(), spans_per_second: 1000 }
    }
}

/// What becomes of processes, and connects that fail where requests are followed, as log records
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Whether there are any.
    pub enabled: bool,
    /// Whether also a program that starts, and one that ends well, is told of; else only trouble.
    pub lifecycle: bool,
}

impl Default for Logs {
    fn default() -> Self {
        Self { enabled: true, lifecycle: true }
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
