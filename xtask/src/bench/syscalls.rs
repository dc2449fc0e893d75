//! What it costs a program that does nothing but system calls to have them measured.
//!
//! `dd` copies 300,000 bytes one at a time: 600,000 calls of a fraction of a microsecond each. It is timed bare and
//! measured in turn (A B A B), so that a machine that changes its pace changes it for both. Two hooks that do nothing
//! show what of the cost is the kernel's own, two that read the clock what it is to time calls at all: nobody who tells
//! how long every call took can be below that.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::proc;
use super::spread::{Spread, print_table, show};
use crate::command::{Running, line, need_root, step};
use crate::install;
use crate::products;

/// The options of `bench syscalls`.
#[derive(clap::Args)]
pub struct Args {
    /// Bare and measured runs for each tool.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Only these; by default all.
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    only: Vec<Tool>,
    /// Measure this descry, not a release build of the workspace.
    #[arg(long, value_name = "FILE")]
    descry: Option<PathBuf>,
}

/// Who measures.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Tool {
    /// Nobody: how far two bare runs differ.
    Nobody,
    /// Two programs that do nothing, at the beginning and the end of every call.
    Empty,
    /// Two programs that read the clock and do nothing else.
    Clock,
    /// `descry syscalls` of another program: what it costs those who are not measured.
    DescryElsewhere,
    /// `descry syscalls`.
    Descry,
    /// `bpftrace` with a histogram for each call.
    Bpftrace,
    /// `strace -c`.
    Strace,
}

/// By its path: bpftrace refuses a name that the search path has twice.
const DD: [&str; 5] = ["/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=300000"];
const CALLS: f64 = 600_000.0;

const HISTOGRAM: &str = "tracepoint:raw_syscalls:sys_enter /pid == cpid/ { @start[tid] = nsecs; } \
                         tracepoint:raw_syscalls:sys_exit /@start[tid]/ \
                         { @[args->id] = hist(nsecs - @start[tid]); delete(@start[tid]); }";

/// Until descry measures another program, and until all of its programs are attached.
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_millis(500);

impl Tool {
    const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Empty,
        Self::Clock,
        Self::DescryElsewhere,
        Self::Descry,
        Self::Bpftrace,
        Self::Strace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody (noise)",
            Self::Empty => "two empty hooks",
            Self::Clock => "two that read the clock",
            Self::DescryElsewhere => "descry, of another program",
            Self::Descry => "descry",
            Self::Bpftrace => "bpftrace, histogram",
            Self::Strace => "strace -c",
        }
    }

    /// Starts who measures all programs, until what is returned is dropped.
    fn beside(self, descry: &Path) -> Result<Vec<Running>> {
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        };
        let mut running = match self {
            Self::Empty | Self::Clock => {
                let hooks = products::example("descry-probe", "empty_hooks")?;
                // It ends with its standard input.
                let stays = |command: &mut Command| {
                    command.stdin(Stdio::piped()).stdout(Stdio::null());
                };
                let words = if self == Self::Clock { &["clock"][..] } else { &[] };
                vec![Running::start(&hooks, words, stays)?]
            }
            Self::DescryElsewhere => {
                let sleeper = Running::start(Path::new("sleep"), ["1h"], |_| {})?;
                let pid = sleeper.pid().to_string();
                let words = ["syscalls", "-o", "/dev/null", "-d", "1h", "-p", &pid];
                vec![sleeper, Running::start(descry, words, quiet)?]
            }
            _ => return Ok(Vec::new()),
        };
        let until = Instant::now() + PATIENCE;
        while let Some(measures) = running.last_mut()
            && !proc::measures(measures.pid())
        {
            measures.must_run()?;
            if Instant::now() > until {
                bail!("{} did not begin to measure", self.name());
            }
            sleep(Duration::from_millis(20));
        }
        // The last program may not be attached yet.
        sleep(SETTLE);
        Ok(running)
    }

    /// The command that runs `dd` and measures it.
    fn command(self, descry: &Path) -> Command {
        let tool = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        };
        let words = DD.join(" ");
        match self {
            Self::Nobody | Self::Empty | Self::Clock | Self::DescryElsewhere => {
                tool(Path::new(DD[0]), &DD[1..])
            }
            Self::Bpftrace => tool(Path::new("bpftrace"), &["-e", HISTOGRAM, "-c", &words]),
            Self::Descry => {
                let mut command = tool(descry, &["syscalls", "-o", "/dev/null", "--"]);
                command.args(DD);
                command
            }
            Self::Strace => {
                let mut command = tool(Path::new("strace"), &["-c", "-o", "/dev/null"]);
                command.args(DD);
                command
            }
        }
    }
}

/// Measures with all tools and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to measure system calls")?;
    install::for_comparison()?;
    let descry = args.descry.clone().map_or_else(products::descry, Ok)?;
    let wanted = |tool: &Tool| args.only.is_empty() || args.only.contains(tool);
    let mut rows = vec![["tool", "measured / bare", "ns a call, added"].map(str::to_owned).to_vec()];
    for tool in Tool::ALL.into_iter().filter(wanted) {
        step(format!("{}: {} pairs", tool.name(), args.pairs));
        let (mut bare, mut measured) = (Vec::new(), Vec::new());
        for _ in 0..args.pairs {
            bare.push(seconds(&mut Tool::Nobody.command(&descry))?);
            let _beside = tool.beside(&descry)?;
            measured.push(seconds(&mut tool.command(&descry))?);
        }
        let median =
            |times: &[f64]| Spread::of(times.iter().copied()).map_or(f64::NAN, |spread| spread.median);
        let added = bare.iter().zip(&measured).map(|(bare, measured)| (measured - bare) / CALLS * 1e9);
        rows.push(vec![
            tool.name().to_owned(),
            format!("{:.2}", median(&measured) / median(&bare)),
            show(added, 0),
        ]);
    }
    println!("\nratio of the medians; added: median (least..greatest) of the pairs\n");
    print_table(&rows);
    Ok(())
}

/// How long `dd` took in a command (s), as it says itself: "300000 bytes ... copied, 0.1 s, 3 MB/s".
fn seconds(command: &mut Command) -> Result<f64> {
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {}", line(command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", line(command));
    said.lines()
        .find_map(|line| line.split_once(" copied, ")?.1.split_once(" s")?.0.parse().ok())
        .with_context(|| format!("dd did not say how long it took: {said}"))
}
