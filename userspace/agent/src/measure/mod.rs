//! What every measuring command does: find the target, load and attach, follow processes, drain until it is time to stop.
//!
//! A command says what it wants of the kernel side, and gets the events as a [`Consumer`].

mod blocked;
mod builder;
mod image;
mod process_code;
mod program;
mod progress;
mod records;
mod resource;
mod symbols;
mod tables;
mod tracker;
mod watch;

use std::process::Command;
use std::time::{Duration, Instant};

use descry_abi::counter::Counter;
use descry_decode::Event;
use descry_decode::ids::{Tgid, UnixNanos};
use descry_probe::{HeldChild, Options, Session};
use descry_process::identity::ResourceOptions;
use descry_telemetry::Counters;

use crate::cli::MeasureArgs;
use crate::counted;
use crate::failure::Failure;
use crate::stop::Stop;
use crate::target::Target;

pub use program::Program;
pub use progress::of_symbols as progress_of_symbols;
pub use resource::add_attributes;
pub use symbols::{PerfMapOwner, Symbols};
pub use tables::TableCounters;
pub use tracker::{HeldObject, ProcessKey, Tracked, Tracker, TrackerCounters};
pub use watch::{Clocks, Watch, options, raise_open_files};

/// How long to measure a program that was not started by descry.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Between two drains of the ring.
const TICK: Duration = Duration::from_millis(100);
/// The same where messages of sockets are taken: they may come by the hundred megabytes a second from one moment to the next.
const MESSAGES_TICK: Duration = Duration::from_millis(25);
/// The same while tables are missing or the ring fills fast.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// Drains that are short at the start.
const SHORT_TICKS: u32 = 50;
/// Between two looks at whether the targets still live, should the event of their end have been lost.
const LIVENESS: Duration = Duration::from_secs(1);

/// Takes what is measured.
pub trait Consumer {
    /// An event of the ring, in the order of their times. The tracker knows already what it says of processes.
    fn event(&mut self, tracker: &mut Tracker, event: Event);

    /// Everything is loaded and the processes are known, and a started program has not run an instruction yet.
    ///
    /// # Errors
    /// What makes the measurement fail before it begins.
    fn ready(&mut self, _session: &mut Session, _tracker: &mut Tracker) -> Result<(), Failure> {
        Ok(())
    }

    /// The ring was drained.
    ///
    /// # Errors
    /// What ends the measurement.
    fn drained(&mut self, _session: &mut Session, _tracker: &mut Tracker) -> Result<(), Failure> {
        Ok(())
    }

    /// The time is up; the ring is drained once more after this.
    ///
    /// # Errors
    /// What makes the measurement fail.
    fn time_is_up(&mut self, _session: &mut Session) -> Result<(), Failure> {
        Ok(())
    }

    /// The measurement ends: everything is still loaded and attached, and the ring was drained.
    ///
    /// # Errors
    /// What makes it fail.
    fn ending(&mut self, _session: &mut Session, _tracker: &mut Tracker) -> Result<(), Failure> {
        Ok(())
    }

    /// A few words for the progress bar.
    fn progress(&self, tracker: &Tracker) -> String;
}

/// A target that was found or started, and nothing loaded yet.
pub struct Prepared<'a> {
    args: &'a MeasureArgs,
    /// Whom to measure.
    pub target: Target,
    child: Option<HeldChild>,
    stop: Stop,
}

impl<'a> Prepared<'a> {
    /// Finds whom to measure, and listens for signals. `open` is called between finding the target and starting a
    /// program: what cannot work (an output that cannot be written) fails there.
    ///
    /// # Errors
    /// Wrong usage, a target that is not there, a program that cannot be started, or what `open` says.
    pub fn new<T>(
        args: &'a MeasureArgs,
        open: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(Self, T), Failure> {
        let mut target = Target::from_args(&args.target)?;
        let opened = open()?;
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
        Ok((Self { args, target, child, stop }, opened))
    }

    /// The program that was started.
    #[must_use]
    pub fn started(&self) -> Option<Tgid> {
        self.child.as_ref().map(HeldChild::tgid)
    }

    /// What to load for this target, before the command adds what it wants: nothing is measured.
    ///
    /// # Errors
    /// When descry's own pid namespace cannot be found out.
    pub fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            scope: self.target.scope.clone(),
            follow: self.target.follow,
            comm: self.target.comm,
            executables: self.target.executables.clone(),
            ..options(self.args.unwind_memory)?
        })
    }

    /// Loads, follows processes, makes the tables of those that are known, attaches what the command wants (`attach`), and
    /// lets a started program go.
    ///
    /// # Errors
    /// What the kernel or the rights do not allow.
    pub fn start(
        self,
        options: &Options,
        consumer: &mut dyn Consumer,
        attach: impl FnOnce(&mut Session, &Target) -> Result<(), Failure>,
    ) -> Result<Measurement<'a>, Failure> {
        let Self { args, target, mut child, stop } = self;
        let resource_options = ResourceOptions { command_arguments: args.command_args };
        let mut watch = Watch::start(options, &target.processes, resource_options, consumer)?;
        attach(&mut watch.session, &target)?;
        consumer.ready(&mut watch.session, &mut watch.tracker)?;
        let clocks = Clocks::read()?;
        let ring_bytes = options.ring_bytes.into();
        let tick = if options.net.is_some() { MESSAGES_TICK } else { TICK };
        let began = Instant::now();
        // While the program that was started is still held, and others are still blocked where they were found.
        watch.follow(consumer)?;
        if let Some(child) = &mut child {
            child.release()?;
        }
        Ok(Measurement { args, target, child, stop, watch, ring_bytes, tick, began, clocks })
    }
}

/// A measurement that is under way.
pub struct Measurement<'a> {
    args: &'a MeasureArgs,
    target: Target,
    child: Option<HeldChild>,
    stop: Stop,
    watch: Watch,
    ring_bytes: u64,
    tick: Duration,
    began: Instant,
    clocks: Clocks,
}

/// What is left of a measurement when everything is detached.
pub struct Finished {
    /// Processes and binaries.
    pub tracked: Tracked,
    /// The kernel side's counters.
    pub kernel: Vec<(Counter, u64)>,
    /// Records of new mappings that were lost.
    pub side_band_lost: u64,
    /// Records of new mappings of an unknown form.
    pub side_band_malformed: u64,
    /// When it began.
    pub began: UnixNanos,
    /// How long it took.
    pub duration: Duration,
    /// Unix time minus boot time (ns).
    pub boot_to_unix: i64,
    /// The exit code of a started program that ended.
    pub exit: Option<u8>,
}

impl Measurement<'_> {
    /// Drains until the time is up, somebody asks to stop, or nothing is left to measure; then detaches everything.
    ///
    /// # Errors
    /// What the kernel refuses, and what the consumer says.
    pub fn run(mut self, consumer: &mut dyn Consumer, counters: &Counters) -> Result<Finished, Failure> {
        let exit = self.until_the_end(consumer)?;
        let duration = self.began.elapsed();
        self.watch.session.stop_sampling()?;
        consumer.time_is_up(&mut self.watch.session)?;
        self.watch.drain(consumer)?;
        let Watch { mut session, side_band, mut tracker, .. } = self.watch;
        consumer.ending(&mut session, &mut tracker)?;
        let kernel = session.counters()?;
        counted::publish(counters, counted::of_kernel(&kernel));
        // Nothing is measured any more while symbols are read.
        drop(session);
        let tracked = tracker.finish();
        counted::publish(counters, tracked.counters.entries().chain(tracked.tables.entries()));
        Ok(Finished {
            tracked,
            kernel,
            side_band_lost: side_band.lost(),
            side_band_malformed: side_band.malformed(),
            began: self.clocks.unix,
            duration,
            boot_to_unix: self.clocks.boot_to_unix,
            exit,
        })
    }

    /// Returns the exit code of a started program that ended.
    fn until_the_end(&mut self, consumer: &mut dyn Consumer) -> Result<Option<u8>, Failure> {
        // A started program sets the time itself.
        let duration = self.args.duration.or(self.child.is_none().then_some(DEFAULT_DURATION));
        let progress = progress::of_measurement(duration);
        let mut alive: Vec<Tgid> = self.target.processes.clone();
        let mut looked = Instant::now();
        let mut short_ticks = SHORT_TICKS;
        let mut exit = None;
        while !self.stop.is_asked() {
            let left = duration.map(|duration| duration.saturating_sub(self.began.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            let tick = if short_ticks > 0 { SHORT_TICK } else { self.tick };
            self.wait(tick.min(left.unwrap_or(tick)))?;
            let bytes = self.watch.drain(consumer)?;
            short_ticks =
                if bytes > self.ring_bytes / 4 { SHORT_TICKS } else { short_ticks.saturating_sub(1) };
            progress.set_position(self.began.elapsed().as_millis() as u64);
            progress.set_message(consumer.progress(&self.watch.tracker));

            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                exit = Some(HeldChild::exit_code(status) as u8);
                break;
            }
            if self.target.is_fixed && self.child.is_none() {
                self.update(&mut alive, &mut looked);
                if alive.is_empty() {
                    let after = self.began.elapsed().as_secs_f64();
                    tracing::warn!("every measured process has ended, after {after:.1} s");
                    break;
                }
            }
        }
        progress.finish_and_clear();
        if let Some(child) = &mut self.child
            && exit.is_none()
        {
            exit = Some(HeldChild::exit_code(child.terminate()?) as u8);
        }
        Ok(exit)
    }

    /// Brings the list of the measured processes that live up to date.
    fn update(&mut self, alive: &mut Vec<Tgid>, looked: &mut Instant) {
        let (ended, started) = (self.watch.tracker.take_ended(), self.watch.tracker.take_started());
        if self.target.follow {
            let of_living = started.iter().filter(|(parent, _)| alive.contains(parent));
            let children: Vec<Tgid> = of_living.map(|(_, child)| *child).collect();
            alive.extend(children);
        }
        alive.retain(|tgid| !ended.contains(tgid));
        if looked.elapsed() > LIVENESS {
            *looked = Instant::now();
            alive.retain(|tgid| is_alive(*tgid));
        }
    }

    /// Waits for the next drain. New mappings of a few named processes are to reach the kernel's tables at once; on a
    /// whole machine there are too many.
    fn wait(&self, tick: Duration) -> Result<(), Failure> {
        let wake = &self.watch.wake;
        Ok(if self.target.is_fixed { wake.when_news(tick) } else { wake.when_filling(tick) }?)
    }
}

/// Whether a process is there and not a zombie.
fn is_alive(tgid: Tgid) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{tgid}/stat")) else { return false };
    // The name is in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}
