//! Spans of connections in their traces: joined to what caused them, and taken or not.

use descry_abi::template::{LEFT_OUT, Lots, client_lot_of, lot};
use descry_aggregate::request::Ends;
use descry_assemble::connection::Origin;
use descry_assemble::join::{Joiner, Limits};
use descry_assemble::span::{Span, SpanKind};
use descry_decode::ids::{BootNanos, RequestId};
use descry_pipeline::{Sampling, leave_out};

use super::super::live::Live;
use super::{Owned, Terms};

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
        // Who is the client may have turned out by the bytes.
        let &Origin { client, server, .. } = live.connection.origin();
        let ends = Ends { client, server };
        let first = out.len();
        live.are_shared(done, &mut self.are_shared);
        for (mut span, is_shared) in done.drain(..).zip(self.are_shared.drain(..)) {
            let Terms { settings, traces_per_second } = &live.terms;
            let offset = settings.unix_offset.saturating_neg();
            let traces_per_second = *traces_per_second;
            let start = BootNanos(span.start.0.saturating_add_signed(offset));
            let request = live.request_at(start);
            let owner = Owned { process: live.process.clone(), ends, traces_per_second };
            match span.kind {
                SpanKind::Server | SpanKind::Consumer => {
                    draw(self.lots, &mut span, request.0 & !LEFT_OUT);
                    begin(&mut self.sampling, &owner, &mut span);
                    self.joiner.server(request, is_shared, now, span, owner, out);
                }
                SpanKind::Client | SpanKind::Producer | SpanKind::Internal => {
                    let number = RequestId(request.0 & !LEFT_OUT);
                    if span.parent.is_some() {
                        begin(&mut self.sampling, &owner, &mut span);
                    } else if number.0 == 0 {
                        draw(self.lots, &mut span, client_lot_of(live.id.0, start.0));
                    } else if request != number {
                        leave_out(&mut span);
                    }
                    if request != number && number.0 != 0 {
                        // Its request's span is not told: it would wait for it in vain.
                        self.left_out.push((owner, span));
                        continue;
                    }
                    self.joiner.client(number, now, span, owner, out);
                }
            }
        }
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
