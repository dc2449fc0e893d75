//! The command line. Names and meanings are fixed: users and tests rely on them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use descry_export::format::Format;
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
}

/// What `--stats` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// A line for people.
    Text,
    /// One JSON object.
    Json,
}

/// What every measuring command takes.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// Whom to measure.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long to measure (like 500ms, 10s, 2m); with a program to start: until it ends
    #[arg(short, long, value_parser = humantime::parse_duration)]
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
    /// Whether to show kernel frames
    #[arg(long, value_enum, default_value = "yes")]
    pub kernel: YesNo,
    /// Whether to show inlined functions
    #[arg(long, value_enum, default_value = "yes")]
    pub inlines: YesNo,
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
            eprintln!("descry: own telemetry did not all leave: {error}");
        }
    }
}
