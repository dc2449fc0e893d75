//! What it costs a program to have a function traced that it calls millions of times.
//!
//! The function does nothing, and its entry is `endbr64; push`. The program tells the CPU time of a call: on a busy
//! machine that is steadier than the clock. It runs bare and traced in turn (A B A B).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::spread::{print_table, show};
use crate::command::{need_root, output, quiet, step};
use crate::install;
use crate::{products, repo};

/// The options of `bench trace`.
#[derive(clap::Args)]
pub struct Args {
    /// Calls of one run; bpftrace makes a tenth of them.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10..))]
    calls: u64,
    /// Bare and traced runs for each tool.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Measure this descry, not a release build of the workspace.
    #[arg(long, value_name = "FILE")]
    descry: Option<PathBuf>,
}

/// Who traces.
#[derive(Clone, Copy)]
enum Tool {
    Histogram,
    Spans,
    ByInstruction,
    Bpftrace,
}

const FUNCTION: &str = "pushed";

impl Tool {
    const ALL: [Self; 4] = [Self::Histogram, Self::Spans, Self::ByInstruction, Self::Bpftrace];

    fn name(self) -> &'static str {
        match self {
            Self::Histogram => "descry, histogram",
            Self::Spans => "descry, 10,000 spans a second",
            Self::ByInstruction => "descry, histogram, exits by instruction",
            Self::Bpftrace => "bpftrace, histogram",
        }
    }

    /// CPU time of a traced call (ns), as the program tells it.
    fn run(self, descry: &Path, program: &Path, calls: u64) -> Result<f64> {
        let mut command = Command::new(descry);
        let options: &[&str] = match self {
            Self::Histogram => &["--histogram-only"],
            Self::Spans => &["--max-rate", "10000"],
            Self::ByInstruction => &["--histogram-only", "--exits-by-instruction"],
            Self::Bpftrace => return bpftrace(program, calls / 10),
        };
        command.args(["trace", "-f", FUNCTION, "-o", "/dev/null"]).args(options).arg("--");
        nanos(command.arg(program).args([FUNCTION, &calls.to_string()]))
    }
}

fn bpftrace(program: &Path, calls: u64) -> Result<f64> {
    let place = format!("{}:{FUNCTION}", program.display());
    let script = format!(
        "uprobe:{place} {{ @start[tid] = nsecs; }} \
         uretprobe:{place} /@start[tid]/ {{ @ = hist(nsecs - @start[tid]); delete(@start[tid]); }}"
    );
    let words = format!("{} {FUNCTION} {calls}", program.display());
    nanos(Command::new("bpftrace").args(["-e", &script, "-c", &words]))
}

/// The only line of a command's output that is a number.
fn nanos(command: &mut Command) -> Result<f64> {
    let said = output(command)?;
    let number = said.lines().find_map(|line| line.trim().parse().ok());
    number.with_context(|| format!("the workload did not say how long a call took: {said}"))
}

/// Measures all tools and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to trace functions")?;
    install::for_comparison()?;
    let descry = args.descry.clone().map_or_else(products::descry, Ok)?;
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("calls");
    let source = repo::root().join("tests/workloads/c/calls.c");
    quiet(Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(source))?;

    let mut rows = vec![["tool", "bare, ns a call", "traced, ns a call"].map(str::to_owned).to_vec()];
    for tool in Tool::ALL {
        step(format!("{}: {} pairs", tool.name(), args.pairs));
        let mut pairs = Vec::new();
        for _ in 0..args.pairs {
            let bare = nanos(Command::new(&program).args([FUNCTION, &args.calls.to_string()]))?;
            pairs.push((bare, tool.run(&descry, &program, args.calls)?));
        }
        let bare = show(pairs.iter().map(|(bare, _)| *bare), 1);
        let traced = show(pairs.iter().map(|(_, traced)| *traced), 0);
        rows.push(vec![tool.name().to_owned(), bare, traced]);
    }
    println!("\nmedian (least..greatest) of the runs; CPU time of the program\n");
    print_table(&rows);
    Ok(())
}
