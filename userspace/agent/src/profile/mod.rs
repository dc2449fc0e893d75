//! `descry profile`: where does a program spend its time.

mod builder;
pub mod counted;
mod image;
mod output;
mod recorder;
mod stats;
mod symbols;
mod tables;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use descry_aggregate::profile::{Profile, ProfileKind};
use descry_aggregate::{Dimensions, KnownProcess, Summary};
use descry_decode::ids::{Tgid, UnixNanos};
use descry_probe::{HeldChild, Options, Session, SideBand};
use descry_process::identity::ResourceOptions;
use descry_process::namespace::PidNamespace;
use descry_telemetry::Counters;
use indicatif::{ProgressBar, ProgressStyle};
use nix::time::{ClockId, clock_gettime};

use crate::cli::{ProfileArgs, StatsFormat, YesNo};
use crate::failure::Failure;
use crate::stop::Stop;
use crate::target::Target;
use output::Output;
use recorder::{Recorded, Recorder};
use stats::{Counted, Stats};
use symbols::Symbols;
use tables::UnwindTables;

/// How long to measure a program that was not started by descry.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Between two drains of the ring.
const TICK: Duration = Duration::from_millis(100);
/// The same while tables are missing or the ring fills fast.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// Between two drains at least, whatever happens.
const LEAST_TICK: Duration = Duration::from_millis(2);
/// Drains that are short at the start.
const SHORT_TICKS: u32 = 50;
/// Between two looks at whether the targets still live, should the event of their end have been lost.
const LIVENESS: Duration = Duration::from_secs(1);
/// The largest ring.
const MAX_RING: u64 = 64 << 20;
const MIN_RING: u64 = 4 << 20;
/// Bytes of a usual sample.
const SAMPLE_BYTES: u64 = 512;
/// Bytes of a sample with a stack copy, one third of them having one; and how much of the ring is made larger for them.
const COPY_BYTES: u64 = 8192;
const COPY_RING: u64 = 16 << 20;

/// Runs the command.
pub fn run(args: &ProfileArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    let mut target = Target::from_args(&args.target)?;
    let mut output = Output::open(args)?;
    let stop = Stop::listen()?;
    raise_open_files();

    let mut child = None;
    if let [program, arguments @ ..] = args.target.command.as_slice() {
        let mut command = Command::new(program);
        command.args(arguments);
        let started = HeldChild::start(command)?;
        target.add_started(started.tgid());
        target.is_fixed = true;
        child = Some(started);
    }

    let mut measurement = Measurement::start(args, &target, &output)?;
    if let Some(child) = &mut child {
        child.release()?;
    }
    let exit = measurement.run(args, &target, &mut child, &stop)?;
    let (profile, stats) = measurement.finish(args, counters)?;
    let written = output.finish(&profile);
    match args.stats {
        StatsFormat::Text => eprintln!("descry: {}", stats.text()),
        StatsFormat::Json => eprintln!("{}", stats.json()),
    }
    written?;
    Ok(match exit {
        Some(code) if args.exit_code => ExitCode::from(code),
        _ => ExitCode::SUCCESS,
    })
}

/// A measurement that is under way.
struct Measurement {
    session: Session,
    side_band: SideBand,
    recorder: Recorder,
    period: u64,
    ring_bytes: u64,
    began: Instant,
    began_unix: UnixNanos,
    boot_to_unix: i64,
}

impl Measurement {
    fn start(args: &ProfileArgs, target: &Target, output: &Output) -> Result<Self, Failure> {
        let cpus = descry_probe::online_cpus()?.len() as u64;
        // Half a second of samples, and room for the stack copies of processes that are new.
        let samples_a_second = args.frequency * cpus;
        let ring_bytes = (samples_a_second * SAMPLE_BYTES / 2)
            .max((samples_a_second * COPY_BYTES / 2).min(COPY_RING))
            .next_power_of_two()
            .clamp(MIN_RING, MAX_RING);
        let namespace = PidNamespace::current().context("cannot read /proc/self/ns/pid")?;
        let options = Options {
            scope: target.scope.clone(),
            follow: target.follow,
            comm: target.comm,
            executables: target.executables.clone(),
            pid_namespace: (!namespace.is_initial()).then_some(namespace.inode as u32),
            frequency: args.frequency,
            kernel_stacks: args.kernel == YesNo::Yes,
            ring_bytes: ring_bytes as u32,
            table_chunks: args.unwind_memory,
        };
        let mut session = Session::load(&options)?;
        let tables = UnwindTables::new(session.take_tables()?).context("cannot start a thread")?;
        let dimensions = Dimensions {
            threads: args.per_thread || output.wants_threads(),
            cpus: output.wants_timestamps(),
            timestamps: output.wants_timestamps(),
        };
        let resource_options = ResourceOptions { command_arguments: args.command_args };
        let mut recorder = Recorder::new(tables, dimensions, resource_options);
        // First the mappings' news, then the state of things, so that nothing falls in between.
        let mut side_band = SideBand::open()?;
        session.attach_lifecycle()?;
        for tgid in &target.processes {
            recorder.expect(*tgid);
        }
        recorder.settle(&mut session, &mut side_band)?;
        if target.is_fixed {
            // Threads that are made while the list is read inherit from their makers.
            session.sample_threads(&target.threads())?;
        } else {
            session.sample_cpus()?;
        }
        let (began_unix, boot_to_unix) = clocks()?;
        let period = 1_000_000_000 / args.frequency;
        Ok(Self {
            session,
            side_band,
            recorder,
            period,
            ring_bytes,
            began: Instant::now(),
            began_unix,
            boot_to_unix,
        })
    }

    /// Drains until the time is up, somebody asks to stop, or nothing is left to measure. Returns the exit code of a
    /// started program that ended.
    fn run(
        &mut self,
        args: &ProfileArgs,
        target: &Target,
        child: &mut Option<HeldChild>,
        stop: &Stop,
    ) -> Result<Option<u8>, Failure> {
        // A started program sets the time itself.
        let duration = args.duration.or(child.is_none().then_some(DEFAULT_DURATION));
        let progress = progress(duration);
        let mut alive: Vec<Tgid> = target.processes.clone();
        let mut looked = Instant::now();
        let mut short_ticks = SHORT_TICKS;
        let mut exit = None;
        while !stop.is_asked() {
            let left = duration.map(|duration| duration.saturating_sub(self.began.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            let tick = if short_ticks > 0 { SHORT_TICK } else { TICK };
            self.wait(target, tick.min(left.unwrap_or(tick)))?;
            let bytes = self.recorder.tick(&mut self.session, &mut self.side_band)? as u64;
            short_ticks =
                if bytes > self.ring_bytes / 4 { SHORT_TICKS } else { short_ticks.saturating_sub(1) };
            progress.set_position(self.began.elapsed().as_millis() as u64);
            progress.set_message(format!("{} samples", self.recorder.counters().samples));

            if let Some(child) = child
                && let Some(status) = child.try_wait()?
            {
                exit = Some(HeldChild::exit_code(status) as u8);
                break;
            }
            let (ended, started) = (self.recorder.take_ended(), self.recorder.take_started());
            if target.is_fixed && child.is_none() {
                if target.follow {
                    alive.extend(
                        started
                            .iter()
                            .filter(|(parent, _)| alive.contains(parent))
                            .map(|(_, child)| *child)
                            .collect::<Vec<_>>(),
                    );
                }
                alive.retain(|tgid| !ended.contains(tgid));
                if looked.elapsed() > LIVENESS {
                    looked = Instant::now();
                    alive.retain(|tgid| is_alive(*tgid));
                }
                if alive.is_empty() {
                    let after = self.began.elapsed().as_secs_f64();
                    tracing::warn!("every measured process has ended, after {after:.1} s");
                    break;
                }
            }
        }
        progress.finish_and_clear();
        if let Some(child) = child
            && exit.is_none()
        {
            exit = Some(HeldChild::exit_code(child.terminate()?) as u8);
        }
        Ok(exit)
    }

    /// Waits for the next drain. New mappings of a few named processes are to reach the kernel's tables at once; on a
    /// whole machine there are too many.
    fn wait(&self, target: &Target, tick: Duration) -> Result<(), Failure> {
        if !target.is_fixed || tick <= LEAST_TICK {
            std::thread::sleep(tick);
            return Ok(());
        }
        std::thread::sleep(LEAST_TICK);
        Ok(self.side_band.wait(tick - LEAST_TICK)?)
    }

    /// Detaches, names everything, and adds up.
    fn finish(mut self, args: &ProfileArgs, counters: &Counters) -> Result<(Profile, Stats), Failure> {
        let duration = self.began.elapsed();
        self.recorder.tick(&mut self.session, &mut self.side_band)?;
        let kernel = self.session.counters()?;
        counted::publish(counters, counted::of_kernel(&kernel));
        // Nothing is sampled any more while symbols are read.
        drop(self.session);
        let recorded = self.recorder.finish();
        let Recorded { aggregator, resources, held, mut processes, counters: recorder, tables } = recorded;
        let objects = processes.objects().counters();

        let bar = progress_of_symbols(aggregator.code().len());
        let mut symbols = Symbols::new(&held, &processes, args.inlines == YesNo::Yes);
        let code = symbols.resolve(aggregator.code(), |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        counted::publish(counters, symbols.counters().entries());
        counted::publish(counters, recorder.entries().chain(tables.entries()));
        counted::publish(counters, processes.counters().entries().chain(objects.entries()));
        let known: Vec<KnownProcess> = aggregator
            .processes()
            .iter()
            .map(|process| KnownProcess { resource: resources.get(process).cloned().unwrap_or_default() })
            .collect();
        let counted = Counted {
            kernel: &kernel,
            recorder,
            tables,
            aggregator: aggregator.counters(),
            side_band_lost: self.side_band.lost(),
            side_band_malformed: self.side_band.malformed(),
        };
        let summary = Summary {
            kind: ProfileKind::Cpu,
            start: self.began_unix,
            duration,
            period: self.period,
            boot_to_unix: self.boot_to_unix,
        };
        let profile = aggregator.finish(summary, &code, &known);
        let stats = Stats::new(&counted, &profile);
        Ok((profile, stats))
    }
}

/// Unix time now, and Unix time minus boot time (ns).
fn clocks() -> anyhow::Result<(UnixNanos, i64)> {
    let read = |clock| -> anyhow::Result<i64> {
        let time = clock_gettime(clock).context("cannot read the clock")?;
        Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
    };
    let (boot, unix) = (read(ClockId::CLOCK_BOOTTIME)?, read(ClockId::CLOCK_REALTIME)?);
    Ok((UnixNanos(unix.unsigned_abs()), unix - boot))
}

/// Whether a process is there and not a zombie.
fn is_alive(tgid: Tgid) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{tgid}/stat")) else { return false };
    // The name is in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Binaries are held open until their symbols are read.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// A bar on stderr for anything over a second, if that is a terminal.
fn progress(duration: Option<Duration>) -> ProgressBar {
    let (bar, template) = match duration {
        Some(duration) if duration <= Duration::from_secs(1) => return ProgressBar::hidden(),
        Some(duration) => {
            (ProgressBar::new(duration.as_millis() as u64), "measuring {bar:30} {elapsed}/{duration} {msg}")
        }
        None => (ProgressBar::no_length(), "measuring {spinner} {elapsed} {msg}"),
    };
    bar.set_style(style(template));
    bar
}

fn progress_of_symbols(places: usize) -> ProgressBar {
    let bar = ProgressBar::new(places as u64);
    bar.set_style(style("reading symbols {bar:30} {pos}/{len}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; should one be wrong, the default is a bar too.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
