//! The command line. Names and meanings are fixed: users and tests rely on them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use descry_assemble::route::Pattern as Route;
use descry_export::format::Format;
use descry_export::span::SpanFormat;
use descry_export::syscall::SyscallFormat;
use descry_function::{Pattern, PatternError, UsdtPattern};
use descry_telemetry::{Counters, LogFormat, Logging, OwnTelemetry};

use crate::counted;
use crate::failure::Failure;

/// Shows where a program's time goes, with no change to the program.
#[derive(Debug, Parser)]
#[command(name = "descry", version, propagate_version = true)]
#[command(
    after_help = "Exit status: 0 done, 1 it failed, 2 wrong usage, 3 the kernel or the rights do not allow it."
)]
pub struct Cli {
    /// descry's own messages and telemetry.
    #[command(flatten)]
    pub own: Own,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// descry's own messages and telemetry.
#[derive(Debug, Args)]
pub struct Own {
    /// Say more on stderr; twice: still more. DESCRY_LOG holds a filter instead (like "descry_probe=debug")
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Say only what failed
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Send descry's own logs, traces and counters to this OTLP endpoint
    #[arg(long, value_name = "URL", env = "DESCRY_TELEMETRY_ENDPOINT", global = true)]
    telemetry_endpoint: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Where does a program spend its time: stacks by sampling
    Profile(Box<ProfileArgs>),
    /// Requests from a capture file (pcap, pcapng): HTTP, gRPC and more, as spans
    Decode(DecodeArgs),
    /// Which system calls does a program make: how often, how long, with which errors
    Syscalls(Box<SyscallsArgs>),
    /// What programs ask each other: every request over their sockets as a span
    Requests(Box<RequestsArgs>),
    /// When functions are called, and how long they take: a span a call, a row a function
    Trace(Box<TraceArgs>),
    /// What this kernel and these rights allow, hook by hook
    Doctor(DoctorArgs),
    /// Profile this machine all the time and send what is measured, until it is told to end
    Agent(AgentArgs),
    /// The agent's configuration file
    Config(ConfigArgs),
}

/// Whom to measure.
#[derive(Debug, Args)]
#[group(id = "targets")]
pub struct TargetArgs {
    /// A process, with its threads; may be given several times
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Processes of this name (as in /proc/PID/comm), also those that start later
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Processes that execute this file, also those that start later
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Everything in this cgroup (v2) and below
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Everything in the container of this id, or of an id that begins so
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// Everything on this machine
    #[arg(short, long)]
    pub all: bool,
    /// Also the children that measured processes start
    #[arg(long)]
    pub follow: bool,
    /// Start this program, measure it and its children from the first instruction, and end with it
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What `--kernel` and `--inlines` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// With them.
    Yes,
    /// Without.
    No,
}

/// What `--mode` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Time on a CPU
    Cpu,
    /// Time blocked or waiting for a CPU, with the reason
    OffCpu,
    /// Both: elapsed time
    Wall,
}

/// What `--stats` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// A line for people.
    Text,
    /// One JSON object.
    Json,
}

/// A duration as people write it: `500ms`, `1m 30s`; a number alone is seconds, as `sleep` has it.
fn parse_duration(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(text),
    }
}

/// What every measuring command takes.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// Whom to measure.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long to measure (like 500ms, 10s, 2m; a number alone is seconds); with a program to start: until it ends
    #[arg(short, long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Where to write; without: stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to print the last line's figures
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub stats: StatsFormat,
    /// Send what is measured to this OTLP endpoint; with -o or --format it is also written. The OTEL_EXPORTER_OTLP_*
    /// variables are obeyed
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Kernel memory for unwind tables at most (MiB)
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub unwind_memory: u32,
    /// End with the exit code of the started program
    #[arg(long, requires = "command")]
    pub exit_code: bool,
    /// Send the arguments of measured processes with their Resource (they may hold secrets)
    #[arg(long)]
    pub command_args: bool,
}

/// `descry profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Whom to measure, how long, and where it goes.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// What to measure
    #[arg(long, value_enum, default_value = "cpu")]
    pub mode: Mode,
    /// Samples a second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99,
          value_parser = clap::value_parser!(u64).range(1..=4999))]
    pub frequency: u64,
    /// text, folded, flamegraph, pprof, otlp, otlp-json, firefox or speedscope; without: by the ending of FILE (.svg,
    /// .pb.gz, .otlp, .otlp.json, .firefox.json, .speedscope.json, .folded), else text
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Keep threads apart; the thread's name becomes the second frame
    #[arg(long)]
    pub per_thread: bool,
    /// Off the CPU: leave out stacks with less time than this in all (like 1ms)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub min: Option<Duration>,
    /// Off the CPU: put the stack of the thread that woke the other one above that one's
    #[arg(long)]
    pub wakers: bool,
    /// Whether to show kernel frames
    #[arg(long, value_enum, default_value = "yes")]
    pub kernel: YesNo,
    /// Whether to show inlined functions
    #[arg(long, value_enum, default_value = "yes")]
    pub inlines: YesNo,
}

/// `descry requests`.
#[derive(Debug, Args)]
pub struct RequestsArgs {
    /// Whom to measure, how long, and where it goes.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// text (a line a request, a row a kind of request at the end), json (a line a span), otlp or otlp-json; without: by
    /// the ending of FILE (.json, .otlp, .otlp.json), else text
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<SpanFormat>,
    /// Only this protocol; may be given several times
    #[arg(long = "protocol", value_name = "NAME")]
    pub protocols: Vec<String>,
    /// Name HTTP requests by this route, like /users/{name}/* ; may be given several times, the first that fits counts.
    /// Paths that none fits are named by themselves, with what looks like an id as {id}
    #[arg(long = "route", value_name = "PATTERN")]
    pub routes: Vec<Route>,
    /// Give up a request without an answer when its connection was silent for this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `descry decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// The capture; -: stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// text: a line a request, a row a kind of request at the end; json: a line a span, and one with the sums
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatsFormat,
    /// Where to write; without: stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only this protocol; may be given several times
    #[arg(long = "protocol", value_name = "NAME")]
    pub protocols: Vec<String>,
    /// Name HTTP requests by this route, like /users/{name}/* ; may be given several times, the first that fits counts.
    /// Paths that none fits are named by themselves, with what looks like an id as {id}
    #[arg(long = "route", value_name = "PATTERN")]
    pub routes: Vec<Route>,
}

/// `descry syscalls`.
#[derive(Debug, Args)]
pub struct SyscallsArgs {
    /// Whom to measure, how long, and where it goes.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Also list each call that takes at least this long (like 500us, 10ms, 1s), with arguments, result and stack
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub slower_than: Option<Duration>,
    /// text or json; without: json if FILE ends in .json, else text
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<SyscallFormat>,
}

/// `descry trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Whom to measure, how long, and where it goes.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Functions of the target's files by readable name, as `[FILE:]GLOB` (like main, libssl.so*:SSL_read, axum::*), or one
    /// by address, as FILE:0x1234; may be given several times
    #[arg(short, long = "function", value_name = "PATTERN", value_parser = parse_function,
          required_unless_present = "usdt")]
    pub functions: Vec<Pattern>,
    /// USDT probes of the target's files; both parts are globs; may be given several times
    #[arg(long, value_name = "PROVIDER:NAME", value_parser = parse_usdt)]
    pub usdt: Vec<UsdtPattern>,
    /// text, json, otlp or otlp-json; without: by the ending of FILE (.json, .otlp, .otlp.json), else text
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<SpanFormat>,
    /// Spans a second at most; calls beyond it are counted, and their durations kept
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rate: u32,
    /// No spans: only a row a function, which is kept in the kernel
    #[arg(long, conflicts_with = "max_rate")]
    pub histogram_only: bool,
    /// See the end of a call at the instructions that leave its function, not by the kernel's return probe, which no
    /// exception or panic may pass; always so for C++, Rust and Go. Costs more a call
    #[arg(long)]
    pub exits_by_instruction: bool,
    /// Show arguments that are numbers, addresses or text, where there is debug information (they may hold secrets)
    #[arg(long = "args", conflicts_with = "histogram_only")]
    pub arguments: bool,
    /// Print what would be probed, where and at which cost, and attach nothing
    #[arg(long)]
    pub list: bool,
    /// Probe also more than 10,000 places
    #[arg(long)]
    pub yes: bool,
}

fn parse_function(text: &str) -> Result<Pattern, PatternError> {
    Pattern::parse(text)
}

fn parse_usdt(text: &str) -> Result<UsdtPattern, &'static str> {
    UsdtPattern::parse(text).ok_or("write PROVIDER:NAME, like libc:setjmp or python:function__*")
}

/// `descry doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// text or json
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatsFormat,
}

/// `descry agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The configuration file; without: the defaults. `descry config default` shows them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `descry config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What `descry config` does.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print a file with every setting, its meaning and its default
    Default,
    /// Print the JSON Schema of the file
    Schema,
    /// Say what is wrong with a file: line, column, setting, reason
    Check {
        /// The file
        file: PathBuf,
    },
}

/// descry's own telemetry while a command runs.
pub struct OwnRunning {
    counters: Counters,
    own: Option<OwnTelemetry>,
}

/// How long the last own telemetry may take to leave.
const OWN_SHUTDOWN: Duration = Duration::from_secs(5);

impl Own {
    /// Sets logging up, and the own telemetry where it is asked for.
    pub fn start(&self) -> Result<OwnRunning, Failure> {
        self.start_with(0, self.telemetry_endpoint.as_deref())
    }

    /// The same for a program that nobody waits for: its log says also what it does. The endpoint is `configured` unless
    /// the command line names one.
    pub fn start_service(&self, configured: Option<&str>) -> Result<OwnRunning, Failure> {
        self.start_with(1, self.telemetry_endpoint.as_deref().or(configured))
    }

    fn start_with(&self, least: u8, endpoint: Option<&str>) -> Result<OwnRunning, Failure> {
        let counters = Counters::default();
        // What is not known by name when the export begins is not exported.
        counted::register(&counters);
        let version = env!("CARGO_PKG_VERSION");
        let own = endpoint.map(|url| OwnTelemetry::start(url, version, &counters));
        let own = own.transpose().map_err(|error| Failure::Usage(error.to_string()))?;
        let logging = Logging {
            verbosity: if self.quiet { -1 } else { self.verbose.saturating_add(least).min(3) as i8 },
            directives: std::env::var(descry_telemetry::logging::VARIABLE).ok(),
            format: LogFormat::Plain,
        };
        descry_telemetry::logging::init(&logging, own.as_ref())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(OwnRunning { counters, own })
    }
}

impl OwnRunning {
    /// descry's own counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sends what is left.
    pub fn end(self) {
        if let Some(own) = self.own
            && let Err(error) = own.shutdown(OWN_SHUTDOWN)
        {
            // The log layer has been shut down with the rest.
            say!("descry: own telemetry did not all leave: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_seconds() {
        assert_eq!(parse_duration("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1").is_err());
        assert!(parse_duration("ten").is_err());
    }
}
