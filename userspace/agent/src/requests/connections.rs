//! Connections of the watched processes: from records of the kernel side to spans.

mod counts;
mod known;
mod spans;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use descry_abi::template::{LEFT_OUT, Lots};
use descry_aggregate::request::Ends;
use descry_assemble::connect;
use descry_assemble::connection::{End, Origin, Role, Settings};
use descry_assemble::infer::{PROTOCOLS, Transport};
use descry_assemble::protocol::{Chunk, Direction, Exchange, Lost, Options};
use descry_assemble::span::Span;
use descry_assemble::template::Templates;
use descry_decode::ids::{BootNanos, ConnectionId, RequestId, TemplateId, Tgid, UnixNanos};
use descry_decode::{Call, Closed, Closer, ConnectFailed, Message, Opened, Plaintext, Transport as Socket};
use descry_export::span::SpanProcess;
use descry_pipeline::Sampling;
use descry_probe::Wanted;
use lru::LruCache;
use rustc_hash::FxHashSet;

use super::live::{Live, Tls};
use counts::Counts;
pub use known::is_late;
use spans::Spans;

/// Connections followed at once; the least recently used one is ended for a new one.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Spans that are kept to make others like them; about 2 KiB each.
const MAX_LIKES: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");
/// Processes that are remembered as gone; with more, all are forgotten.
const MAX_GONE: usize = 8192;
/// How long a connection may be silent while an answer is awaited, unless somebody says so.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What belongs to a span beside itself.
#[derive(Clone)]
pub struct Owned {
    /// The process that it is of.
    pub process: SpanProcess,
    /// The addresses of its connection.
    pub ends: Ends,
    /// See [`Terms`].
    pub traces_per_second: Option<u32>,
}

impl Owned {
    /// Of a span of this connection.
    fn of(live: &Live) -> Self {
        // Who is the client may have turned out by the bytes.
        let &Origin { client, server, .. } = live.connection.origin();
        let traces_per_second = live.terms.traces_per_second;
        Self { process: live.process.clone(), ends: Ends { client, server }, traces_per_second }
    }

    /// Of a span that is of no connection.
    fn without_connection(process: SpanProcess) -> Self {
        Self { process, ends: Ends::default(), traces_per_second: None }
    }
}

/// What is wanted of a connection.
#[derive(Clone)]
pub struct Terms {
    /// Which protocols, and how they are read.
    pub settings: Arc<Settings>,
    /// Traces that its service may begin a second (0: any number), if not as many as others.
    pub traces_per_second: Option<u32>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Connections that were seen.
    pub connections: u64,
    /// Connections in none of the wanted protocols.
    pub unknown: u64,
    /// Connections of processes whose requests are not wanted.
    pub excluded: u64,
    /// Connections in TLS.
    pub encrypted: u64,
    /// Of those, connections whose plaintext was seen.
    pub decrypted: u64,
    /// Connections that were given up because too many were open.
    pub dropped: u64,
    /// Messages of connections whose first sight was lost.
    pub without_connection: u64,
    /// Exchanges that equal a template which is not known any more.
    pub without_template: u64,
    /// Times that bytes of a connection were missing.
    pub gaps: u64,
    /// Connections whose requests were given up because nothing came for too long.
    pub timed_out: u64,
    /// What the parsers could not understand.
    pub lost: Lost,
    /// What was joined.
    pub joined: descry_assemble::join::Counters,
    /// What was decided of traces.
    pub sampling: descry_pipeline::SamplingCounters,
}

/// All of them.
pub struct Connections {
    /// How long a connection may be silent while an answer is awaited.
    timeout: Duration,
    live: LruCache<ConnectionId, Live>,
    /// Processes that are gone: the kernel closes what they held open, and may tell it later than anyone waits for.
    gone: FxHashSet<Tgid>,
    spans: Spans,
    /// What exchanges are told by.
    templates: Templates,
    /// The last spans of exchanges that came again, by the connection's number and answer, with what they were made of.
    likes: LruCache<(u64, TemplateId), (Arc<Exchange>, Span)>,
    /// What the kernel side has counted.
    counts: Counts,
    /// What is wanted of connections, where that has changed.
    wanted: Vec<(ConnectionId, Wanted)>,
    scratch: Vec<Span>,
    now: BootNanos,
    counted: Counted,
    /// Of a connection that is not wanted.
    nothing: Terms,
}

impl Connections {
    /// None yet. `sampling`: what decides which traces are sent; none: nothing does. `lots`: the same as the kernel side
    /// knows it.
    pub fn new(lots: Lots, sampling: Option<Sampling>) -> Self {
        Self {
            timeout: TIMEOUT,
            live: LruCache::new(MAX_CONNECTIONS),
            gone: FxHashSet::default(),
            spans: Spans::new(lots, sampling),
            templates: Templates::default(),
            likes: LruCache::new(MAX_LIKES),
            counts: Counts::default(),
            wanted: Vec::new(),
            scratch: Vec::new(),
            now: BootNanos(0),
            counted: Counted::default(),
            nothing: Terms {
                settings: Arc::new(Settings {
                    options: Options::default(),
                    protocols: Vec::new(),
                    unix_offset: 0,
                }),
                traces_per_second: None,
            },
        }
    }

    /// With another time that a connection may be silent while an answer is awaited.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// A connection's first sight. `terms`: what is wanted of it; none: nothing.
    pub fn opened(
        &mut self,
        opened: &Opened,
        process: SpanProcess,
        terms: Option<Terms>,
        out: &mut Vec<(Owned, Span)>,
    ) {
        self.counted.connections += 1;
        self.gone.remove(&opened.tgid);
        let is_client = opened.role == descry_decode::Role::Connected;
        let (client, server) =
            if is_client { (opened.local, opened.remote) } else { (opened.remote, opened.local) };
        let transport = match opened.transport {
            Socket::Tcp | Socket::Unix | Socket::Other => Transport::Stream,
            Socket::Udp => Transport::Datagram,
        };
        let origin = Origin {
            // Numbers of sockets come again, times do not.
            id: opened.connection.0 ^ opened.time.0.rotate_left(32),
            transport,
            role: if is_client { Role::Client } else { Role::Server },
            role_turns: true,
            client,
            server,
            is_oriented: opened.role != descry_decode::Role::Unknown,
            from_start: opened.from_start,
            is_encrypted: false,
        };
        let is_wanted = terms.is_some();
        if !is_wanted {
            self.counted.excluded += 1;
        }
        // Netlink and the like. It is kept, so that what still comes of it is known to be of no use.
        let is_other = opened.transport == Socket::Other;
        self.counted.unknown += u64::from(is_other);
        let ignored = is_other || !is_wanted;
        if ignored {
            self.wanted.push((opened.connection, Wanted::Nothing));
        }
        let terms = terms.unwrap_or_else(|| self.nothing.clone());
        let mut live = Live::new(opened.connection, origin, opened.tgid, process, terms, opened.time);
        (live.ignored, live.is_wanted) = (ignored, is_wanted);
        if let Some((id, old)) = self.live.push(opened.connection, live) {
            // Another connection under the same number, or the least recently used one of too many.
            self.counted.dropped += u64::from(id != opened.connection);
            self.end(old, opened.time, End::Unknown, out);
        }
    }

    /// Bytes went over a connection.
    pub fn message(&mut self, message: &Message, out: &mut Vec<(Owned, Span)>) {
        self.now = self.now.max(message.time);
        if let Some(plaintext) = message.plaintext {
            self.begin_plaintext(message, plaintext, out);
        }
        let Some(live) = self.live.get_mut(&message.connection) else {
            self.counted.without_connection += 1;
            return;
        };
        live.heard = message.time;
        let is_plaintext = message.plaintext.is_some();
        // Where there is plaintext, nothing is said by what goes over the socket.
        if live.ignored || live.tls == Tls::Plaintext && !is_plaintext {
            return;
        }
        if !is_plaintext && live.connection.protocol().is_none() && is_record(&message.bytes) {
            live.tls = Tls::Records;
            live.ignored = true;
            self.counted.encrypted += 1;
            self.wanted.push((message.connection, Wanted::Nothing));
            return;
        }
        let is_client = live.connection.origin().role == Role::Client;
        let direction = if message.sent == is_client { Direction::ToServer } else { Direction::ToClient };
        let seen = &mut live.seen[usize::from(!message.sent)];
        let gap_before = message.offset.saturating_sub(*seen);
        self.counted.gaps += u64::from(gap_before > 0 && !message.is_behind_untold);
        *seen = message.offset.saturating_add(message.len);
        live.note_request(message.time, message.request);
        let chunk = Chunk {
            direction,
            time: message.time,
            gap_before,
            bytes: &message.bytes,
            cut: message.len.saturating_sub(message.bytes.len() as u64),
        };
        // Where client and server turn out to be the other way round, the role of the origin has turned too.
        let learning = live.learns().then_some(&mut self.templates);
        live.connection.data(chunk, &live.terms.settings, learning, &mut self.scratch);
        live.note_state();
        if live.connection.is_unknown() {
            live.ignored = true;
            self.counted.unknown += 1;
            let wanted = if is_plaintext { Wanted::NothingOfPlaintext } else { Wanted::Nothing };
            self.wanted.push((message.connection, wanted));
        }
        if let Some(wanted) = live.weigh(message.len, self.scratch.len()) {
            self.wanted.push((message.connection, wanted));
        }
        self.spans.join(live, self.now, &mut self.scratch, out);
    }

    /// A connect failed. Where only some protocols are wanted it is of none of them.
    pub fn connect_failed(
        &mut self,
        failed: &ConnectFailed,
        process: SpanProcess,
        terms: &Terms,
        out: &mut Vec<(Owned, Span)>,
    ) {
        self.now = self.now.max(failed.end);
        let Terms { settings, traces_per_second } = terms;
        if settings.protocols.len() == PROTOCOLS.len() {
            let first = out.len();
            let ends = Ends { client: None, server: Some(failed.remote) };
            let owner = Owned { process, ends, traces_per_second: *traces_per_second };
            let span = connect::span(failed, settings.unix_offset);
            self.spans.joiner.client(failed.request, self.now, span, owner, out);
            self.spans.begin_roots(first, out);
        }
    }

    /// A function was called. `around`: when the call around it began.
    pub fn call(
        &mut self,
        call: &Call,
        around: Option<UnixNanos>,
        process: SpanProcess,
        span: Span,
        out: &mut Vec<(Owned, Span)>,
    ) {
        self.now = self.now.max(call.end);
        let owner = Owned::without_connection(process);
        let first = out.len();
        let request = RequestId(call.request.0 & !LEFT_OUT);
        self.spans.joiner.call(request, self.now, around, span, owner, out);
        self.spans.begin_roots(first, out);
    }

    /// A part of a request: a span that is told if that is.
    pub fn part(
        &mut self,
        request: RequestId,
        end: BootNanos,
        process: SpanProcess,
        span: Span,
        out: &mut Vec<(Owned, Span)>,
    ) {
        self.now = self.now.max(end);
        let owner = Owned::without_connection(process);
        let first = out.len();
        self.spans.joiner.part(request, self.now, span, owner, out);
        self.spans.begin_roots(first, out);
    }

    /// The first plaintext of a connection: it is another one from now on.
    fn begin_plaintext(&mut self, message: &Message, plaintext: Plaintext, out: &mut Vec<(Owned, Span)>) {
        let is_new = |live: &&mut Live| live.is_wanted && live.tls != Tls::Plaintext;
        let Some(live) = self.live.get_mut(&message.connection).filter(is_new) else { return };
        self.counted.decrypted += 1;
        self.counted.encrypted += u64::from(live.tls == Tls::None);
        // What was said of its ciphertext is void.
        self.counted.unknown -= u64::from(live.ignored && live.tls == Tls::None);
        let origin = *live.connection.origin();
        let origin = Origin {
            id: origin.id.reverse_bits(),
            from_start: plaintext.from_start,
            is_encrypted: true,
            ..origin
        };
        let (process, terms) = (live.process.clone(), live.terms.clone());
        let mut new = Live::new(live.id, origin, live.tgid, process, terms, message.time);
        new.tls = Tls::Plaintext;
        let old = std::mem::replace(live, new);
        self.end(old, message.time, End::Unknown, out);
    }

    /// A connection is gone.
    pub fn closed(&mut self, closed: &Closed, out: &mut Vec<(Owned, Span)>) {
        self.now = self.now.max(closed.time);
        if let Some(live) = self.live.pop(&closed.connection) {
            let end = live.closed_by(closed.by);
            if let Some(live) = self.end(live, closed.time, end, out) {
                self.counts.closed(closed.connection, live);
            }
        }
    }

    /// A process is gone.
    pub fn exited(&mut self, tgid: Tgid) {
        if self.gone.len() >= MAX_GONE {
            self.gone.clear();
        }
        self.gone.insert(tgid);
    }

    /// It is this late: gives the requests of connections that are silent for too long while an answer is awaited.
    pub fn expire(&mut self, now: BootNanos, out: &mut Vec<(Owned, Span)>) {
        self.now = self.now.max(now);
        // The one that was silent longest comes first.
        while let Some((id, live)) = self.live.peek_lru() {
            let (id, silence) = (*id, self.now.0.saturating_sub(live.heard.0));
            if u128::from(silence) < self.timeout.as_nanos() {
                return;
            }
            let Some(live) = self.live.get_mut(&id) else { return };
            live.heard = self.now;
            if !live.connection.is_waiting() {
                continue;
            }
            self.counted.timed_out += 1;
            live.connection.end(self.now, End::TimedOut, &live.terms.settings, &mut self.scratch);
            self.spans.join(live, self.now, &mut self.scratch, out);
        }
    }

    /// Nothing comes any more: gives what is still open.
    pub fn finish(&mut self, out: &mut Vec<(Owned, Span)>) {
        while let Some((_, live)) = self.live.pop_lru() {
            let by = if self.gone.contains(&live.tgid) { Closer::Local } else { Closer::Unknown };
            let end = live.closed_by(by);
            self.end(live, self.now, end, out);
        }
        self.spans.finish(out);
    }

    /// What is wanted of connections, where that has changed since the last call.
    pub fn take_wanted(&mut self) -> Vec<(ConnectionId, Wanted)> {
        std::mem::take(&mut self.wanted)
    }

    /// What was counted.
    pub fn counters(&self) -> Counted {
        Counted {
            joined: self.spans.joiner.counters(),
            sampling: self.spans.sampling.as_ref().map(Sampling::counters).unwrap_or_default(),
            ..self.counted
        }
    }

    /// Nothing comes of a connection any more; gives it back if the kernel side may have counted some of its exchanges.
    fn end(
        &mut self,
        mut live: Live,
        time: BootNanos,
        end: End,
        out: &mut Vec<(Owned, Span)>,
    ) -> Option<Live> {
        live.connection.end(time, end, &live.terms.settings, &mut self.scratch);
        self.counted.lost = self.counted.lost + live.connection.lost();
        self.spans.join(&mut live, self.now, &mut self.scratch, out);
        (self.are_counted() && live.may_count()).then_some(live)
    }
}

/// Whether bytes begin as a record of TLS does (RFC 8446, 5.1): type 20 to 23, version 3.0 to 3.4.
fn is_record(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, 3, 0..=4, ..])
}
