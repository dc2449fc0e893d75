//! Events to what is made of them: samples and waits to the window that is open, requests and calls of functions to spans,
//! processes to log records, and system calls to rows.

mod events;

use std::time::{Duration, Instant};

use descry_aggregate::profile::ProfileKind;
use descry_aggregate::syscalls::SyscallRow;
use descry_aggregate::{Aggregator, CodeRef};
use descry_config::Config;
use descry_decode::ids::Tgid;
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
use crate::measure::{Clocks, PerfMapOwner, Tracker};
use crate::requests::Requests;
use crate::syscalls::Recorder as Syscalls;
use events::judge;

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
        let done = requests.output();
        self.outlets.not_sampled(done.take_counted());
        for (owner, span) in done.take() {
            self.outlets.span(&owner.process, span);
        }
    }
}
