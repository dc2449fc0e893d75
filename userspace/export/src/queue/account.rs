//! What became of every item.

use std::collections::BTreeMap;

/// Counts of items, in the unit of their signal, unless it says otherwise. See [`super::Queue`] for how they add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Given to the queue.
    pub queued: u64,
    /// Found in the spool of an earlier run.
    pub restored: u64,
    /// Acknowledged by the receiver, rejected ones included.
    pub sent: u64,
    /// Of those, items that the receiver said it rejected.
    pub rejected: u64,
    /// Not sent and given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Left in the spool at the end, for a later run.
    pub kept: u64,
    /// In memory, on disk and under way now.
    pub waiting: u64,
    /// Of all, items that were written to the spool.
    pub spooled: u64,
    /// Attempts after the first, over all requests.
    pub retries: u64,
    /// Times that an endpoint was given up for a while because a request to it failed, where there are others.
    pub circuits_opened: u64,
    /// Requests acknowledged.
    pub requests: u64,
    /// Bytes of the requests in memory now.
    pub waiting_bytes: u64,
    /// Bytes of the spool now.
    pub spool_bytes: u64,
    /// Segments of earlier runs with a record that was not whole; what was lost in them is not known.
    pub damaged_segments: u64,
}

impl Account {
    /// Counts items that are given up.
    pub fn drop_items(&mut self, reason: &'static str, items: u64) {
        if items > 0 {
            *self.dropped.entry(reason).or_default() += items;
        }
    }

    /// Counts items that were to be queued and found no queue.
    pub fn never_queued(&mut self, reason: &'static str, items: u64) {
        self.queued += items;
        self.drop_items(reason, items);
    }

    /// Adds another destination's.
    pub fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.restored += other.restored;
        self.sent += other.sent;
        self.rejected += other.rejected;
        self.kept += other.kept;
        self.waiting += other.waiting;
        self.spooled += other.spooled;
        self.retries += other.retries;
        self.circuits_opened += other.circuits_opened;
        self.requests += other.requests;
        self.waiting_bytes += other.waiting_bytes;
        self.spool_bytes += other.spool_bytes;
        self.damaged_segments += other.damaged_segments;
        for (reason, items) in &other.dropped {
            self.drop_items(reason, *items);
        }
    }

    /// Whether every item is accounted for.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let dropped: u64 = self.dropped.values().sum();
        self.queued + self.restored == self.sent + dropped + self.kept + self.waiting
    }
}
