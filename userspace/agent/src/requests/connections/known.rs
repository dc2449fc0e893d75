//! Exchanges that the kernel side tells by their templates.

use std::sync::Arc;

use descry_abi::template::LEFT_OUT;
use descry_assemble::protocol::{Chunk, Direction};
use descry_assemble::span::Span;
use descry_assemble::template::Change;
use descry_decode::KnownExchange;
use descry_decode::ids::BootNanos;

use super::super::live::{Live, Tls};
use super::{Connections, Owned};

impl Connections {
    /// A request that equals a template, with its answer if that does too. Where the connection is as it was when the
    /// parser made an exchange of them, it is that one again; else the parser gets the bytes.
    pub fn known(&mut self, known: &KnownExchange, out: &mut Vec<(Owned, Span)>) {
        self.now = self.now.max(known.end);
        let Some(live) = self.live.get_mut(&known.connection) else {
            self.counted.without_connection += 1;
            return;
        };
        live.heard = known.end;
        // What goes over the socket says nothing where there is plaintext.
        if live.ignored || live.tls == Tls::Plaintext {
            return;
        }
        let Some(request) = self.templates.request(known.template, known.end) else {
            self.counted.without_template += 1;
            return;
        };
        live.note_request(known.start, known.request);
        // The parser may have been given the request before its answer came.
        let is_told = live.told.take() == Some(known.start);
        let request_len = request.len() as u64;
        let [request_gap, answer_gap] = live.pass(known, request_len, is_told);
        self.counted.gaps += u64::from(request_gap > 0) + u64::from(answer_gap > 0);
        let rest = live.connection.rest().filter(|_| request_gap + answer_gap == 0 && !is_told);
        let circumstances = rest.map(|rest| live.connection.circumstances(rest, request));
        let exchange = known.answer.zip(circumstances).and_then(|(answer, circumstances)| {
            let exchange = self.templates.exchange(answer.template, circumstances, known.end)?;
            Some((answer.template, exchange))
        });
        let exchange_is_known = exchange.is_some();
        if let Some((answer, exchange)) = exchange {
            let (times, settings) = ((known.start, known.end), &live.terms.settings);
            live.connection.passed(known.end);
            let key = (live.connection.origin().id, answer);
            let span = match self.likes.get(&key) {
                Some((of, like)) if Arc::ptr_eq(of, &exchange) => {
                    live.connection.again(like, times, settings)
                }
                _ => {
                    let span = live.connection.known(&exchange, times, settings);
                    self.likes.put(key, (exchange, span.clone()));
                    span
                }
            };
            self.spans.join_one(live, self.now, span, out);
        } else {
            if !is_told && let Some(bytes) = self.templates.request(known.template, known.end) {
                // The templates learn from what the parser makes of it, so its bytes are needed outside of them.
                let bytes = bytes.to_vec();
                let (direction, gap_before) = (Direction::ToServer, request_gap);
                let chunk = Chunk { direction, time: known.start, gap_before, bytes: &bytes, cut: 0 };
                let templates = Some(&mut self.templates);
                live.connection.data(chunk, &live.terms.settings, templates, &mut self.scratch);
            }
            if let Some(answer) = known.answer
                && let Some(bytes) = self.templates.answer(answer.template).map(<[u8]>::to_vec)
            {
                let cut = answer.len.saturating_sub(bytes.len() as u64);
                let (direction, gap_before) = (Direction::ToClient, answer_gap);
                let chunk = Chunk { direction, time: known.end, gap_before, bytes: &bytes, cut };
                let templates = Some(&mut self.templates);
                live.connection.data(chunk, &live.terms.settings, templates, &mut self.scratch);
            }
            live.note_state();
        }
        let moved = request_len.saturating_add(known.answer.map_or(0, |answer| answer.len));
        let done = if exchange_is_known { 1 } else { self.scratch.len() };
        if let Some(wanted) = live.weigh(moved, done) {
            self.wanted.push((known.connection, wanted));
        }
        self.spans.join(live, self.now, &mut self.scratch, out);
    }

    /// A request that equals a template has waited so long that it is taken before its answer comes.
    pub fn waits(&mut self, known: &KnownExchange, out: &mut Vec<(Owned, Span)>) {
        let is_told = |live: &Live| live.told == Some(known.start);
        if self.live.peek(&known.connection).is_some_and(is_told) {
            return;
        }
        self.known(known, out);
        if let Some(live) = self.live.peek_mut(&known.connection) {
            live.told = Some(known.start);
        }
    }

    /// Whether the kernel side may know of requests that are not told of yet.
    pub fn has_templates(&self) -> bool {
        !self.templates.is_empty()
    }

    /// What the kernel side has to be told of templates since the last call.
    pub fn take_template_changes(&mut self) -> Vec<Change> {
        self.templates.take_changes()
    }
}

impl Live {
    /// An exchange moves bytes in both directions; gives how many of each are missing before it.
    fn pass(&mut self, known: &KnownExchange, len: u64, is_told: bool) -> [u64; 2] {
        // Sent, received.
        let [request, answer] = if known.is_client { [0, 1] } else { [1, 0] };
        let mut moved = |direction: usize, offset: u64, len: u64| {
            let Some(seen) = self.seen.get_mut(direction) else { return 0 };
            let gap = offset.saturating_sub(*seen);
            *seen = offset.saturating_add(len);
            gap
        };
        let request_gap = if is_told { 0 } else { moved(request, known.offset, len) };
        [request_gap, known.answer.map_or(0, |of| moved(answer, of.offset, of.len))]
    }
}

/// How long a request that equals a template waits for its answer before it is taken without (ns).
pub const PATIENCE: u64 = 2_000_000_000;

/// Whether a request waits for too long. One of a trace that is not taken is told when its connection ends.
pub fn is_late(known: &KnownExchange, now: BootNanos) -> bool {
    known.request.0 & LEFT_OUT == 0 && now.0.saturating_sub(known.start.0) >= PATIENCE
}
