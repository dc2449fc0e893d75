//! Samples to the aggregator.

use descry_aggregate::{Aggregator, Dimensions, Limits, Observation};
use descry_decode::Event;

use crate::measure::{Consumer, Tracker};

/// Adds up what is sampled.
pub struct Recorder {
    /// The sums.
    pub aggregator: Aggregator,
}

impl Recorder {
    /// An empty recording.
    pub fn new(dimensions: Dimensions) -> Self {
        Self { aggregator: Aggregator::new(dimensions, Limits::default()) }
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        let Event::Sample(sample) = event else { return };
        let located = tracker.locate(&sample);
        self.aggregator.add(&Observation {
            tgid: sample.tgid,
            process_name: &located.process,
            tid: sample.tid,
            comm: sample.comm,
            cpu: sample.cpu,
            time: sample.time,
            weight: sample.weight,
            stack: located.code,
            truncated: located.truncated,
        });
    }

    fn progress(&self, tracker: &Tracker) -> String {
        format!("{} samples", tracker.counters().samples)
    }
}
