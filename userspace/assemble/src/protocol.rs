//! Protocols: bytes of a connection in, exchanges (a request with its answer) out.
//!
//! A protocol is one file below this module with its tests, and one line in [`PROTOCOLS`](crate::infer::PROTOCOLS).

pub mod dns;
pub mod http1;
pub mod http2;
pub mod mysql;
pub mod postgres;
pub mod redis;

mod database;
mod frame;
mod grpc;
mod http;
mod turns;

use std::borrow::Cow;
use std::ops::Add;
use std::sync::Arc;

use descry_decode::ids::BootNanos;

use crate::route::Routes;
use crate::span::{Attribute, SpanKind, Status};

/// Attribute of a request without its whole answer: why.
pub const UNANSWERED: &str = "descry.unanswered";
/// Value of [`UNANSWERED`]: the answer may have gone by in a gap.
pub const LOST: &str = "lost";
/// Value of [`UNANSWERED`]: one side gave it up while the connection went on.
pub const RESET: &str = "reset";
/// Attributes that an exchange has room for at its beginning, those of its connection among them.
const ATTRIBUTES: usize = 18;

/// Which way bytes went. A parser knows no sockets: who opened the connection is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// Bytes of one direction, in their order. For datagrams: one datagram.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which way.
    pub direction: Direction,
    /// When they were written (by the client's side: sent; by the server's: received).
    pub time: BootNanos,
    /// Bytes before these that were lost: the parser has never seen them. [`u64::MAX`]: an unknown number, at the
    /// beginning of a connection that is older than the capture too.
    pub gap_before: u64,
    /// What was captured.
    pub bytes: &'a [u8],
    /// Bytes that were sent right behind `bytes` but not captured (the head of a message is kept, its length is true).
    pub cut: u64,
}

/// A request with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// When the request's first byte went.
    pub start: BootNanos,
    /// When the answer's last byte went; of one without an answer, when that was known.
    pub end: BootNanos,
    /// Name of the span, of low cardinality.
    pub name: Cow<'static, str>,
    /// What the span of the server's side is; a client's span of the same is [`SpanKind::Client`], and so on.
    pub kind: SpanKind,
    /// How it ended, for a span of the client's side.
    pub client_status: Status,
    /// How it ended, for a span of the server's side (a 404 is the client's failure, not the server's).
    pub server_status: Status,
    /// Attributes by the semantic conventions, without those of the connection (addresses and ports).
    pub attributes: Vec<Attribute>,
    /// Trace context that the request carried.
    pub context: Option<Box<TraceContext>>,
    /// Whether the whole answer came. Of one without, the connection says why, where neither `error.type` nor
    /// [`UNANSWERED`] says it.
    pub answered: bool,
}

/// Trace context of a request, as it stood in it: W3C `traceparent` or B3, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: crate::span::TraceId,
    /// The caller's span.
    pub parent: crate::span::SpanId,
    /// W3C trace flags.
    pub flags: u8,
    /// W3C `tracestate`, bounded.
    pub state: Box<str>,
}

/// What users decide about parsing.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Routes that paths of HTTP requests are named by.
    pub routes: Arc<Routes>,
}

/// A parser of one connection. It keeps a bounded amount of state whatever comes.
pub trait Parser: std::fmt::Debug {
    /// Takes the next bytes, and gives the exchanges that they complete.
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>);
    /// The connection was closed (or nothing came for too long): gives what is still open.
    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>);
    /// Whether a request is without its whole answer.
    fn is_waiting(&self) -> bool {
        false
    }
    /// What the next exchange depends on beside its bytes and the [meaning](Parser::meaning) of what they name; none:
    /// something is under way, or nobody can say it.
    fn rest(&self) -> Option<u64> {
        None
    }
    /// What the names in a request stand for, where its exchange depends on that too.
    fn meaning(&mut self, _request: &[u8]) -> u64 {
        0
    }
    /// A request and its answer went by that leave the parser as it is; none of their bytes are given.
    fn passed(&mut self, _end: BootNanos) {}
    /// What this parser could not understand or had to forget, by name.
    fn lost(&self) -> Lost;
}

/// What a parser could not understand or had to forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Times that it lost its place in a direction and had to look for the next message.
    pub resynchronized: u64,
    /// Messages that make no sense.
    pub malformed: u64,
    /// Open requests that were given up because there were too many.
    pub requests_dropped: u64,
    /// Answers without a request that was seen.
    pub unmatched: u64,
    /// Connections that went over to TLS or compression, or to another protocol (replication): nothing of them is
    /// understood from there on.
    pub unreadable: u64,
}

impl Add for Lost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resynchronized: self.resynchronized + other.resynchronized,
            malformed: self.malformed + other.malformed,
            requests_dropped: self.requests_dropped + other.requests_dropped,
            unmatched: self.unmatched + other.unmatched,
            unreadable: self.unreadable + other.unreadable,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::infer::{Protocol, Transport};
    use crate::span::Value;

    /// Bytes from the client.
    pub(crate) fn to_server(time: u64, text: &str) -> Chunk<'_> {
        let direction = Direction::ToServer;
        Chunk { direction, time: BootNanos(time), gap_before: 0, bytes: text.as_bytes(), cut: 0 }
    }

    /// Bytes from the server.
    pub(crate) fn to_client(time: u64, text: &str) -> Chunk<'_> {
        Chunk { direction: Direction::ToClient, ..to_server(time, text) }
    }

    /// The same behind a gap.
    pub(crate) fn gap(bytes: u64, chunk: Chunk<'_>) -> Chunk<'_> {
        Chunk { gap_before: bytes, ..chunk }
    }

    /// The same bytes, each in a chunk of its own.
    pub(crate) fn byte_by_byte<'a>(chunks: &[Chunk<'a>]) -> Vec<Chunk<'a>> {
        let bytes = |chunk: &Chunk<'a>| {
            let chunk = *chunk;
            chunk.bytes.chunks(1).map(move |bytes| Chunk { bytes, ..chunk })
        };
        chunks.iter().flat_map(bytes).collect()
    }

    /// The exchanges of a connection of these chunks, which ends at a time if there is one, each as a line.
    pub(crate) fn play(protocol: &Protocol, chunks: &[Chunk<'_>], end: Option<u64>) -> (Vec<String>, Lost) {
        let mut parser = (protocol.parser)(Transport::Stream, &Options::default());
        let mut exchanges = Vec::new();
        for chunk in chunks {
            parser.data(*chunk, &mut exchanges);
        }
        if let Some(end) = end {
            parser.end(BootNanos(end), &mut exchanges);
        }
        (exchanges.iter().map(line).collect(), parser.lost())
    }

    /// An exchange as one line: `START..END NAME ATTRIBUTE=VALUE... [unanswered] [client:error] [server:error]`.
    pub(crate) fn line(exchange: &Exchange) -> String {
        let mut line = format!("{}..{} {}", exchange.start, exchange.end, exchange.name);
        for (name, value) in &exchange.attributes {
            line += &match value {
                Value::Static(text) => format!(" {name}={text}"),
                Value::Text(text) => format!(" {name}={text}"),
                Value::Shared(text) => format!(" {name}={text}"),
                Value::Int(number) => format!(" {name}={number}"),
                other => format!(" {name}={other:?}"),
            };
        }
        if !exchange.answered {
            line += " unanswered";
        }
        for (side, status) in [("client", &exchange.client_status), ("server", &exchange.server_status)] {
            if let Status::Error(_) = status {
                line += &format!(" {side}:error");
            }
        }
        line
    }
}
