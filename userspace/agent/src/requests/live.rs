//! One connection of a watched process, with what the kernel side said of it.

use std::collections::VecDeque;

use descry_assemble::connection::{Connection, End, Origin, Role};
use descry_assemble::protocol::Direction;
use descry_assemble::span::Span;
use descry_assemble::template::Family;
use descry_decode::Closer;
use descry_decode::ids::{BootNanos, ConnectionId, RequestId, Tgid, UnixNanos};
use descry_export::span::SpanProcess;
use descry_probe::{Captured, Wanted};

use super::connections::Terms;

/// Beginnings of requests on one connection that are remembered; more are open at once on none that is in order.
const MAX_BEGINNINGS: usize = 1024;
/// Bytes of a request with its answer that are many, and bytes of a connection after which that is judged.
const LONG: u64 = 32 << 10;
const BULK: u64 = 1 << 20;

/// Exchanges of a connection before any of them is told in short: most connections never have so many, and to tell the kernel
/// side costs as much as a few.
const EXCHANGES_BEFORE_TEMPLATES: u64 = 8;
/// The first exchanges of a connection that are looked at for what comes again, and of the later ones one in how many.
const EXCHANGES_LEARNT: u64 = 64;
const EXCHANGES_UNLEARNT: u64 = 16;

/// A connection, with what the kernel side said of it.
pub struct Live {
    pub id: ConnectionId,
    pub connection: Connection,
    pub tgid: Tgid,
    pub process: SpanProcess,
    /// What is wanted of it.
    pub terms: Terms,
    /// Bytes of each direction up to here, as the kernel side counts them: sent, received.
    pub seen: [u64; 2],
    /// When requests began, and which they are.
    beginnings: VecDeque<(BootNanos, RequestId)>,
    /// When bytes last went over it, or its silence was last noted.
    pub heard: BootNanos,
    /// When the last of its spans ended.
    last_end: UnixNanos,
    pub ignored: bool,
    /// Whether anything of it is.
    pub is_wanted: bool,
    /// What was last said to be wanted of its messages.
    wanted: Wanted,
    /// Bytes that went over it, and requests that were done on it.
    moved: u64,
    done: u64,
    /// When a request began that was taken before its answer came.
    pub told: Option<BootNanos>,
    /// What exchanges depended on beside their bytes, as it was first; and whether that has ever changed.
    pub state: Option<u64>,
    state_changed: bool,
    pub tls: Tls,
}

/// What is known of TLS on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Nothing.
    None,
    /// Records of TLS were seen, which say nothing.
    Records,
    /// Its messages are plaintext.
    Plaintext,
}

impl Live {
    /// One that was first heard of at this time, of which something is wanted.
    pub fn new(
        id: ConnectionId,
        origin: Origin,
        tgid: Tgid,
        process: SpanProcess,
        terms: Terms,
        time: BootNanos,
    ) -> Self {
        Self {
            id,
            connection: Connection::new(origin),
            tgid,
            process,
            terms,
            seen: [0; 2],
            beginnings: VecDeque::new(),
            heard: time,
            last_end: UnixNanos(0),
            ignored: false,
            is_wanted: true,
            wanted: Wanted::Messages { bytes: Captured::Head, family: None, counts: false },
            moved: 0,
            done: 0,
            told: None,
            state: None,
            state_changed: false,
            tls: Tls::None,
        }
    }

    /// Notes the request that a message of this time belongs to.
    pub fn note_request(&mut self, time: BootNanos, request: RequestId) {
        if request != self.beginnings.back().map_or(RequestId(0), |(_, request)| *request) {
            if self.beginnings.len() >= MAX_BEGINNINGS {
                self.beginnings.pop_front();
            }
            self.beginnings.push_back((time, request));
        }
    }

    /// How a connection ends that this side closed.
    pub fn closed_by(&self, by: Closer) -> End {
        let is_client = self.connection.origin().role == Role::Client;
        match by {
            Closer::Unknown => End::Unknown,
            Closer::Local if is_client => End::Closed(Direction::ToServer),
            Closer::Remote if !is_client => End::Closed(Direction::ToServer),
            Closer::Local | Closer::Remote => End::Closed(Direction::ToClient),
        }
    }

    /// Counts a message, and says what is wanted of the next ones if that has changed: most, where they carry many requests
    /// or answers, but not where those are so long that each message is of one at most.
    pub fn weigh(&mut self, len: u64, done: usize) -> Option<Wanted> {
        self.moved = self.moved.saturating_add(len);
        self.done = self.done.saturating_add(done as u64);
        let is_bulk = self.moved > BULK && self.moved / (self.done + 1) > LONG;
        let carries_many = self.connection.protocol().is_some_and(|protocol| protocol.carries_many);
        let bytes = if carries_many && !is_bulk { Captured::Most } else { Captured::Head };
        let wanted = Wanted::Messages { bytes, family: self.family(), counts: self.may_count() };
        (wanted != std::mem::replace(&mut self.wanted, wanted)).then_some(wanted)
    }

    /// What its messages are told by in short: of a connection that has been in use for a while, and of which it is certain who
    /// is the client.
    fn family(&self) -> Option<Family> {
        let shapes = self.connection.protocol()?.shapes?;
        let is_plain = self.tls == Tls::None && self.connection.origin().is_oriented;
        (is_plain && self.done >= EXCHANGES_BEFORE_TEMPLATES).then_some(shapes.family)
    }

    /// Notes what the next exchange depends on beside its bytes.
    pub fn note_state(&mut self) {
        if let Some(state) = self.connection.rest() {
            self.state_changed |= *self.state.get_or_insert(state) != state;
        }
    }

    /// Whether exchanges may be counted by their bytes alone.
    pub fn may_count(&self) -> bool {
        self.family().is_some() && !self.state_changed
    }

    /// Whether what goes over it next is looked at for what comes again and again.
    pub fn learns(&self) -> bool {
        self.family().is_some()
            && (self.done < EXCHANGES_LEARNT || self.done.is_multiple_of(EXCHANGES_UNLEARNT))
    }

    /// Tells `of` of each of the spans that are done whether another request of the connection was open meanwhile. The
    /// kernel side numbers what a connection receives, so whose their children are could not be told.
    pub fn are_shared(&mut self, done: &[Span], of: &mut Vec<bool>) {
        let (is_waiting, last_end) = (self.connection.is_waiting(), self.last_end);
        let meets = |a: &Span, b: &Span| a.span != b.span && a.start < b.end && b.start < a.end;
        let is_shared =
            |span: &Span| is_waiting || span.start < last_end || done.iter().any(|other| meets(span, other));
        of.extend(done.iter().map(is_shared));
        self.last_end = done.iter().map(|span| span.end).fold(last_end, Ord::max);
    }

    /// The request that a message of this time belonged to.
    pub fn request_at(&self, time: BootNanos) -> RequestId {
        let begun = self.beginnings.iter().rev().find(|(began, _)| *began <= time);
        begun.map_or(RequestId(0), |(_, request)| *request)
    }
}
