//! Spans of connections in their traces: joined to what caused them, and taken or not.

use descry_abi::template::{LEFT_OUT, Lots, client_lot_of, lot};
use descry_assemble::join::{Joiner, Limits, Place};
use descry_assemble::span::{Span, SpanKind};
use descry_decode::ids::{BootNanos, RequestId};
use descry_pipeline::{Sampling, leave_out};

use super::super::live::Live;
use super::Owned;

/// From what was said on one connection to spans in their traces.
pub(super) struct Spans {
    pub(super) joiner: Joiner<Owned>,
    pub(super) sampling: Option<Sampling>,
    pub(super) lots: Lots,
    /// Spans whose request's trace is not taken, as the kernel side has decided.
    left_out: Vec<(Owned, Span)>,
    /// Room for [`Live::are_shared`].
    are_shared: Vec<bool>,
}

impl Spans {
    /// None yet.
    pub(super) fn new(lots: Lots, sampling: Option<Sampling>) -> Self {
        let joiner = Joiner::new(Limits::default());
        Self { joiner, sampling, lots, left_out: Vec::new(), are_shared: Vec::new() }
    }

    /// Gives the spans of a connection to the joiner, each with its request. `done` is empty after that.
    pub(super) fn join(
        &mut self,
        live: &mut Live,
        now: BootNanos,
        done: &mut Vec<Span>,
        out: &mut Vec<(Owned, Span)>,
    ) {
        if done.is_empty() {
            return;
        }
        let first = out.len();
        let mut are_shared = std::mem::take(&mut self.are_shared);
        live.are_shared(done, &mut are_shared);
        for (span, is_shared) in done.drain(..).zip(are_shared.drain(..)) {
            out.push((Owned::of(live), span));
            self.join_last(live, now, is_shared, out);
        }
        self.are_shared = are_shared;
        self.finish_join(first, out);
    }

    /// The same of a single span.
    #[inline]
    pub(super) fn join_one(
        &mut self,
        live: &mut Live,
        now: BootNanos,
        span: Span,
        out: &mut Vec<(Owned, Span)>,
    ) {
        let first = out.len();
        // A span is large: from here on it stays where it is.
        out.push((Owned::of(live), span));
        if let Some((_, span)) = out.last() {
            live.are_shared(std::slice::from_ref(span), &mut self.are_shared);
        }
        let is_shared = self.are_shared.pop().unwrap_or_default();
        self.join_last(live, now, is_shared, out);
        self.finish_join(first, out);
    }

    /// Joins the last span of `out`, which is of this connection.
    fn join_last(&mut self, live: &Live, now: BootNanos, is_shared: bool, out: &mut Vec<(Owned, Span)>) {
        let Some((owner, span)) = out.last_mut() else { return };
        let offset = live.terms.settings.unix_offset.saturating_neg();
        let start = BootNanos(span.start.0.saturating_add_signed(offset));
        let request = live.request_at(start);
        let number = RequestId(request.0 & !LEFT_OUT);
        if matches!(span.kind, SpanKind::Server | SpanKind::Consumer) {
            draw(self.lots, span, number.0);
            begin(&mut self.sampling, owner, span);
            self.joiner.server(request, Place::of(span, is_shared), now, out);
            return;
        }
        if span.parent.is_some() {
            begin(&mut self.sampling, owner, span);
        } else if number.0 == 0 {
            draw(self.lots, span, client_lot_of(live.id.0, start.0));
        } else if request != number {
            leave_out(span);
        }
        let Some((owner, span)) = out.pop() else { return };
        if request != number && number.0 != 0 {
            // Its request's span is not told: it would wait for it in vain.
            self.left_out.push((owner, span));
        } else {
            self.joiner.client(number, now, span, owner, out);
        }
    }

    /// All that came of one message is joined.
    fn finish_join(&mut self, first: usize, out: &mut Vec<(Owned, Span)>) {
        self.begin_roots(first, out);
        // Of their traces it is decided already.
        out.append(&mut self.left_out);
    }

    /// Gives what still waits.
    pub(super) fn finish(&mut self, out: &mut Vec<(Owned, Span)>) {
        let first = out.len();
        self.joiner.finish(out);
        self.begin_roots(first, out);
    }

    /// Client spans that have no parent in the end begin a trace too. So do calls of functions, but of those others are in
    /// the same trace, which went before: they have a rate of their own.
    pub(super) fn begin_roots(&mut self, first: usize, out: &mut [(Owned, Span)]) {
        for (owner, span) in out.iter_mut().skip(first) {
            let is_client = matches!(span.kind, SpanKind::Client | SpanKind::Producer);
            if is_client && span.parent.is_none() {
                begin(&mut self.sampling, owner, span);
            }
        }
    }
}

/// Makes the lot that was drawn for a trace that begins with this span the randomness of its id, so that everybody decides
/// alike. `of`: what it was drawn of; 0: nobody knows.
fn draw(lots: Lots, span: &mut Span, of: u64) {
    if lots.first_taken != 0 && of != 0 && span.parent.is_none() {
        let lot = lot(of, lots.seed).to_be_bytes();
        span.trace.0.iter_mut().rev().zip(lot.iter().rev()).take(7).for_each(|(to, from)| *to = *from);
    }
}

/// Decides of a trace that begins with this span here.
fn begin(sampling: &mut Option<Sampling>, owner: &Owned, span: &mut Span) {
    if let Some(sampling) = sampling {
        sampling.begin(span, owner.traces_per_second, || owner.process.service().to_string());
    }
}
