//! The last line on stderr: what was counted, what was lost, what it cost.

use std::collections::BTreeMap;

use descry_abi::counter::Counter;
use descry_aggregate::KnownCode;
use descry_telemetry::ProcessUsage;
use serde_json::json;

use crate::last_line;
use crate::measure::{TableCounters, TrackerCounters};

/// The figures.
#[derive(Debug)]
pub struct Stats {
    calls: u64,
    slow: u64,
    begun_before: u64,
    lost: BTreeMap<&'static str, u64>,
    rooted: u64,
    truncated: u64,
    /// Share of places in code without a name.
    unsymbolized: f64,
    usage: Option<ProcessUsage>,
}

/// Counters of the kernel side that mean something lost, or told less exactly.
const LOST: [Counter; 12] = [
    Counter::SyscallOthers,
    Counter::SyscallThreadsFull,
    Counter::SyscallErrorsFull,
    Counter::SyscallUnreturnedFull,
    Counter::RingFullSyscall,
    Counter::RingFullCopy,
    Counter::RingFullLifecycle,
    Counter::NoState,
    Counter::PidNotVisible,
    Counter::UserRegistersFailed,
    Counter::StackCopyFailed,
    Counter::ScopeFull,
];

impl Stats {
    /// From the counters of the stages, and what is known of the places in code that slow calls came from.
    pub fn new(
        kernel: &[(Counter, u64)],
        tracker: TrackerCounters,
        tables: TableCounters,
        code: &[KnownCode],
    ) -> Self {
        let of =
            |wanted| kernel.iter().find(|(counter, _)| *counter == wanted).map_or(0, |(_, count)| *count);
        let unnamed = code.iter().filter(|code| code.symbolized.frames.is_empty()).count();
        let mut stats = Self {
            calls: 0,
            slow: of(Counter::SyscallSlow),
            begun_before: of(Counter::SyscallBegunBefore),
            lost: BTreeMap::new(),
            rooted: tracker.rooted,
            truncated: tracker.truncated,
            unsymbolized: if code.is_empty() { 0.0 } else { unnamed as f64 / code.len() as f64 },
            usage: last_line::usage(),
        };
        for counter in LOST {
            stats.note(counter.name(), of(counter));
        }
        stats.note("malformed_record", tracker.malformed);
        stats.note("stack_copy_without_sample", tracker.copies_dropped);
        stats.note("binary_not_held", tracker.not_held);
        stats.note("unwind_table_full", tables.full);
        stats.note("process_table_full", tables.processes_full);
        stats
    }

    /// Adds to what was lost.
    pub fn note(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.lost.entry(reason).or_default() += count;
        }
    }

    /// How many calls returned.
    pub fn set_calls(&mut self, calls: u64) {
        self.calls = calls;
    }

    /// What was lost, by reason.
    pub fn lost(&self) -> &BTreeMap<&'static str, u64> {
        &self.lost
    }

    /// Calls that began before the measurement and returned during it.
    pub fn begun_before(&self) -> u64 {
        self.begun_before
    }

    /// For people, on one line.
    pub fn text(&self) -> String {
        let (lost, usage) = (last_line::lost_text(&self.lost), last_line::usage_text(self.usage));
        format!(
            "{} calls, {} slow, {} had begun before, {lost}{usage}",
            self.calls, self.slow, self.begun_before
        )
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        let stacks = self.rooted + self.truncated;
        json!({
            "calls": self.calls,
            "slow": self.slow,
            "begun_before": self.begun_before,
            "samples": stacks,
            "lost": self.lost,
            "rooted": if stacks == 0 { 1.0 } else { self.rooted as f64 / stacks as f64 },
            "truncated": self.truncated,
            "unsymbolized": self.unsymbolized,
            "cpu_ns": self.usage.map(|usage| usage.cpu_ns),
            "peak_rss_bytes": self.usage.map(|usage| usage.peak_rss_bytes),
        })
        .to_string()
    }
}
