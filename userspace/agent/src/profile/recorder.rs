//! Samples and waits to the aggregator.

use descry_abi::offcpu::WaitSum;
use descry_aggregate::{Aggregator, Dimensions, Limits};
use descry_decode::Event;
use descry_probe::Session;

use super::waits::{WaitCounters, WaitRecorder};
use crate::failure::Failure;
use crate::measure::{Consumer, Tracker};

/// Adds up what is sampled and what is waited for.
pub struct Recorder {
    /// The sums.
    pub aggregator: Aggregator,
    samples: u64,
    waits: Option<WaitRecorder>,
}

impl Recorder {
    /// An empty recording; `waits`: also of waits.
    pub fn new(dimensions: Dimensions, waits: bool) -> Self {
        let aggregator = Aggregator::new(dimensions, Limits::default());
        Self { aggregator, samples: 0, waits: waits.then(WaitRecorder::default) }
    }

    /// Samples so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What became of waits so far.
    pub fn wait_counters(&self) -> WaitCounters {
        self.waits.as_ref().map(WaitRecorder::counters).unwrap_or_default()
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match (event, &mut self.waits) {
            (Event::Sample(sample), _) => {
                self.samples += 1;
                let located = tracker.locate(&sample);
                self.aggregator.add(&located.observation(&sample));
            }
            (Event::Stack(id, sample), Some(waits)) => {
                waits.stack(tracker, &mut self.aggregator, id, &sample);
            }
            (Event::Wait(wait), Some(waits)) => {
                let sum = WaitSum { count: 1, total: wait.duration, longest: wait.duration };
                waits.add(tracker, &mut self.aggregator, &wait.of, &sum);
            }
            (Event::Comm(named), Some(waits)) => waits.name(named.tid, named.comm),
            _ => {}
        }
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        match &mut self.waits {
            Some(waits) => waits.drained(session, tracker, &mut self.aggregator, &mut |_, _| true),
            None => Ok(()),
        }
    }

    fn time_is_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        match &mut self.waits {
            Some(waits) => waits.time_is_up(session),
            None => Ok(()),
        }
    }

    fn ending(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        match &mut self.waits {
            Some(waits) => waits.ending(session, tracker, &mut self.aggregator, &mut |_, _| true),
            None => Ok(()),
        }
    }

    fn progress(&self, tracker: &Tracker) -> String {
        match &self.waits {
            Some(_) => format!("{} samples, {} stacks", self.samples, tracker.counters().stacks),
            None => format!("{} samples", self.samples),
        }
    }
}
