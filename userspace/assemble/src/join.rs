//! Joins what one process does for a request: the client's spans that a server's request caused become its children.
//!
//! The kernel side numbers the requests that a server receives, and every message says which of them its unit served.
//! A client's span ends before the server's span that caused it, as a rule, so it waits for that one. One that waits
//! too long, or of too many, goes on as it is: a root of its own, not a guess. So does one that began when its request
//! was over, and one whose request was served beside others on the same connection: whose it is cannot be told.
//!
//! Calls of functions wait in the same way. One inside another that belongs to the request, too, stays its child. So do
//! parts of requests, like slow system calls, which are nothing without their request: one that finds none is dropped.

mod places;

use std::collections::VecDeque;

use descry_decode::ids::{BootNanos, RequestId, UnixNanos};
use rustc_hash::FxHashMap;

use crate::span::Span;
pub use places::Place;
use places::Places;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Spans that wait at most, half of them calls of functions and parts; about 500 B each.
    pub waiting: usize,
    /// Requests whose span is remembered for children that come after it, about 80 B each, and requests whose children wait.
    pub remembered: usize,
    /// How long a span waits, and a request is remembered (ns).
    pub patience: u64,
}

impl Limits {
    /// How many may wait already when one more does. Calls and parts come by the thousand, and their requests may be of no protocol
    /// that is known: they leave room for others.
    fn of(self, kind: Kind) -> usize {
        match kind {
            Kind::Client => self.waiting,
            Kind::Call(_) | Kind::Part => self.waiting / 2,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { waiting: 16_384, remembered: 16_384, patience: 60_000_000_000 }
    }
}

/// What was joined, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Spans that found their parent.
    pub joined: u64,
    /// Spans whose request was never seen to end: they go on without a parent.
    pub waited_too_long: u64,
    /// Spans that went on without a parent because too many waited.
    pub too_many: u64,
    /// Spans that began before or after the request that their unit is said to serve: they go on without a parent.
    pub outside: u64,
    /// Spans of a connection that served several requests at once: they go on without a parent.
    pub ambiguous: u64,
    /// Parts that were dropped because they have no request.
    pub parts_dropped: u64,
}

/// A span that waits, with whatever belongs to it.
#[derive(Debug)]
struct Waiting<T> {
    kind: Kind,
    span: Span,
    owner: T,
}

/// What a span that has a parent already has to do with its request's.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A request to another server: the caller's trace context names the parent.
    Client,
    /// A call of a function: the call around it, which began then, is the parent.
    Call(Option<UnixNanos>),
    /// Part of a request.
    Part,
}

/// Joins spans by request. `T` is handed through: whose span it is.
#[derive(Debug)]
pub struct Joiner<T> {
    limits: Limits,
    children: FxHashMap<RequestId, Vec<Waiting<T>>>,
    waiting: usize,
    /// Requests whose children wait or did so, in the order in which they were met first.
    order: VecDeque<(BootNanos, RequestId)>,
    places: Places,
    counters: Counters,
}

impl<T> Joiner<T> {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            children: FxHashMap::default(),
            waiting: 0,
            order: VecDeque::new(),
            places: Places::new(limits.remembered),
            counters: Counters::default(),
        }
    }

    /// The span of a server's request is in this place: gives the children that waited for it.
    pub fn server(&mut self, request: RequestId, place: Place, now: BootNanos, out: &mut Vec<(T, Span)>) {
        if request.0 != 0 {
            self.places.insert(request, now, place);
            if self.waiting > 0 {
                for child in self.take(request) {
                    self.under(child, place, out);
                }
            }
        }
        self.expire(now, out);
    }

    /// Takes the span of a client's request, made while `request` was served (0: none known). One that carried a trace
    /// context of its own has its parent already; one that passed on that of the request goes between.
    pub fn client(
        &mut self,
        request: RequestId,
        now: BootNanos,
        span: Span,
        owner: T,
        out: &mut Vec<(T, Span)>,
    ) {
        self.child(request, now, Waiting { kind: Kind::Client, span, owner }, out);
    }

    /// Takes the span of a function's call, made while `request` was served (0: none known). `around`: when the call around
    /// it began, which is its parent.
    pub fn call(
        &mut self,
        request: RequestId,
        now: BootNanos,
        around: Option<UnixNanos>,
        span: Span,
        owner: T,
        out: &mut Vec<(T, Span)>,
    ) {
        self.child(request, now, Waiting { kind: Kind::Call(around), span, owner }, out);
    }

    /// Takes the span of a part of a request.
    pub fn part(
        &mut self,
        request: RequestId,
        now: BootNanos,
        span: Span,
        owner: T,
        out: &mut Vec<(T, Span)>,
    ) {
        self.child(request, now, Waiting { kind: Kind::Part, span, owner }, out);
    }

    fn child(&mut self, request: RequestId, now: BootNanos, child: Waiting<T>, out: &mut Vec<(T, Span)>) {
        if request.0 == 0 {
            self.alone(child, out);
        } else if let Some(place) = self.places.get(request, self.since(now)) {
            self.under(child, place, out);
        } else if self.waiting >= self.limits.of(child.kind) {
            self.counters.too_many += 1;
            self.alone(child, out);
        } else {
            self.waiting += 1;
            let waiting = self.children.entry(request).or_default();
            if waiting.is_empty() {
                self.order.push_back((now, request));
            }
            waiting.push(child);
        }
        self.expire(now, out);
    }

    /// Gives what has waited too long.
    pub fn expire(&mut self, now: BootNanos, out: &mut Vec<(T, Span)>) {
        let since = self.since(now);
        while let Some((met, request)) = self.order.front().copied() {
            if met >= since && self.order.len() <= self.limits.remembered {
                return;
            }
            self.order.pop_front();
            if self.waiting > 0 {
                self.give_up(request, out);
            }
        }
    }

    /// Gives everything that waits.
    pub fn finish(&mut self, out: &mut Vec<(T, Span)>) {
        for (_, request) in std::mem::take(&mut self.order) {
            self.give_up(request, out);
        }
    }

    /// What was joined, and what was not.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What was met before this is too old.
    fn since(&self, now: BootNanos) -> BootNanos {
        BootNanos(now.0.saturating_sub(self.limits.patience))
    }

    /// Gives a span as a child of a request's, if it may be one.
    fn under(&mut self, mut child: Waiting<T>, place: Place, out: &mut Vec<(T, Span)>) {
        let span = &mut child.span;
        let is_of_another = span.parent.is_some() && (span.trace, span.parent) != (place.trace, place.caller);
        if matches!(child.kind, Kind::Client) && is_of_another {
            return self.alone(child, out);
        }
        if place.is_shared {
            self.counters.ambiguous += 1;
            return self.alone(child, out);
        }
        let serves = place.start..=place.end;
        if !serves.contains(&span.start) {
            self.counters.outside += 1;
            return self.alone(child, out);
        }
        self.counters.joined += 1;
        span.trace = place.trace;
        let is_inside_another = matches!(child.kind, Kind::Call(Some(around)) if serves.contains(&around));
        if !is_inside_another {
            span.parent = Some(place.span);
        }
        span.flags = place.flags;
        span.parent_is_remote = Some(false);
        out.push((child.owner, child.span));
    }

    /// Gives a span that has no request to hang under, if it means something without.
    fn alone(&mut self, child: Waiting<T>, out: &mut Vec<(T, Span)>) {
        match child.kind {
            Kind::Client | Kind::Call(_) => out.push((child.owner, child.span)),
            Kind::Part => self.counters.parts_dropped += 1,
        }
    }

    fn give_up(&mut self, request: RequestId, out: &mut Vec<(T, Span)>) {
        for child in self.take(request) {
            self.counters.waited_too_long += 1;
            self.alone(child, out);
        }
    }

    fn take(&mut self, request: RequestId) -> Vec<Waiting<T>> {
        let waiting = self.children.remove(&request).unwrap_or_default();
        self.waiting -= waiting.len();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use descry_decode::ids::{BootNanos, RequestId, UnixNanos};

    use super::{Counters, Joiner, Limits, Place};
    use crate::span::{Span, SpanId, SpanKind, Status, TraceId};

    fn span(number: u8, kind: SpanKind) -> Span {
        Span {
            trace: TraceId([number; 16]),
            span: SpanId([number; 8]),
            parent: None,
            trace_state: "".into(),
            flags: 0,
            parent_is_remote: None,
            kind,
            name: "".into(),
            start: UnixNanos(0),
            end: UnixNanos(0),
            status: Status::Unset,
            attributes: Vec::new().into(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }

    /// The span of a server's request comes, and goes on behind the children that waited for it.
    fn served(
        joiner: &mut Joiner<()>,
        request: RequestId,
        is_shared: bool,
        now: BootNanos,
        span: Span,
        out: &mut Vec<((), Span)>,
    ) {
        joiner.server(request, Place::of(&span, is_shared), now, out);
        out.push(((), span));
    }

    /// (time, request, number of the span; servers are even) in, (number, number of the parent) out.
    fn check(limits: Limits, spans: &[(u64, u64, u8)], expected: &[(u8, Option<u8>)]) {
        let mut joiner = Joiner::new(limits);
        let mut out = Vec::new();
        for (time, request, number) in spans {
            let (now, request) = (BootNanos(*time), RequestId(*request));
            if number % 2 == 0 {
                served(&mut joiner, request, false, now, span(*number, SpanKind::Server), &mut out);
            } else {
                joiner.client(request, now, span(*number, SpanKind::Client), (), &mut out);
            }
        }
        joiner.finish(&mut out);
        let found: Vec<_> =
            out.iter().map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]))).collect();
        assert_eq!(found, expected);
        for (_, span) in &out {
            let trace = span.parent.map_or(span.span.0[0], |parent| parent.0[0]);
            assert_eq!(span.trace, TraceId([trace; 16]));
        }
    }

    #[test]
    fn children_wait_for_their_parent() {
        check(
            Limits::default(),
            &[(1, 7, 1), (2, 7, 3), (3, 7, 2)],
            &[(1, Some(2)), (3, Some(2)), (2, None)],
        );
    }

    #[test]
    fn children_come_after_their_parent() {
        check(Limits::default(), &[(1, 7, 2), (2, 7, 1)], &[(2, None), (1, Some(2))]);
    }

    #[test]
    fn other_requests_and_none_are_not_joined() {
        check(
            Limits::default(),
            &[(1, 7, 1), (1, 0, 3), (2, 8, 2), (3, 0, 4), (3, 0, 5)],
            &[(3, None), (2, None), (4, None), (5, None), (1, None)],
        );
    }

    #[test]
    fn what_waits_too_long_goes_on_alone() {
        let limits = Limits { patience: 10, ..Limits::default() };
        check(limits, &[(1, 7, 1), (20, 8, 2), (21, 7, 4)], &[(1, None), (2, None), (4, None)]);
    }

    #[test]
    fn what_cannot_be_told_is_not_joined() {
        let at = |mut span: Span, start, end| {
            (span.start, span.end) = (UnixNanos(start), UnixNanos(end));
            span
        };
        let mut joiner = Joiner::new(Limits::default());
        let mut out = Vec::new();
        let now = BootNanos(9);
        for (number, start) in [(1, 4), (3, 5), (5, 8), (7, 9)] {
            let child = at(span(number, SpanKind::Client), start, start);
            joiner.client(RequestId(7), now, child, (), &mut out);
        }
        served(&mut joiner, RequestId(7), false, now, at(span(2, SpanKind::Server), 5, 8), &mut out);
        joiner.client(RequestId(8), now, at(span(9, SpanKind::Client), 6, 7), (), &mut out);
        served(&mut joiner, RequestId(8), true, now, at(span(4, SpanKind::Server), 5, 8), &mut out);
        let found: Vec<_> =
            out.iter().map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]))).collect();
        let expected = [(1, None), (3, Some(2)), (5, Some(2)), (7, None), (2, None), (9, None), (4, None)];
        assert_eq!(found, expected);
        let Counters { joined, outside, ambiguous, .. } = joiner.counters();
        assert_eq!((joined, outside, ambiguous), (2, 2, 1));
    }

    #[test]
    fn calls_keep_their_order_in_a_request() {
        // (number of the span, its start, the call around it and when that began); the request is open from 5 to 8.
        let calls = [(1, 4, None), (3, 5, Some((1, 4))), (5, 6, Some((3, 5))), (7, 6, None), (9, 9, None)];
        for server_is_first in [true, false] {
            let mut joiner = Joiner::new(Limits::default());
            let mut out = Vec::new();
            let server = Span { start: UnixNanos(5), end: UnixNanos(8), ..span(2, SpanKind::Server) };
            if server_is_first {
                served(&mut joiner, RequestId(7), false, BootNanos(9), server.clone(), &mut out);
            }
            for (number, start, around) in calls {
                let parent = around.map(|(number, _)| SpanId([number; 8]));
                let call = Span { start: UnixNanos(start), parent, ..span(number, SpanKind::Internal) };
                let around = around.map(|(_, start)| UnixNanos(start));
                joiner.call(RequestId(7), BootNanos(9), around, call, (), &mut out);
            }
            if !server_is_first {
                served(&mut joiner, RequestId(7), false, BootNanos(9), server, &mut out);
            }
            let calls = out.iter().filter(|(_, span)| span.kind == SpanKind::Internal);
            let found: Vec<_> = calls
                .map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]), span.trace.0[0]))
                .collect();
            let expected = [(1, None, 1), (3, Some(2), 2), (5, Some(3), 2), (7, Some(2), 2), (9, None, 9)];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn parts_are_nothing_without_their_request() {
        let at = |number, start| Span { start: UnixNanos(start), ..span(number, SpanKind::Internal) };
        let mut joiner = Joiner::new(Limits { patience: 10, ..Limits::default() });
        let mut out = Vec::new();
        for (request, number, start) in [(0, 1, 6), (7, 3, 6), (7, 5, 9), (8, 7, 6)] {
            joiner.part(RequestId(request), BootNanos(1), at(number, start), (), &mut out);
        }
        let server = Span { start: UnixNanos(5), end: UnixNanos(8), ..span(2, SpanKind::Server) };
        served(&mut joiner, RequestId(7), false, BootNanos(2), server, &mut out);
        joiner.expire(BootNanos(20), &mut out);
        let found: Vec<_> =
            out.iter().map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]))).collect();
        assert_eq!(found, [(3, Some(2)), (2, None)]);
        let Counters { parts_dropped, outside, waited_too_long, .. } = joiner.counters();
        assert_eq!((parts_dropped, outside, waited_too_long), (3, 1, 1));
    }

    #[test]
    fn calls_leave_room_for_clients() {
        let limits = Limits { waiting: 2, ..Limits::default() };
        let mut joiner = Joiner::new(limits);
        let mut out = Vec::new();
        for number in [1, 3] {
            let call = span(number, SpanKind::Internal);
            joiner.call(RequestId(7), BootNanos(1), None, call, (), &mut out);
        }
        joiner.client(RequestId(7), BootNanos(1), span(5, SpanKind::Client), (), &mut out);
        served(&mut joiner, RequestId(7), false, BootNanos(2), span(2, SpanKind::Server), &mut out);
        let found: Vec<_> =
            out.iter().map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]))).collect();
        assert_eq!(found, [(3, None), (1, Some(2)), (5, Some(2)), (2, None)]);
        assert_eq!(joiner.counters().too_many, 1);
    }

    #[test]
    fn a_context_that_is_passed_on_goes_between() {
        let mut joiner = Joiner::new(Limits::default());
        let mut out = Vec::new();
        let named = |number, kind, trace, parent| Span {
            trace: TraceId([trace; 16]),
            parent: Some(SpanId([parent; 8])),
            ..span(number, kind)
        };
        joiner.client(RequestId(7), BootNanos(1), named(1, SpanKind::Client, 50, 60), (), &mut out);
        joiner.client(RequestId(7), BootNanos(1), named(3, SpanKind::Client, 50, 61), (), &mut out);
        served(&mut joiner, RequestId(7), false, BootNanos(2), named(2, SpanKind::Server, 50, 60), &mut out);
        let found: Vec<_> =
            out.iter().map(|(_, span)| (span.span.0[0], span.parent.map(|id| id.0[0]))).collect();
        assert_eq!(found, [(1, Some(2)), (3, Some(61)), (2, Some(60))]);
    }

    #[test]
    fn too_many_do_not_wait() {
        let limits = Limits { waiting: 1, ..Limits::default() };
        check(limits, &[(1, 7, 1), (1, 7, 3), (2, 7, 2)], &[(3, None), (1, Some(2)), (2, None)]);
    }
}
