//! What it costs a program that does nothing but system calls to have them measured.
//!
//! `dd` copies 300,000 bytes one at a time: 600,000 calls of a fraction of a microsecond each. It is timed bare and
//! measured in turn (A B A B), so that a machine that changes its pace changes it for both.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::spread::{Spread, print_table, show};
use crate::command::{line, need_root, step};
use crate::install::{self, BENCH};
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
}

/// Who measures.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Tool {
    /// Nobody: how far two bare runs differ.
    Nobody,
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

impl Tool {
    const ALL: [Self; 4] = [Self::Nobody, Self::Descry, Self::Bpftrace, Self::Strace];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody (noise)",
            Self::Descry => "descry",
            Self::Bpftrace => "bpftrace, histogram",
            Self::Strace => "strace -c",
        }
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
            Self::Nobody => tool(Path::new(DD[0]), &DD[1..]),
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
    install::ensure(BENCH, "the comparison")?;
    let descry = products::descry()?;
    let wanted = |tool: &Tool| args.only.is_empty() || args.only.contains(tool);
    let mut rows = vec![["tool", "measured / bare", "ns a call, added"].map(str::to_owned).to_vec()];
    for tool in Tool::ALL.into_iter().filter(wanted) {
        step(format!("{}: {} pairs", tool.name(), args.pairs));
        let (mut bare, mut measured) = (Vec::new(), Vec::new());
        for _ in 0..args.pairs {
            bare.push(seconds(&mut Tool::Nobody.command(&descry))?);
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
