//! PostgreSQL's protocol 3 ("Frontend/Backend Protocol", chapter 55 of PostgreSQL's manual).
//!
//! One exchange for each simple query, each `Execute` and each function call; for a `Parse` alone and
//! for the start of the connection (`CONNECT`) only if it failed.
//! Statements that the server skips after an error are exchanges with `error.type` `pipeline_aborted`. What a
//! prepared statement says is known if its `Parse` was seen. `db.namespace` is the database of the start-up message.

mod message;
mod session;
mod shape;

use descry_decode::ids::BootNanos;

use super::frame::{Frame, Framed, Session as _};
use super::{Chunk, Direction, Exchange, Lost, Parser};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use session::State;

/// PostgreSQL.
pub static PROTOCOL: Protocol = Protocol {
    name: "postgresql",
    transports: &[Transport::Stream],
    recognize,
    carries_many: false,
    shapes: Some(&shape::SHAPES),
    parser: |_, _| Box::new(Postgres::default()),
};

/// A start-up message; of a connection that is older, a `Query`, a `Sync`, or `ReadyForQuery` behind other messages.
fn recognize(_: Transport, opening: Opening<'_>) -> Verdict {
    let Opening { to_server, to_client, from_start } = opening;
    if from_start {
        let is_startup = to_server.first().is_none_or(|first| *first == 0);
        return match message::frame(Direction::ToServer, to_server, false) {
            Frame::Partial if is_startup => Verdict::NotYet,
            Frame::Message { .. } if is_startup => Verdict::Yes,
            _ => Verdict::No,
        };
    }
    let chains = |direction, bytes: &[u8]| bytes.is_empty() || message::is_chain(direction, bytes);
    if !chains(Direction::ToServer, to_server) || !chains(Direction::ToClient, to_client) {
        return Verdict::No;
    }
    let asks = matches!(to_server, [b'Q', 0, _, _, _, .., 0]) || to_server.ends_with(&[b'S', 0, 0, 0, 4]);
    if asks || message::ends_ready(to_client) { Verdict::Yes } else { Verdict::NotYet }
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Postgres(Framed<State>);

impl Parser for Postgres {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        self.0.data(chunk, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.0.end(time, exchanges);
    }

    fn is_waiting(&self) -> bool {
        self.0.session.is_waiting()
    }

    fn rest(&self) -> Option<u64> {
        self.0.session.rest().filter(|_| self.0.is_between())
    }

    fn meaning(&mut self, request: &[u8]) -> u64 {
        self.0.session.meaning(request)
    }

    fn passed(&mut self, end: BootNanos) {
        self.0.session.passed(end);
    }

    fn lost(&self) -> Lost {
        self.0.session.lost
    }
}
