//! Exchanges that the kernel side counts and does not tell, because the traces that they begin are not taken.

use descry_abi::histogram::Histogram;
use descry_abi::template::CountKey;
use descry_aggregate::histogram::since;
use descry_assemble::span::Span;
use descry_decode::ids::{ConnectionId, TemplateId};
use descry_pipeline::leave_out;
use rustc_hash::FxHashMap;

use super::super::live::Live;
use super::{Connections, Owned};

/// Connections that were closed since the rows were read, at most; what was counted of more is in no metric.
const MAX_CLOSED: usize = 8192;

/// What was read of the kernel side's rows.
#[derive(Default)]
pub struct Counts {
    /// What each row was when it was read last.
    read: FxHashMap<CountKey, Box<Histogram>>,
    /// Connections that were closed since.
    closed: FxHashMap<ConnectionId, Live>,
    /// Rows of connections that nobody knows.
    strays: Vec<CountKey>,
}

impl Counts {
    /// A connection is closed, of which something may be counted.
    pub fn closed(&mut self, connection: ConnectionId, live: Live) {
        if self.closed.len() < MAX_CLOSED {
            self.closed.insert(connection, live);
        }
    }
}

impl Connections {
    /// Whether the kernel side may have counted exchanges.
    pub fn are_counted(&self) -> bool {
        self.spans.lots.first_taken != 0 && self.has_templates()
    }

    /// A row as it is now: gives what came to it since it was read last, with a span that differs in its times only.
    pub fn counted(&mut self, key: CountKey, durations: &Histogram) -> Option<(Owned, Span, Histogram)> {
        let read = self.counts.read.entry(key).or_default();
        let new = since(durations, read);
        // A program may be between the count and the bucket.
        if new.count == 0 && new.buckets.iter().all(|count| *count == 0) {
            return None;
        }
        **read = *durations;
        let id = ConnectionId(key.connection);
        // The number of one that was closed may be another's already.
        let live = self.counts.closed.get_mut(&id).or_else(|| self.live.peek_mut(&id));
        let Some(live) = live else {
            self.counts.strays.push(key);
            self.counted.without_connection += new.count;
            return None;
        };
        // Nothing is counted once it is another than it was first.
        let state = live.state.unwrap_or_default();
        let answer = TemplateId(key.answer);
        let request = self.templates.request_of(answer);
        let circumstances = request.map(|request| live.connection.circumstances(state, request));
        let exchange = circumstances.and_then(|it| self.templates.exchange(answer, it, self.now));
        let Some(exchange) = exchange else {
            self.counted.without_template += new.count;
            return None;
        };
        let mut span = live.connection.known(&exchange, (self.now, self.now), &live.terms.settings);
        leave_out(&mut span);
        if let Some(sampling) = self.spans.sampling.as_mut().filter(|_| key.is_root != 0) {
            sampling.left_out(new.count);
        }
        Some((Owned::of(live), span, new))
    }

    /// The rows that nothing is added to any more, now that all were read.
    pub fn take_ended_counts(&mut self) -> Vec<CountKey> {
        let Counts { read, closed, strays } = &mut self.counts;
        let mut ended = std::mem::take(strays);
        if !closed.is_empty() {
            ended.extend(read.keys().filter(|key| closed.contains_key(&ConnectionId(key.connection))));
            closed.clear();
        }
        ended.iter().for_each(|key| drop(read.remove(key)));
        ended
    }
}
