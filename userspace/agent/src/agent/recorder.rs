//! Samples to the window that is open.

use std::time::{Duration, Instant};

use descry_aggregate::{Aggregator, CodeRef, Dimensions, Limits};
use descry_config::Config;
use descry_decode::Event;
use descry_decode::ids::Tgid;
use rustc_hash::FxHashMap;

use super::rules::Rules;
use super::window::Window;
use crate::counted::counters;
use crate::measure::{Clocks, Consumer, PerfMapOwner, Tracker};

/// What is kept of a window at most: a part of what one profile of a command may keep, because the agent holds two of
/// them, and is there for good.
const LIMITS: Limits = Limits { stacks: 1 << 16, processes: 1 << 13, timestamps: 1 << 18 };

counters! {
    /// Counters of the agent's windows.
    RecorderCounters = "descry.agent." {
        /// Windows that were handed on.
        windows,
        /// Samples of processes that the rules leave out.
        samples_excluded,
        /// Samples without frames, because their stack was one too many in its window.
        stacks_over_limit,
        /// Samples of processes that were one too many in their window.
        processes_over_limit,
        /// Samples without a time, because it was one too many in its window.
        timestamps_over_limit,
    }
}

/// Adds up what is sampled, by windows.
pub struct Recorder {
    aggregator: Aggregator,
    rules: Rules,
    counters: RecorderCounters,
    began: Instant,
    clocks: Clocks,
}

fn empty() -> Aggregator {
    Aggregator::new(Dimensions { threads: true, cpus: true, timestamps: true }, LIMITS)
}

impl Recorder {
    /// With the rules of a configuration. The first window begins now.
    ///
    /// # Errors
    /// If the system has no clocks.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            aggregator: empty(),
            rules: Rules::new(config),
            counters: RecorderCounters::default(),
            began: Instant::now(),
            clocks: Clocks::read()?,
        })
    }

    /// Takes the rules of another configuration.
    pub fn set_rules(&mut self, config: &Config) {
        self.rules = Rules::new(config);
    }

    /// How long the window is open.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Counters so far.
    pub fn counters(&self) -> RecorderCounters {
        self.counters
    }

    /// Ends the window and begins the next one.
    ///
    /// # Errors
    /// If the system has no clocks.
    pub fn cut(&mut self, tracker: &mut Tracker, generation: u64, config: &Config) -> anyhow::Result<Window> {
        let clocks = std::mem::replace(&mut self.clocks, Clocks::read()?);
        let duration = self.began.elapsed();
        self.began = Instant::now();
        let aggregator = std::mem::replace(&mut self.aggregator, empty());
        let over = aggregator.counters();
        self.counters.windows += 1;
        self.counters.stacks_over_limit += over.stacks_over_limit;
        self.counters.processes_over_limit += over.processes_over_limit;
        self.counters.timestamps_over_limit += over.timestamps_over_limit;
        self.rules.forget();
        let mut owners: FxHashMap<Tgid, PerfMapOwner> = FxHashMap::default();
        for code in aggregator.code() {
            if let CodeRef::Jit { tgid, .. } = code
                && !owners.contains_key(tgid)
                && let Some(owner) = tracker.perf_map_owner(*tgid)
            {
                owners.insert(*tgid, owner);
            }
        }
        let (resources, held) = tracker.take_window();
        Ok(Window {
            generation,
            aggregator,
            resources,
            held,
            owners,
            began: clocks,
            duration,
            frequency: config.profile.frequency,
            inlines: config.profile.inlines,
            attributes: config.resource.attributes.clone(),
        })
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        let Event::Sample(sample) = event else { return };
        if !self.rules.take_all() && !self.rules.wants(sample.tgid, sample.comm, || tracker.who(sample.tgid))
        {
            self.counters.samples_excluded += 1;
            return;
        }
        let located = tracker.locate(&sample);
        self.aggregator.add(&located.observation(&sample));
    }

    fn progress(&self, _: &Tracker) -> String {
        String::new()
    }
}
