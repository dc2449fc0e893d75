//! What descry's sampling programs cost in the kernel, by the kernel's own run-time statistics.
//!
//! A figure holds everything that a sample does: unwinding, the kernel's stack, and the record in the ring. It does
//! not hold the timer interrupt, which is the same for every profiler, nor the time of the statistics themselves.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::proc::{self, ProgramTime};
use super::spread::{print_table, show};
use crate::command::{self, NotAllowed, Running, need_root, output, step};
use crate::install::{self, BENCH};
use crate::products;

/// `BPF_PROG_TYPE_PERF_EVENT` in `include/uapi/linux/bpf.h`.
const PERF_EVENT: u32 = 7;
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Frames of a recursion that are not `down`: spin, main, `__libc_start_call_main`, `__libc_start_main`, `_start`.
const AROUND: u32 = 5;
const DEPTHS: [u32; 4] = [10, 30, 60, 127];
/// Samples in this time meet cold caches, and rows that are still being made.
const WARM_UP: Duration = Duration::from_secs(1);

/// The options of `bench unwind`.
#[derive(clap::Args)]
pub struct Args {
    /// How long one measurement takes, after a second to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measurements of each workload.
    #[arg(long, visible_alias = "pairs", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Samples a second. The fewer there are, the more of what a sample needs has left the processor's caches: at 999 one
    /// of a compiler takes 1.3 to 1.7 times as long as at 4999
    #[arg(long, short = 'F', default_value_t = 4999)]
    frequency: u32,
}

/// What one run showed.
struct Run {
    /// Time in the programs a sample (ns).
    nanos: f64,
    /// Frames a sample: of the program, and of the kernel.
    user: f64,
    kernel: f64,
}

/// Measures all workloads and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to read the kernel's statistics of BPF programs")?;
    install::ensure(BENCH, "the workloads")?;
    let descry = products::descry()?;
    let directory = tempfile::tempdir()?;
    let workloads = workloads(directory.path())?;
    let _statistics = Statistics::enable()?;

    let heading = ["workload", "samples", "frames", "of the kernel", "ns a sample", "ns a frame"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (name, program, words) in &workloads {
        step(format!("{name}: {} runs of {} s at {} Hz", args.runs, args.seconds, args.frequency));
        let mut runs = Vec::new();
        let mut samples = 0;
        for _ in 0..args.runs {
            let mut workload = Running::start(program, words, |command| {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            })?;
            let (run, taken) = measure(&descry, &mut workload, args, directory.path())?;
            workload.must_run().context("the workload has to run longer than the measurement")?;
            runs.push(run);
            samples += taken;
        }
        let each = |figure: fn(&Run) -> f64| show(runs.iter().map(figure), 1);
        rows.push(vec![
            name.clone(),
            samples.to_string(),
            each(|run| run.user),
            each(|run| run.kernel),
            show(runs.iter().map(|run| run.nanos), 0),
            each(|run| run.nanos / (run.user + run.kernel)),
        ]);
    }
    println!("\nmedian (least..greatest) of the runs\n");
    print_table(&rows);
    Ok(())
}

/// Name, program and arguments of each; they run until they are killed, the compiler for a long time.
fn workloads(directory: &Path) -> Result<Vec<(String, PathBuf, Vec<String>)>> {
    step("building the workloads");
    let source = directory.join("recurse.c");
    fs::write(&source, include_str!("workloads/recurse.c"))?;
    let recurse = directory.join("recurse");
    command::run(
        Command::new("cc")
            .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-ipa-sra", "-o"])
            .args([&recurse, &source]),
    )?;
    let mut workloads: Vec<(String, PathBuf, Vec<String>)> = DEPTHS
        .iter()
        .map(|depth| (format!("{depth} frames"), recurse.clone(), vec![(depth - AROUND).to_string()]))
        .collect();
    // The compiler proper, since `gcc` only starts it.
    let compiler = PathBuf::from(output(Command::new("gcc").arg("-print-prog-name=cc1"))?);
    let large = directory.join("large.c");
    fs::write(&large, large_source()?)?;
    let words = ["-quiet", "-O2", &large.display().to_string(), "-o", "/dev/null"].map(str::to_owned);
    workloads.push(("cc1 -O2".to_owned(), compiler, words.to_vec()));
    Ok(workloads)
}

/// C that takes a compiler minutes: many functions, each with loops, branches and calls of its own. All call one of the
/// first few: along a chain of calls the compiler's collector of garbage would recurse thousands of frames deep.
fn large_source() -> Result<String> {
    const FUNCTIONS: u32 = 30_000;
    let mut text = String::from("extern long outside(long, const char *);\n");
    for n in 0..FUNCTIONS {
        let called = n % 16;
        writeln!(
            text,
            "long f{n}(long *a, long b) {{\n  long s = {n};\n  for (long i = 0; i < b; i++) {{\n    \
             switch ((a[i] + s) % 7) {{ case 0: s += a[i] * {n}; break; case 1: s ^= a[b - i]; break; \
             case 4: s -= outside(s, \"{n}\"); break; default: a[i] = s >> 3; }}\n    \
             for (long j = i; j < b; j += {step}) a[j] += a[i] / (s | 1);\n  }}\n  \
             return s > b ? f{called}(a, b - 1) : s;\n}}",
            step = n % 5 + 1,
        )?;
    }
    Ok(text)
}

fn measure(descry: &Path, workload: &mut Running, args: &Args, directory: &Path) -> Result<(Run, u64)> {
    let folded = directory.join("profile.folded");
    let warm_up_and_run = WARM_UP + Duration::from_secs(args.seconds.into());
    let words = [
        "profile",
        "-p",
        &workload.pid().to_string(),
        "-F",
        &args.frequency.to_string(),
        // Ended by hand: the last reading is to be of programs that still run.
        "-d",
        &format!("{}s", warm_up_and_run.as_secs() + 30),
        "--inlines=no",
        "-o",
        &folded.display().to_string(),
    ]
    .map(str::to_owned);
    let log = fs::File::create(directory.join("log"))?;
    let also = log.try_clone()?;
    let mut profiler = Running::start(descry, words, |command| {
        command.stdout(Stdio::from(log)).stderr(Stdio::from(also));
    })?;
    let pid = profiler.pid();
    let said = || fs::read_to_string(directory.join("log")).unwrap_or_default();

    let patience = Instant::now() + Duration::from_secs(30);
    while proc::program_time(pid, PERF_EVENT).runs == 0 {
        profiler.must_run().with_context(said)?;
        if Instant::now() > patience {
            bail!("no sample was taken in 30 s: {}", said());
        }
        sleep(Duration::from_millis(20));
    }
    sleep(WARM_UP);
    let first = proc::program_time(pid, PERF_EVENT);
    sleep(Duration::from_secs(args.seconds.into()));
    let last = proc::program_time(pid, PERF_EVENT);
    let status = profiler.interrupt(Duration::from_secs(60))?;
    if !status.success() {
        bail!("descry failed: {status}: {}", said());
    }
    let taken = ProgramTime { nanos: last.nanos - first.nanos, runs: last.runs - first.runs };
    if taken.runs == 0 {
        bail!("no sample in {} s", args.seconds);
    }
    let text = fs::read_to_string(&folded).with_context(|| format!("cannot read {}", folded.display()))?;
    let (user, kernel) = frames(&text).context("the profile is empty")?;
    Ok((Run { nanos: taken.nanos as f64 / taken.runs as f64, user, kernel }, taken.runs))
}

/// Mean frames a sample of folded stacks: of the program, and of the kernel.
///
/// The first name of a stack is the process's, a second one `[truncated]` marks a cut: neither is a frame.
fn frames(folded: &str) -> Option<(f64, f64)> {
    let (mut samples, mut user, mut kernel) = (0_u64, 0_u64, 0_u64);
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ')?;
        let count: u64 = count.parse().ok()?;
        samples += count;
        for frame in stack.split(';').skip(1).filter(|frame| *frame != "[truncated]") {
            *if frame.ends_with("_[k]") { &mut kernel } else { &mut user } += count;
        }
    }
    let mean = |sum: u64| sum as f64 / samples as f64;
    (samples > 0).then(|| (mean(user), mean(kernel)))
}

/// The kernel keeps run times of BPF programs while this lives; afterwards it does as before.
pub(super) struct Statistics {
    before: String,
}

impl Statistics {
    pub(super) fn enable() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).map_err(|error| NotAllowed(format!("{SWITCH}: {error}")))?;
        fs::write(SWITCH, "1").map_err(|error| NotAllowed(format!("{SWITCH}: {error}")))?;
        Ok(Self { before: before.trim().to_owned() })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("cannot set {SWITCH} back to {}: {error}", self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folded: &str, expected: Option<(f64, f64)>) {
        assert_eq!(frames(folded), expected);
    }

    #[test]
    fn frames_are_counted_without_what_is_no_frame() {
        check("", None);
        check("a;_start;main 1\n", Some((2.0, 0.0)));
        check("a;[truncated];main 1\na;_start;main;read_[k] 3\n", Some((1.75, 0.75)));
    }
}
