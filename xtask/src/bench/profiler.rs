//! One run of a profiler over the whole machine, and what it cost the profiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::proc;
use crate::command::{Running, which};

/// A profiler must measure by then, and have ended by then after it was told to.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a profiler does in this time after its events are open counts as its start.
const SETTLE: Duration = Duration::from_secs(1);

/// Who measures.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(super) enum Profiler {
    /// Nobody: how far two bare runs differ.
    Nobody,
    /// `descry profile -a`.
    Descry,
    /// `perf record -a -g`.
    PerfFramePointers,
    /// `perf record -a --call-graph dwarf,8192`.
    PerfDwarf,
    /// `bpftrace` with user and kernel stacks counted in a map.
    Bpftrace,
}

/// What a run cost the profiler.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// CPU time until it had settled (s).
    pub(super) start: f64,
    /// CPU time a minute while the workload ran (s).
    pub(super) per_minute: f64,
    /// CPU time from the end of the workload to its own (s).
    pub(super) end: f64,
    /// CPU time of a second command that names what was recorded (s).
    pub(super) afterwards: Option<f64>,
    /// Most memory resident (bytes).
    pub(super) peak_rss: u64,
}

impl Profiler {
    /// All, the null comparison first.
    pub(super) const ALL: [Self; 5] =
        [Self::Nobody, Self::Descry, Self::PerfFramePointers, Self::PerfDwarf, Self::Bpftrace];

    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody (noise)",
            Self::Descry => "descry",
            Self::PerfFramePointers => "perf, frame pointers",
            Self::PerfDwarf => "perf, dwarf 8k",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// Measures the machine at `frequency` (Hz) while `workload` runs.
    ///
    /// Files go to `directory`. Returns what the workload returned.
    pub(super) fn over(
        self,
        descry: &Path,
        frequency: u32,
        directory: &Path,
        workload: impl FnOnce() -> Result<f64>,
    ) -> Result<(f64, Cost)> {
        let Some(mut profiler) = self.start(descry, frequency, directory)? else {
            return Ok((workload()?, Cost::default()));
        };
        let pid = profiler.pid();
        let until = Instant::now() + PATIENCE;
        while !proc::measures(pid) {
            profiler.must_run().with_context(|| self.log(directory))?;
            if Instant::now() > until {
                bail!("{} did not begin to measure: {}", self.name(), self.log(directory));
            }
            sleep(Duration::from_millis(20));
        }
        sleep(SETTLE);
        let start = proc::cpu_time(pid)?;
        let began = Instant::now();
        let result = workload()?;
        let took = began.elapsed();
        profiler.must_run().with_context(|| self.log(directory))?;
        let running = proc::cpu_time(pid)?;
        let children_before = proc::ended_children()?;
        let peak_rss = end(&mut profiler, self)?;
        let total = proc::ended_children()?.saturating_sub(children_before);
        let mut cost = Cost {
            start: start.as_secs_f64(),
            per_minute: running.saturating_sub(start).as_secs_f64() * 60.0 / took.as_secs_f64(),
            end: total.saturating_sub(running).as_secs_f64(),
            afterwards: None,
            peak_rss,
        };
        if matches!(self, Self::PerfFramePointers | Self::PerfDwarf) {
            cost.afterwards = Some(perf_script(directory)?);
        }
        Ok((result, cost))
    }

    fn start(self, descry: &Path, frequency: u32, directory: &Path) -> Result<Option<Running>> {
        let rate = frequency.to_string();
        let recorded = directory.join("perf.data").display().to_string();
        let program: PathBuf;
        let args: Vec<String>;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Nobody => return Ok(None),
            Self::Descry => {
                program = descry.to_owned();
                let folded = directory.join("descry.folded").display().to_string();
                args = words(&["profile", "-a", "-F", &rate, "-d", "1h", "--stats", "json", "-o", &folded]);
            }
            Self::PerfFramePointers => {
                program = find("perf")?;
                args = words(&["record", "-a", "-F", &rate, "-g", "-o", &recorded]);
            }
            Self::PerfDwarf => {
                program = find("perf")?;
                args = words(&["record", "-a", "-F", &rate, "--call-graph", "dwarf,8192", "-o", &recorded]);
            }
            Self::Bpftrace => {
                program = find("bpftrace")?;
                let script = format!("profile:hz:{rate} {{ @[ustack, kstack] = count(); }}");
                args = words(&["-o", &directory.join("bpftrace.txt").display().to_string(), "-e", &script]);
            }
        }
        let log = directory.join("log");
        let file = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let also = file.try_clone()?;
        Running::start(&program, args, |command| {
            command.stdout(Stdio::from(file)).stderr(Stdio::from(also));
        })
        .map(Some)
    }

    fn log(self, directory: &Path) -> String {
        let said = fs::read_to_string(directory.join("log")).unwrap_or_default();
        format!("{} said:\n{said}", self.name())
    }
}

fn find(program: &str) -> Result<PathBuf> {
    which(program).with_context(|| format!("{program} is not here"))
}

/// Ends the profiler as a person does, by SIGINT, and returns the most memory it had (bytes).
fn end(profiler: &mut Running, who: Profiler) -> Result<u64> {
    let pid = profiler.pid();
    let mut peak = proc::peak_rss(pid).unwrap_or(0);
    profiler.signal(Signal::SIGINT)?;
    let until = Instant::now() + PATIENCE;
    while profiler.ended()?.is_none() {
        peak = peak.max(proc::peak_rss(pid).unwrap_or(0));
        if Instant::now() > until {
            bail!("{} did not end within {PATIENCE:?} of SIGINT", who.name());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(peak)
}

/// CPU time (s) of naming what perf recorded; inlined frames are left out, they take minutes.
fn perf_script(directory: &Path) -> Result<f64> {
    let before = proc::ended_children()?;
    let status = Command::new(find("perf")?)
        .args(["script", "--no-inline", "-i"])
        .arg(directory.join("perf.data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start perf script")?;
    if !status.success() {
        bail!("perf script failed: {status}");
    }
    Ok(proc::ended_children()?.saturating_sub(before).as_secs_f64())
}
