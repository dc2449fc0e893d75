//! New mappings of processes that had no sample yet. Most never have one.

use std::num::NonZeroUsize;

use descry_decode::ids::{BootNanos, Tgid};
use descry_probe::MmapEvent;
use lru::LruCache;

use super::TrackerCounters;

/// Processes whose new mappings wait for a first sample at most, and mappings of one.
const MAX_PENDING: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const MAX_PENDING_MAPPINGS: usize = 512;

/// Mappings that wait, by process.
pub(super) struct PendingMappings {
    of: LruCache<Tgid, Vec<MmapEvent>>,
}

impl PendingMappings {
    pub(super) fn new() -> Self {
        Self { of: LruCache::new(MAX_PENDING) }
    }

    /// One more. Those of the process that was quiet for longest are forgotten for it where there are too many.
    pub(super) fn add(&mut self, event: MmapEvent, counters: &mut TrackerCounters) {
        if !self.of.contains(&event.tgid)
            && let Some((_, forgotten)) = self.of.push(event.tgid, Vec::new())
        {
            counters.mappings_forgotten += forgotten.len() as u64;
        }
        let waiting = self.of.get_or_insert_mut(event.tgid, Vec::new);
        if waiting.len() < MAX_PENDING_MAPPINGS {
            waiting.push(event);
        } else {
            counters.mappings_dropped += 1;
        }
    }

    /// A process runs another program since `time`: what was mapped before is gone.
    pub(super) fn executed(&mut self, tgid: Tgid, time: BootNanos) {
        if let Some(waiting) = self.of.get_mut(&tgid) {
            waiting.retain(|mapping| mapping.time >= time);
        }
    }

    /// Those of a process, which wait no longer.
    pub(super) fn take(&mut self, tgid: Tgid) -> Vec<MmapEvent> {
        self.of.pop(&tgid).unwrap_or_default()
    }
}
