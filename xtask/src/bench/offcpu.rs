//! What it costs a program to have its time off the CPU measured: two threads that hand a byte to and fro on one CPU do
//! little else than switch, so this is the worst case.
//!
//! What is compared is CPU time, so that others who use the CPU do no harm. Bare and measured runs come in turn (A B A
//! B), so that a machine that changes its pace changes it for both. A round is two switches and two wake-ups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::proc::{self, ProgramTime};
use super::spread::{print_table, show};
use super::unwind::Statistics;
use crate::command::{self, Running, need_root, output, step, which};
use crate::install;
use crate::products;

/// `BPF_PROG_TYPE_TRACING` in `include/uapi/linux/bpf.h`.
const TRACING: u32 = 26;
/// Until a profiler measures, and for what it does at its start.
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(1);

/// The options of `bench offcpu`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of one run.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1000..))]
    rounds: u32,
    /// Bare and measured runs for each profiler.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Only these; by default all.
    #[arg(long, value_name = "PROFILER", value_delimiter = ',')]
    only: Vec<Profiler>,
    /// Measure this descry, not a release build of the workspace.
    #[arg(long, value_name = "FILE")]
    descry: Option<PathBuf>,
}

/// Who measures.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Profiler {
    /// Nobody: how far two bare runs differ.
    Nobody,
    /// `descry profile --mode off-cpu` of another program: what it costs those who are not measured.
    DescryElsewhere,
    /// `descry profile --mode off-cpu` of the program.
    Descry,
    /// The same with `--wakers`.
    DescryWakers,
    /// bpftrace: the stacks and times of the scheduler's tracepoints, as bcc's offcputime takes them.
    Bpftrace,
    /// `perf record` of switches, with stacks by frame pointers.
    Perf,
}

impl Profiler {
    const ALL: [Self; 6] =
        [Self::Nobody, Self::DescryElsewhere, Self::Descry, Self::DescryWakers, Self::Bpftrace, Self::Perf];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody (noise)",
            Self::DescryElsewhere => "descry, of another program",
            Self::Descry => "descry",
            Self::DescryWakers => "descry --wakers",
            Self::Bpftrace => "bpftrace",
            Self::Perf => "perf, frame pointers",
        }
    }

    /// Program and arguments, to measure the processes named `pingpong`.
    fn command(self, descry: &Path, directory: &Path) -> Result<(PathBuf, Vec<String>)> {
        let tool = |name: &str| which(name).with_context(|| format!("{name} is not installed"));
        let out = directory.join("out").display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let descry = |comm: &str, more: &[&str]| {
            let own = ["profile", "--mode", "off-cpu", "-d", "1h", "-o", &out, "--comm", comm];
            (descry.to_owned(), words(&[&own[..], more].concat()))
        };
        Ok(match self {
            Self::Nobody => bail!("nobody runs nothing"),
            Self::DescryElsewhere => descry("nobody-at-all", &[]),
            Self::Descry => descry("pingpong", &[]),
            Self::DescryWakers => descry("pingpong", &["--wakers"]),
            Self::Bpftrace => (tool("bpftrace")?, words(&["-o", &out, "-e", BPFTRACE])),
            Self::Perf => {
                (tool("perf")?, words(&["record", "-a", "-g", "-e", "sched:sched_switch", "-o", &out]))
            }
        })
    }
}

/// What bcc's offcputime does, in bpftrace's language (bcc itself needs kprobes).
const BPFTRACE: &str = r#"
tracepoint:sched:sched_switch {
    if (comm == "pingpong") { @at[tid] = nsecs; @user[tid] = ustack; @kernel[tid] = kstack; }
    $at = @at[args->next_pid];
    if ($at != 0) {
        @off[@kernel[args->next_pid], @user[args->next_pid]] = sum(nsecs - $at);
        delete(@at[args->next_pid]);
    }
}
END { clear(@at); clear(@user); clear(@kernel); }
"#;

/// One bare and one measured run (ns of CPU time a round).
struct Pair {
    bare: f64,
    measured: f64,
}

/// Measures all profilers and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to measure the scheduler")?;
    install::for_comparison()?;
    let descry = args.descry.clone().map_or_else(products::descry, Ok)?;
    let directory = tempfile::tempdir()?;
    let pingpong = build(directory.path())?;
    let heading = ["profiler", "CPU ns a round", "measured / bare", "ns more a switch", "ns a program's run"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let wanted = |profiler: &Profiler| args.only.is_empty() || args.only.contains(profiler);
    for profiler in Profiler::ALL.into_iter().filter(wanted) {
        step(format!("{}: {} pairs of {} rounds", profiler.name(), args.pairs, args.rounds));
        let mut pairs = Vec::new();
        for _ in 0..args.pairs {
            let bare = rounds(&pingpong, args.rounds)?;
            let measured = match profiler {
                Profiler::Nobody => rounds(&pingpong, args.rounds)?,
                _ => over(profiler, &descry, directory.path(), || rounds(&pingpong, args.rounds))?.0,
            };
            pairs.push(Pair { bare, measured });
        }
        // The kernel's own account costs time itself, so it is of a run of its own.
        let account = match profiler {
            Profiler::Nobody | Profiler::Perf => "-".to_owned(),
            _ => {
                let _statistics = Statistics::enable()?;
                let (_, programs) =
                    over(profiler, &descry, directory.path(), || rounds(&pingpong, args.rounds))?;
                format!("{:.0}", programs.nanos as f64 / programs.runs.max(1) as f64)
            }
        };
        let each = |figure: fn(&Pair) -> f64, decimals| show(pairs.iter().map(figure), decimals);
        rows.push(vec![
            profiler.name().to_owned(),
            each(|pair| pair.measured, 0),
            each(|pair| pair.measured / pair.bare, 3),
            each(|pair| (pair.measured - pair.bare) / 2.0, 0),
            account,
        ]);
    }
    println!("\nmedian (least..greatest) of the pairs\n");
    print_table(&rows);
    println!(
        "\nThe last column is the kernel's own account of all programs that trace (switch, wake-up), in a run of its own."
    );
    Ok(())
}

fn build(directory: &Path) -> Result<PathBuf> {
    let source = directory.join("pingpong.c");
    fs::write(&source, include_str!("workloads/pingpong.c"))?;
    let program = directory.join("pingpong");
    command::run(
        Command::new("cc")
            .args(["-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"])
            .args([&program, &source]),
    )?;
    Ok(program)
}

/// Nanoseconds of CPU time of a round.
fn rounds(pingpong: &Path, rounds: u32) -> Result<f64> {
    let said = output(Command::new(pingpong).arg(rounds.to_string()))?;
    said.trim().parse().with_context(|| format!("pingpong said {said:?}"))
}

/// Runs `workload` while the profiler measures; also the time in its programs meanwhile.
fn over(
    profiler: Profiler,
    descry: &Path,
    directory: &Path,
    workload: impl FnOnce() -> Result<f64>,
) -> Result<(f64, ProgramTime)> {
    let (program, words) = profiler.command(descry, directory)?;
    let log = fs::File::create(directory.join("log"))?;
    let also = log.try_clone()?;
    let mut running = Running::start(&program, words, |command| {
        command.stdout(Stdio::from(log)).stderr(Stdio::from(also));
    })?;
    let said = || fs::read_to_string(directory.join("log")).unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    while !proc::measures(running.pid()) {
        running.must_run().with_context(said)?;
        if Instant::now() > until {
            bail!("{} did not begin to measure: {}", profiler.name(), said());
        }
        sleep(Duration::from_millis(20));
    }
    sleep(SETTLE);
    let before = proc::program_time(running.pid(), TRACING);
    let result = workload()?;
    let after = proc::program_time(running.pid(), TRACING);
    running.must_run().with_context(said)?;
    running.interrupt(PATIENCE)?;
    let programs = ProgramTime { nanos: after.nanos - before.nanos, runs: after.runs - before.runs };
    Ok((result, programs))
}
