//! What became of the data handed to the sender.

use std::collections::BTreeMap;

use super::error::{DropReason, SendError};

/// The account of one [`Sender::send`](super::Sender::send), or of all that a
/// [`Background`](super::Background) was given: every item given is either sent
/// (and perhaps rejected by the receiver) or dropped under a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that the receiver acknowledged.
    pub sent_requests: u64,
    /// Items in those requests, rejected ones included.
    pub sent_items: u64,
    /// Items that the receiver said it rejected (`partial_success`).
    pub rejected_items: u64,
    /// Items in requests that were not acknowledged.
    pub dropped_items_by_reason: BTreeMap<DropReason, u64>,
    /// Size of the acknowledged requests, encoded and before compression.
    pub bytes: u64,
    /// Attempts after the first, over all requests.
    pub retries: u64,
    /// Requests answered with success by something that did not answer as an OTLP receiver does;
    /// the data may have gone nowhere.
    pub unconfirmed_requests: u64,
    /// The first failure.
    pub first_error: Option<SendError>,
}

impl Outcome {
    /// Items that no receiver acknowledged.
    #[must_use]
    pub fn dropped_items(&self) -> u64 {
        self.dropped_items_by_reason.values().sum()
    }

    /// Whether the receiver kept every item.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.dropped_items_by_reason.is_empty() && self.first_error.is_none() && self.rejected_items == 0
    }

    /// Adds the account of later requests.
    pub(super) fn add(&mut self, later: Self) {
        self.sent_requests += later.sent_requests;
        self.sent_items += later.sent_items;
        self.rejected_items += later.rejected_items;
        for (reason, items) in later.dropped_items_by_reason {
            self.drop_items(reason, items);
        }
        self.bytes += later.bytes;
        self.retries += later.retries;
        self.unconfirmed_requests += later.unconfirmed_requests;
        self.first_error = self.first_error.take().or(later.first_error);
    }

    pub(super) fn drop_items(&mut self, reason: DropReason, items: u64) {
        *self.dropped_items_by_reason.entry(reason).or_default() += items;
    }
}
