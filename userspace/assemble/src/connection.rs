//! A connection: from its chunks to its protocol, to exchanges, to spans.
//!
//! Give it chunks in the order of their times; get spans. Ids of spans are made from the connection's id and the
//! span's number, so the same connection always gives the same spans.

mod held;
mod watch;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use descry_decode::ids::{BootNanos, UnixNanos};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::infer::{Inference, Protocol, Transport};
use crate::protocol::{Chunk, Direction, Exchange, LOST, Lost, Options, Parser, TraceContext, UNANSWERED};
use crate::span::{Span, SpanId, SpanKind, Status, TraceId, Value};
use crate::template::Templates;

use held::Held;
use watch::Watch;

/// Trace flags of a trace that begins here: sampled, and its id is random (W3C Trace Context, level 2, section 3.2.2.5).
pub(crate) const NEW_TRACE: u8 = 3;

/// Attributes that a connection adds to a span at most.
const CONNECTION_ATTRIBUTES: usize = 8;

/// What is known of a connection before its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// A number that no other connection has.
    pub id: u64,
    /// What carries the bytes.
    pub transport: Transport,
    /// Whose spans are made.
    pub role: Role,
    /// Whether they are the other's once it turns out that client and server are the other way round: of a connection
    /// that is watched at one end.
    pub role_turns: bool,
    /// The client's address; none of a socket of the Unix domain.
    pub client: Option<SocketAddr>,
    /// The server's address.
    pub server: Option<SocketAddr>,
    /// Whether it is certain who is the client. Else the bytes decide, where they say it.
    pub is_oriented: bool,
    /// Whether the first chunks are the connection's first bytes.
    pub from_start: bool,
    /// Whether the bytes are the plaintext of TLS.
    pub is_encrypted: bool,
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who was called.
    Server,
    /// Who called.
    Client,
}

impl Role {
    /// The other.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }
}

/// Why nothing comes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Who closes the connection first says the direction.
    Closed(Direction),
    /// It is still there, but nothing came for too long.
    TimedOut,
    /// Nobody looks any more.
    Unknown,
}

/// What all connections have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What users decide about parsing.
    pub options: Options,
    /// The protocols that are wanted.
    pub protocols: Vec<&'static Protocol>,
    /// What makes Unix time of the chunks' time (ns).
    pub unix_offset: i64,
}

impl Settings {
    fn unix(&self, time: BootNanos) -> UnixNanos {
        UnixNanos(time.0.saturating_add_signed(self.unix_offset))
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    origin: Origin,
    state: State,
    /// Spans so far.
    spans: u64,
    /// Addresses and ports of client and server, as each span has them; none: there was no span yet.
    ends: Option<[Option<EndText>; 2]>,
    watch: Watch,
}

/// An address without its port, and that.
type EndText = (Arc<str>, u16);

#[derive(Debug)]
enum State {
    Opening(Held),
    Known(&'static Protocol, Box<dyn Parser>),
    Unknown,
}

/// One number of both, which is the rest where nothing has a meaning beside it.
fn circumstances(rest: u64, meaning: u64) -> u64 {
    rest ^ meaning.rotate_left(32)
}

impl Direction {
    /// The other.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

impl Connection {
    /// A connection of which no byte was seen.
    pub fn new(origin: Origin) -> Self {
        Self { origin, state: State::Opening(Held::default()), spans: 0, ends: None, watch: Watch::default() }
    }

    /// What is known of it; who is client and who is server may have turned out since it was made.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The protocol, once it is known.
    pub fn protocol(&self) -> Option<&'static Protocol> {
        match self.state {
            State::Known(protocol, _) => Some(protocol),
            State::Opening(_) | State::Unknown => None,
        }
    }

    /// Whether it speaks none of the wanted protocols: its bytes are not needed.
    pub fn is_unknown(&self) -> bool {
        matches!(self.state, State::Unknown)
    }

    /// Whether a request is without its whole answer.
    pub fn is_waiting(&self) -> bool {
        match &self.state {
            State::Known(_, parser) => parser.is_waiting(),
            State::Opening(_) | State::Unknown => false,
        }
    }

    /// What its parser could not understand or had to forget.
    pub fn lost(&self) -> Lost {
        match &self.state {
            State::Known(_, parser) => parser.lost(),
            State::Opening(_) | State::Unknown => Lost::default(),
        }
    }

    /// What the next exchange depends on beside its bytes and the names in it; none: something is under way, or nobody can
    /// say it.
    pub fn rest(&self) -> Option<u64> {
        match &self.state {
            State::Known(_, parser) => parser.rest(),
            State::Opening(_) | State::Unknown => None,
        }
    }

    /// What the exchange of this request depends on beside its bytes, where the rest is this.
    pub fn circumstances(&mut self, rest: u64, request: &[u8]) -> u64 {
        match &mut self.state {
            State::Known(_, parser) => circumstances(rest, parser.meaning(request)),
            State::Opening(_) | State::Unknown => rest,
        }
    }

    /// The span of an exchange that is known, in place of its bytes.
    pub fn known(
        &mut self,
        exchange: &Exchange,
        (start, end): (BootNanos, BootNanos),
        settings: &Settings,
    ) -> Span {
        let exchange = Exchange { start, end, ..exchange.clone() };
        let span = self.span(exchange, settings);
        Span { attributes: span.attributes.share(), ..span }
    }

    /// A span like one that [`Connection::known`] made of the same exchange on this connection, at another time.
    pub fn again(&mut self, like: &Span, (start, end): (BootNanos, BootNanos), settings: &Settings) -> Span {
        let (trace, span) = ids(self.origin.id, self.spans);
        self.spans += 1;
        let (start, end) = (settings.unix(start), settings.unix(end.max(start)));
        Span { trace, span, start, end, ..like.clone() }
    }

    /// A request and its answer went by whose span was made of what is known of them.
    pub fn passed(&mut self, end: BootNanos) {
        if let State::Known(_, parser) = &mut self.state {
            parser.passed(end);
        }
    }

    /// Takes the next bytes. Says whether its directions turned out to be the other way round: the chunks that follow
    /// have to be given so. `learning`: exchanges that come again and again become templates there.
    pub fn data(
        &mut self,
        chunk: Chunk<'_>,
        settings: &Settings,
        learning: Option<&mut Templates>,
        spans: &mut Vec<Span>,
    ) -> bool {
        let mut exchanges = Vec::new();
        let mut turned = false;
        match &mut self.state {
            State::Unknown => return false,
            State::Known(protocol, parser) => match (protocol.shapes, learning) {
                (Some(shapes), Some(templates)) => {
                    let before = parser.rest().map(|rest| circumstances(rest, parser.meaning(chunk.bytes)));
                    parser.data(chunk, &mut exchanges);
                    self.watch.chunk(chunk, before, &mut **parser, &exchanges, (shapes, templates));
                }
                _ => {
                    self.watch.pause();
                    parser.data(chunk, &mut exchanges);
                }
            },
            State::Opening(held) => {
                let (known, is_turned) = held.look(&self.origin, chunk, settings);
                turned = is_turned;
                if turned {
                    std::mem::swap(&mut self.origin.client, &mut self.origin.server);
                    self.ends = None;
                    if self.origin.role_turns {
                        self.origin.role = self.origin.role.other();
                    }
                }
                match known {
                    Inference::NotYet => return false,
                    Inference::Unknown => {
                        self.state = State::Unknown;
                        return false;
                    }
                    Inference::Known(protocol) => {
                        let mut parser = (protocol.parser)(self.origin.transport, &settings.options);
                        for held in std::mem::take(&mut held.chunks) {
                            parser.data(held.chunk(), &mut exchanges);
                        }
                        self.state = State::Known(protocol, parser);
                    }
                }
            }
        }
        for mut exchange in exchanges {
            explain(&mut exchange, LOST);
            spans.push(self.span(exchange, settings));
        }
        turned
    }

    /// Nothing comes any more, or nothing came for too long: gives the requests that are open.
    pub fn end(&mut self, time: BootNanos, end: End, settings: &Settings, spans: &mut Vec<Span>) {
        let State::Known(_, parser) = &mut self.state else { return };
        let mut exchanges = Vec::new();
        parser.end(time, &mut exchanges);
        for mut exchange in exchanges {
            let why = match end {
                End::Closed(Direction::ToServer) => "closed_by_client",
                End::Closed(Direction::ToClient) => "closed_by_server",
                End::TimedOut => "timeout",
                End::Unknown => "unknown",
            };
            if explain(&mut exchange, why) {
                fail(&mut exchange, end);
            }
            spans.push(self.span(exchange, settings));
        }
    }

    fn span(&mut self, exchange: Exchange, settings: &Settings) -> Span {
        let Origin { id, role, client, server, is_encrypted, .. } = self.origin;
        let (trace, span) = ids(id, self.spans);
        self.spans += 1;
        let context = exchange.context.map_or_else(
            || TraceContext { trace, parent: SpanId::default(), flags: NEW_TRACE, state: "".into() },
            |context| *context,
        );
        let parent = (context.parent != SpanId::default()).then_some(context.parent);
        let (kind, status) = match role {
            Role::Server => (exchange.kind, exchange.server_status),
            Role::Client => (client_kind(exchange.kind), exchange.client_status),
        };
        let mut attributes = exchange.attributes;
        attributes.reserve(CONNECTION_ATTRIBUTES);
        // What is an error for one side need not be one for the other.
        let failed = matches!(status, Status::Error(_));
        if !failed {
            attributes.retain(|(name, _)| name != "error.type");
        }
        if kind == SpanKind::Client
            && let Some((name, _)) = attributes.iter_mut().find(|(name, _)| name == "http.route")
        {
            *name = Cow::Borrowed("url.template");
        }
        let is_http = attributes.iter().any(|(name, _)| name == "http.request.method");
        let said = attributes.len();
        let mut add = |name: &'static str, value: Value| {
            if attributes.iter().take(said).all(|(other, _)| other != name) {
                attributes.push((Cow::Borrowed(name), value));
            }
        };
        if is_encrypted {
            if is_http {
                add("url.scheme", Value::Static("https"));
            }
            add("tls.protocol.name", Value::Static("tls"));
        }
        let [client, server] = self.ends.get_or_insert_with(|| {
            [client, server].map(|end| end.map(|end| (end.ip().to_string().into(), end.port())))
        });
        let mut address = |[host, port]: [&'static str; 2], end: &Option<EndText>| {
            if let Some((address, number)) = end {
                add(host, Value::Shared(Arc::clone(address)));
                add(port, Value::Int((*number).into()));
            }
        };
        address(["server.address", "server.port"], server);
        let peer = match role {
            Role::Server => {
                address(["client.address", "client.port"], client);
                client
            }
            Role::Client => server,
        };
        address(["network.peer.address", "network.peer.port"], peer);
        Span {
            trace: context.trace,
            span,
            parent,
            trace_state: context.state,
            flags: context.flags,
            parent_is_remote: parent.map(|_| true),
            kind,
            name: exchange.name,
            start: settings.unix(exchange.start),
            end: settings.unix(exchange.end.max(exchange.start)),
            status,
            attributes: attributes.into(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }
}

/// Says why an exchange has no answer, if it has none and does not say it itself. Says whether it did.
fn explain(exchange: &mut Exchange, why: &'static str) -> bool {
    let is_explained = exchange.attributes.iter().any(|(name, _)| name == UNANSWERED || name == "error.type");
    let explains = !exchange.answered && !is_explained;
    if explains {
        exchange.attributes.push((Cow::Borrowed(UNANSWERED), Value::Static(why)));
    }
    explains
}

/// What becomes of an exchange whose answer did not come.
fn fail(exchange: &mut Exchange, end: End) {
    let (reason, is_servers) = match end {
        // A client that goes away is no failure of the server.
        End::Closed(by) => ("connection_closed", by == Direction::ToClient),
        End::TimedOut => ("timeout", true),
        End::Unknown => return,
    };
    exchange.attributes.push(("error.type".into(), Value::Static(reason)));
    exchange.client_status = Status::Error("".into());
    if is_servers {
        exchange.server_status = Status::Error("".into());
    }
}

/// What the other side of a span is.
const fn client_kind(kind: SpanKind) -> SpanKind {
    match kind {
        SpanKind::Server => SpanKind::Client,
        SpanKind::Consumer => SpanKind::Producer,
        other => other,
    }
}

/// Ids of a connection's span: hashes of both numbers. Ids are to look random and to differ, and need not be hard to
/// guess, so a hash that costs next to nothing is enough.
pub(crate) fn ids(connection: u64, number: u64) -> (TraceId, SpanId) {
    let number = number.to_le_bytes();
    let trace = XxHash3_128::oneshot_with_seed(connection, &number).to_be_bytes();
    let span = XxHash3_64::oneshot_with_seed(connection, &number).to_be_bytes();
    (TraceId(id(trace)), SpanId(id(span)))
}

/// An id that is not all zeros.
fn id<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes == [0; N]
        && let Some(last) = bytes.last_mut()
    {
        *last = 1;
    }
    bytes
}

#[cfg(test)]
mod tests;
