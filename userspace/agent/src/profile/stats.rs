//! The last line on stderr: what was taken, what was lost, what it cost.

use std::collections::BTreeMap;

use descry_abi::counter::Counter;
use descry_aggregate::profile::{Profile, ProfileKind};
use descry_telemetry::ProcessUsage;
use serde_json::json;

use super::waits::WaitCounters;
use crate::last_line;
use crate::measure::{TableCounters, TrackerCounters};

/// The figures.
#[derive(Debug)]
pub struct Stats {
    samples: u64,
    /// Waits; none: they were not measured.
    waits: Option<u64>,
    lost: BTreeMap<&'static str, u64>,
    /// Share of samples with a user stack that reached its root.
    rooted: f64,
    truncated: u64,
    /// Share of frames without a name.
    unsymbolized: f64,
    frames: u64,
    usage: Option<ProcessUsage>,
}

/// Counters of the kernel side that mean a lost sample, event or stack.
const LOST: [Counter; 12] = [
    Counter::RingFullSample,
    Counter::RingFullCopy,
    Counter::RingFullLifecycle,
    Counter::NoState,
    Counter::KernelStackFailed,
    Counter::UserRegistersFailed,
    Counter::StackCopyFailed,
    Counter::ScopeFull,
    Counter::RingFullStack,
    Counter::RingFullWait,
    Counter::TasksFull,
    Counter::CopyTooSoon,
];

/// What the stages counted.
pub struct Counted<'a> {
    /// The kernel side.
    pub kernel: &'a [(Counter, u64)],
    /// Samples that arrived.
    pub samples: u64,
    /// Waits.
    pub waits: WaitCounters,
    /// Processes and stacks.
    pub tracker: TrackerCounters,
    /// The unwind tables.
    pub tables: TableCounters,
    /// The aggregator.
    pub aggregator: descry_aggregate::Counters,
    /// Records of new mappings that were lost.
    pub side_band_lost: u64,
    /// Records of new mappings of an unknown form.
    pub side_band_malformed: u64,
}

impl Stats {
    /// From the counters of all stages and the finished profile.
    pub fn new(counted: &Counted<'_>, profile: &Profile) -> Self {
        let mut lost = BTreeMap::new();
        let mut note = |name, count: u64| {
            if count > 0 {
                *lost.entry(name).or_insert(0) += count;
            }
        };
        for (counter, count) in counted.kernel {
            if LOST.contains(counter) {
                note(counter.name(), *count);
            }
        }
        let tracker = counted.tracker;
        note("malformed_record", tracker.malformed + counted.waits.malformed);
        note("wait_without_stack", counted.waits.without_stack);
        note("stack_copy_without_sample", tracker.copies_dropped);
        note("mapping_event_dropped", tracker.mappings_dropped + counted.side_band_lost);
        note("mapping_event_malformed", counted.side_band_malformed);
        note("binary_not_held", tracker.not_held);
        note("unwind_table_full", counted.tables.full);
        note("process_table_full", counted.tables.processes_full);
        note("stack_over_limit", counted.aggregator.stacks_over_limit);
        note("process_over_limit", counted.aggregator.processes_over_limit);
        note("timestamp_over_limit", counted.aggregator.timestamps_over_limit);
        let with_user_stack = tracker.rooted + tracker.truncated;
        let (frames, unnamed) = frames(profile);
        Self {
            samples: counted.samples,
            waits: (profile.kind != ProfileKind::Cpu).then_some(counted.waits.waits),
            lost,
            rooted: share(tracker.rooted, with_user_stack, 1.0),
            truncated: tracker.truncated,
            unsymbolized: share(unnamed, frames, 0.0),
            frames: tracker.frames,
            usage: last_line::usage(),
        }
    }

    /// For people, on one line.
    pub fn text(&self) -> String {
        let (lost, usage) = (last_line::lost_text(&self.lost), last_line::usage_text(self.usage));
        let waits = self.waits.map_or_else(String::new, |waits| format!(", {waits} waits"));
        format!(
            "{} samples{waits}, {lost}; {:.2} % of stacks reached their root ({} cut); {:.2} % of frames without a name{usage}",
            self.samples,
            self.rooted * 100.0,
            self.truncated,
            self.unsymbolized * 100.0,
        )
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        json!({
            "samples": self.samples,
            "waits": self.waits,
            "lost": self.lost,
            "rooted": self.rooted,
            "truncated": self.truncated,
            "unsymbolized": self.unsymbolized,
            "frames": self.frames,
            "cpu_ns": self.usage.map(|usage| usage.cpu_ns),
            "peak_rss_bytes": self.usage.map(|usage| usage.peak_rss_bytes),
        })
        .to_string()
    }
}

/// A share, or `empty` of nothing.
fn share(part: u64, whole: u64, empty: f64) -> f64 {
    if whole == 0 { empty } else { part as f64 / whole as f64 }
}

/// Frames of all samples, and those without a name.
fn frames(profile: &Profile) -> (u64, u64) {
    let (mut all, mut unnamed) = (0, 0);
    for sample in &profile.samples {
        let Some(stack) = profile.stacks.get(sample.stack as usize) else { continue };
        all += stack.locations.len() as u64 * sample.count;
        let is_unnamed = |location: &&u32| {
            profile.locations.get(**location as usize).is_none_or(|location| location.lines.is_empty())
        };
        unnamed += stack.locations.iter().filter(is_unnamed).count() as u64 * sample.count;
    }
    (all, unnamed)
}
