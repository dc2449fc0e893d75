//! What became of the data handed to the sender.

use std::collections::BTreeMap;

use super::error::{DropReason, SendError};

/// The account of one [`Sender::send`](super::Sender::send): every item given is either sent
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
        self.first_error.is_none() && self.rejected_items == 0
    }

    pub(super) fn drop_items(&mut self, reason: DropReason, items: u64) {
        *self.dropped_items_by_reason.entry(reason).or_default() += items;
    }
}
