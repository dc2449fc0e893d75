//! PostgreSQL's protocol 3 ("Frontend/Backend Protocol", chapter 55 of PostgreSQL's manual).
//!
//! One exchange for each simple query, each `Execute` and each function call; for a `Parse` alone and
//! for the start of the connection (`CONNECT`) only if it failed.
//! Statements that the server skips after an error are exchanges with `error.type` `pipeline_aborted`. What a
//! prepared statement says is known if its `Parse` was seen. `db.namespace` is the database of the start-up message.

mod message;
mod session;

use descry_decode::ids::BootNanos;

use super::frame::Framed;
use super::{Chunk, Exchange, Lost, Parser};
use session::State;

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

    fn lost(&self) -> Lost {
        self.0.session.lost
    }
}
