//! Events to what is made of them: samples and waits to the window that is open, requests and calls of functions to spans,
//! processes to log records, and system calls to rows.

use std::time::{Duration, Instant};

use descry_aggregate::profile::ProfileKind;
use descry_aggregate::syscalls::SyscallRow;
use descry_aggregate::{Aggregator, CodeRef};
use descry_config::{Config, Switches};
use descry_decode::ids::{Comm, Tgid};
use descry_decode::{Call, ConnectFailed, Event, Lifecycle, Opened, RequestWait, Role, SlowCall, WaitOf};
use descry_export::span::wait_span;
use descry_probe::Session;
use rustc_hash::FxHashMap;

use super::exclusions::Exclusions;
use super::functions::{FunctionCounters, Functions};
use super::lives::{LifeCounters, Lives};
use super::outlets::Outlets;
use super::own::Own;
use super::requests::{self, Done, Wanted};
use super::rules::Rules;
use super::samples::{self, Waits};
use super::scraped::Scraped;
use super::shares::Shares;
use super::window::{Window, WindowProfile};
use crate::counted::{Reading, counters};
use crate::failure::Failure;
use crate::measure::{Clocks, Consumer, PerfMapOwner, Tracker};
use crate::requests::Requests;
use crate::syscalls::{Recorder as Syscalls, new_ids};

counters! {
    /// Counters of the agent's windows.
    RecorderCounters = "descry.agent." {
        /// Windows that were handed on.
        windows,
        /// Samples of processes that the rules leave out.
        samples_excluded,
        /// Samples of processes of which more are taken than the rules want, because there are too many such processes.
        frequencies_over_limit,
        /// Times that the kernel side could not be told what the rules leave out of a process: it is left out later.
        exclusions_over_limit,
        /// Slow system calls of processes that the rules leave out.
        slow_syscalls_excluded,
        /// Long waits of requests of processes that the rules leave out; they are in no span.
        long_waits_excluded,
        /// Samples and waits without frames, because their stack was one too many in its window.
        stacks_over_limit,
        /// Samples and waits of processes that were one too many in their window.
        processes_over_limit,
        /// Samples without a time, because it was one too many in its window.
        timestamps_over_limit,
        /// System calls that are in a row of others because there were too many rows in their window.
        syscalls_over_limit,
    }
}

/// Takes what is measured.
pub struct Recorder {
    samples: Option<Aggregator>,
    shares: Option<Shares>,
    exclusions: Option<Exclusions>,
    waits: Option<Waits>,
    requests: Option<Requests<Done>>,
    syscalls: Option<Syscalls>,
    functions: Option<Functions>,
    lives: Option<Lives>,
    outlets: Outlets,
    rules: Rules,
    wanted: Wanted,
    own: Own,
    counters: RecorderCounters,
    began: Instant,
    clocks: Clocks,
}

impl Recorder {
    /// One that takes nothing yet.
    ///
    /// # Errors
    /// If the system has no clocks.
    pub fn new(config: &Config, outlets: Outlets) -> anyhow::Result<Self> {
        Ok(Self {
            samples: None,
            shares: None,
            exclusions: None,
            waits: None,
            requests: None,
            syscalls: None,
            functions: None,
            lives: None,
            outlets,
            rules: Rules::new(config),
            wanted: Wanted::default(),
            own: Own::new(),
            counters: RecorderCounters::default(),
            began: Instant::now(),
            clocks: Clocks::read()?,
        })
    }

    /// Takes from now on what a configuration asks for, of a kernel side that is going to be loaded. A window begins.
    ///
    /// # Errors
    /// Settings that make no sense, or no clocks.
    pub fn begin(&mut self, config: &Config) -> anyhow::Result<()> {
        self.clocks = Clocks::read()?;
        self.began = Instant::now();
        self.samples = config.profile.enabled.then(samples::empty);
        self.waits = config.off_cpu.enabled.then(Waits::new);
        self.syscalls = config.syscalls.enabled.then(|| Syscalls::new(&[]));
        self.functions = Functions::new(config, self.clocks)?;
        self.lives = config.logs.enabled.then(|| Lives::new(config, self.clocks.boot_to_unix));
        self.requests = requests::begin(config, self.clocks)?;
        self.exclusions = Exclusions::new(config);
        self.set_rules(config)
    }

    /// Takes the rules and destinations of another configuration.
    ///
    /// # Errors
    /// Routes that are none.
    pub fn set_rules(&mut self, config: &Config) -> anyhow::Result<()> {
        self.rules = Rules::new(config);
        self.shares = Shares::new(config);
        if let Some(exclusions) = &mut self.exclusions {
            exclusions.judge_all(&mut self.rules);
        }
        self.wanted = Wanted::new(config, self.clocks.boot_to_unix)?;
        Ok(())
    }

    /// Shows requests to whoever scrapes them.
    pub fn show(&mut self, scraped: &Scraped) {
        if let Some(requests) = &mut self.requests {
            let (processes, node) = requests.metrics().since_the_beginning();
            scraped.set(&processes, &node);
        }
    }

    /// Where spans and log records go.
    pub fn outlets(&mut self) -> &mut Outlets {
        &mut self.outlets
    }

    /// How long the window is open.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Counters so far.
    pub fn counters(&self) -> Vec<Reading> {
        let mut all: Vec<Reading> =
            self.counters.entries().chain(self.outlets.counters().entries()).collect();
        all.extend(self.lives.iter().flat_map(|lives| lives.counters().entries()));
        if let Some(requests) = &self.requests {
            all.extend(requests.counters().entries().chain(requests.metrics_counters().entries()));
        }
        if let Some(functions) = &self.functions {
            all.extend(functions.counters().entries().chain(functions.catalog_counters().entries()));
        }
        all.extend(self.waits.iter().flat_map(|waits| waits.counters().entries()));
        all
    }

    /// Counters that have not counted anything, of what is not counted by commands too.
    pub fn no_counters() -> impl Iterator<Item = Reading> {
        let own = RecorderCounters::default().entries().chain(LifeCounters::default().entries());
        let own = own.chain(FunctionCounters::default().entries());
        own.chain(super::outlets::OutletCounters::default().entries())
    }

    /// Whether everything of the window is there. If not, what is missing was asked for and comes with the next drain.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn is_complete(&mut self, session: &mut Session) -> Result<bool, Failure> {
        self.waits.as_mut().map_or(Ok(true), |waits| waits.is_complete(session))
    }

    /// Ends the window and begins the next one.
    ///
    /// # Errors
    /// If the system has no clocks, and what the kernel refuses.
    pub fn cut(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        generation: u64,
        config: &Config,
    ) -> Result<Window, Failure> {
        let clocks = std::mem::replace(&mut self.clocks, Clocks::read()?);
        let duration = self.began.elapsed();
        self.began = Instant::now();
        self.counters.windows += 1;
        let syscalls = self.cut_syscalls(session, tracker)?;
        let mut metrics = Vec::new();
        metrics.extend(self.requests.as_mut().map(|requests| requests.metrics().tell(self.clocks.unix)));
        if let Some(functions) = &mut self.functions {
            metrics.push(functions.tell(session, tracker, &mut self.rules, self.clocks.unix)?);
        }
        let (resources, mut held) = tracker.take_window();
        let mut profiles = Vec::new();
        if let Some(samples) = &mut self.samples {
            let aggregator = std::mem::replace(samples, samples::empty());
            let period = 1_000_000_000 / config.profile.frequency.max(1);
            profiles.push(WindowProfile { kind: ProfileKind::Cpu, period, aggregator });
        }
        if let Some(waits) = &mut self.waits {
            let aggregator = waits.cut(session, &mut held)?;
            profiles.push(WindowProfile { kind: ProfileKind::OffCpu, period: 0, aggregator });
        }
        self.rules.forget();
        if let Some(shares) = &mut self.shares {
            shares.forget();
        }
        if let Some(exclusions) = &mut self.exclusions {
            exclusions.judge_some(&mut self.rules);
        }
        let mut owners: FxHashMap<Tgid, PerfMapOwner> = FxHashMap::default();
        for profile in &profiles {
            let over = profile.aggregator.counters();
            self.counters.stacks_over_limit += over.stacks_over_limit;
            self.counters.processes_over_limit += over.processes_over_limit;
            self.counters.timestamps_over_limit += over.timestamps_over_limit;
            for code in profile.aggregator.code() {
                if let CodeRef::Jit { tgid, .. } = code
                    && !owners.contains_key(tgid)
                    && let Some(owner) = tracker.perf_map_owner(*tgid)
                {
                    owners.insert(*tgid, owner);
                }
            }
        }
        Ok(Window {
            generation,
            profiles,
            syscalls,
            metrics,
            resources,
            held,
            owners,
            began: clocks,
            duration,
            inlines: config.profile.inlines,
            attributes: config.resource.attributes.clone(),
        })
    }

    fn cut_syscalls(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
    ) -> Result<Option<Vec<SyscallRow>>, Failure> {
        let Some(syscalls) = &mut self.syscalls else { return Ok(None) };
        let calls = syscalls.cut(session, tracker)?;
        self.counters.syscalls_over_limit += calls.over_limit();
        let mut rows = calls.finish();
        let (rules, exclusions) = (&mut self.rules, &mut self.exclusions);
        rows.retain(|row| judge(rules, exclusions, tracker, row.process.0).syscalls);
        Ok(Some(rows))
    }

    fn tell_exclusions(&mut self, session: &mut Session) -> Result<(), Failure> {
        if let Some(exclusions) = &mut self.exclusions {
            exclusions.tell(session)?;
            self.counters.exclusions_over_limit += exclusions.take_full();
        }
        Ok(())
    }

    /// Nothing is measured any more; what is open ends. The ring was drained.
    pub fn finish(&mut self) {
        if let Some(requests) = &mut self.requests {
            requests.finish();
        }
        self.hand_over();
        self.outlets.flush(Duration::ZERO);
    }

    fn hand_over(&mut self) {
        let Some(requests) = &mut self.requests else { return };
        for (process, span) in requests.output().take() {
            self.outlets.span(&process, span);
        }
    }

    fn opened(&mut self, tracker: &mut Tracker, opened: &Opened) {
        let Some(requests) = &mut self.requests else { return };
        let terms = if self.own.has(opened) {
            None
        } else {
            if opened.role != Role::Connected
                && let Some(local) = opened.local
                && self.rules.accepted(opened.tgid, local.port())
                && let Some(shares) = &mut self.shares
            {
                shares.forget();
            }
            let switches = self.rules.of(opened.tgid, Comm::default(), || tracker.who(opened.tgid));
            self.wanted.of(switches)
        };
        requests.opened(tracker, opened, terms);
    }

    /// A system call took long.
    fn slow_call(&mut self, tracker: &mut Tracker, slow: &SlowCall) {
        let (Some(syscalls), Some(requests)) = (&mut self.syscalls, &mut self.requests) else { return };
        let sample = &slow.sample;
        let switches = self.rules.of(sample.tgid, Comm::default(), || tracker.who(sample.tgid));
        if !switches.syscalls || !switches.requests {
            self.counters.slow_syscalls_excluded += 1;
            return;
        }
        let name = tracker.process_name(sample.tgid, sample.comm);
        let span = syscalls.slow.span(slow, (sample.tgid, name), self.clocks.boot_to_unix);
        requests.part(tracker, sample.tgid, sample.request, sample.time, span);
        self.hand_over();
    }

    /// A thread that served a request waited long.
    fn request_wait(&mut self, tracker: &mut Tracker, wait: &RequestWait) {
        let (Some(waits), Some(requests)) = (&mut self.waits, &mut self.requests) else { return };
        let tgid = wait.of.tgid;
        let switches = self.rules.of(tgid, Comm::default(), || tracker.who(tgid));
        if !switches.off_cpu || !switches.requests {
            self.counters.long_waits_excluded += 1;
            return;
        }
        let thread = waits.thread(wait.of.tid);
        let span = wait_span(wait, thread, new_ids(), self.clocks.boot_to_unix);
        requests.part(tracker, tgid, wait.request, wait.end, span);
        self.hand_over();
    }

    /// A function was called.
    fn call(&mut self, tracker: &mut Tracker, call: &Call) {
        let Some(functions) = &mut self.functions else { return };
        let is_wanted = self.rules.of(call.tgid, Comm::default(), || tracker.who(call.tgid)).functions;
        if !is_wanted || self.own.is(call.tgid) {
            functions.exclude();
        } else if let Some((process, span)) = functions.call(tracker, call, self.requests.as_mut()) {
            self.outlets.span(&process, span);
        }
        self.hand_over();
    }

    fn connect_failed(&mut self, tracker: &mut Tracker, failed: &ConnectFailed) {
        // That a destination is not there, the agent's own counters and log say.
        if self.own.is(failed.tgid) {
            return;
        }
        let switches = self.rules.of(failed.tgid, Comm::default(), || tracker.who(failed.tgid));
        let wants_log = switches.logs;
        if let (Some(requests), Some(terms)) = (&mut self.requests, self.wanted.of(switches)) {
            requests.connect_failed(tracker, failed, &terms);
        }
        if let Some(lives) = self.lives.as_mut().filter(|_| wants_log)
            && let Some((resource, record)) = lives.connect_failed(tracker, failed)
        {
            self.outlets.log(&resource, &record);
        }
    }

    /// A process has become another one, or is gone.
    fn lifecycle(&mut self, tracker: &mut Tracker, event: &Lifecycle, is_exit: bool) {
        let Some(lives) = &mut self.lives else { return };
        // Who is not known is judged by its name: to look up everybody who comes and goes would cost without bound.
        let is_known = tracker.is_known(event.tgid);
        let switches =
            self.rules.of(event.tgid, event.comm, || if is_known { tracker.who(event.tgid) } else { None });
        let wanted = switches.logs;
        if !wanted {
            return;
        }
        let told = if is_exit { lives.exit(tracker, event) } else { lives.exec(tracker, event) };
        if let Some((resource, record)) = told {
            self.outlets.log(&resource, &record);
        }
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match event {
            Event::Sample(sample) => {
                let Some(samples) = &mut self.samples else { return };
                let switches = self.rules.of(sample.tgid, sample.comm, || tracker.who(sample.tgid));
                if let Some(shares) = &mut self.shares {
                    shares.met(sample.tgid, switches);
                }
                if !switches.profile {
                    self.counters.samples_excluded += 1;
                    return;
                }
                let located = tracker.locate(&sample);
                samples.add(&located.observation(&sample));
            }
            Event::Stack(id, sample) => {
                if let Some(waits) = &mut self.waits {
                    waits.stack(tracker, id, &sample);
                }
            }
            Event::Wait(wait) => {
                if let Some(waits) = &mut self.waits
                    && judge(&mut self.rules, &mut self.exclusions, tracker, wait.of.tgid).off_cpu
                {
                    waits.wait(tracker, &wait);
                }
            }
            Event::Fork(fork) => {
                if let Some(exclusions) = &mut self.exclusions {
                    exclusions.forked(&fork);
                }
            }
            Event::Comm(named) => {
                if let Some(waits) = &mut self.waits {
                    waits.name(named.tid, named.comm);
                }
            }
            Event::RequestWait(wait) => self.request_wait(tracker, &wait),
            Event::SlowCall(slow) => self.slow_call(tracker, &slow),
            Event::Call(call) => self.call(tracker, &call),
            Event::Opened(opened) => self.opened(tracker, &opened),
            Event::ConnectFailed(failed) => self.connect_failed(tracker, &failed),
            Event::Message(_) | Event::Closed(_) => {
                if let Some(requests) = &mut self.requests {
                    requests.event(tracker, event);
                }
                self.hand_over();
            }
            Event::Exec(lifecycle) | Event::Exit(lifecycle) => {
                let is_exit = matches!(event, Event::Exit(_));
                if !is_exit {
                    self.rules.renew(lifecycle.tgid);
                }
                self.lifecycle(tracker, &lifecycle, is_exit);
                if let Some(shares) = &mut self.shares {
                    shares.ended(lifecycle.tgid);
                }
                match &mut self.exclusions {
                    Some(exclusions) if is_exit => exclusions.ended(lifecycle.tgid),
                    Some(exclusions) => exclusions.began(&lifecycle, &mut self.rules),
                    None => {}
                }
                if let Some(functions) = &mut self.functions {
                    functions.ended(lifecycle.tgid);
                }
                if let Some(requests) = &mut self.requests {
                    requests.event(tracker, event.clone());
                }
                if let Some(syscalls) = &mut self.syscalls {
                    syscalls.event(tracker, event);
                }
            }
            _ => {}
        }
    }

    fn ready(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        self.tell_exclusions(session)?;
        if let Some(functions) = &mut self.functions {
            functions.ready(session, tracker, &mut self.rules, &self.own)?;
        }
        self.requests.as_mut().map_or(Ok(()), |requests| requests.ready(session, tracker))
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        if let Some(shares) = &mut self.shares {
            shares.tell(session)?;
            self.counters.frequencies_over_limit += shares.take_full();
        }
        if let Some(waits) = &mut self.waits {
            waits.drained(session, tracker, &mut wants(&mut self.rules, &mut self.exclusions))?;
        }
        self.tell_exclusions(session)?;
        if let Some(syscalls) = &mut self.syscalls {
            syscalls.drained(session, tracker)?;
        }
        if let Some(functions) = &mut self.functions {
            functions.changed(tracker.changed());
            functions.follow(session, tracker, &mut self.rules, &self.own);
        }
        match &mut self.requests {
            Some(requests) => requests.drained(session, tracker)?,
            None => drop(tracker.take_changed()),
        }
        // Nobody here waits for the end of those that were named: these would add up.
        drop((tracker.take_started(), tracker.take_ended()));
        self.hand_over();
        self.outlets.drained();
        Ok(())
    }

    fn time_is_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        if self.functions.is_some() {
            session.detach_functions();
        }
        self.waits.as_mut().map_or(Ok(()), |waits| waits.time_is_up(session))
    }

    fn ending(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        match &mut self.waits {
            Some(waits) => waits.ending(session, tracker, &mut wants(&mut self.rules, &mut self.exclusions)),
            None => Ok(()),
        }
    }

    fn progress(&self, _: &Tracker) -> String {
        String::new()
    }
}

/// Whose waits the rules want.
fn wants(
    rules: &mut Rules,
    exclusions: &mut Option<Exclusions>,
) -> impl FnMut(&mut Tracker, &WaitOf) -> bool {
    |tracker, of| judge(rules, exclusions, tracker, of.tgid).off_cpu
}

/// What is done with a process, of which the kernel side may have to know.
fn judge<'a>(
    rules: &'a mut Rules,
    exclusions: &mut Option<Exclusions>,
    tracker: &mut Tracker,
    tgid: Tgid,
) -> &'a Switches {
    let switches = rules.of(tgid, Comm::default(), || tracker.who(tgid));
    if let Some(exclusions) = exclusions {
        exclusions.met(tgid, switches);
    }
    switches
}
