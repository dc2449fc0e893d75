//! Redis ("Redis serialization protocol specification": RESP2 and RESP3, and inline commands).
//!
//! One exchange a command, also for each of a pipeline and between MULTI and EXEC (whose answers are `QUEUED` and
//! come at once). Names of commands are told, and the names or digests of scripts; keys and values never are. What
//! a subscriber or a monitor is sent is no answer. `db.namespace` is the database that `SELECT` chose, if all of the
//! connection was seen.

mod reader;
mod session;
mod shape;

use descry_decode::ids::BootNanos;

use super::{Chunk, Direction, Exchange, Lost, Parser};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use reader::Reader;
use session::State;

/// Redis, and what speaks its protocol.
pub static PROTOCOL: Protocol = Protocol {
    name: "redis",
    transports: &[Transport::Stream],
    recognize,
    carries_many: true,
    shapes: Some(&shape::SHAPES),
    parser: |_, _| Box::new(Redis::default()),
};

/// A command as clients send it: `*COUNT`, `$LENGTH`. Inline commands look like anything.
fn recognize(_: Transport, opening: Opening<'_>) -> Verdict {
    match number(b'*', opening.to_server) {
        Err(verdict) => verdict,
        Ok(rest) => number(b'$', rest).map_or_else(|verdict| verdict, |_| Verdict::Yes),
    }
}

/// What is behind a line of a character and a number.
fn number(kind: u8, bytes: &[u8]) -> Result<&[u8], Verdict> {
    let Some((first, rest)) = bytes.split_first() else { return Err(Verdict::NotYet) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if *first != kind || digits > 10 {
        return Err(Verdict::No);
    }
    match rest.get(digits..).unwrap_or_default() {
        [b'\r', b'\n', rest @ ..] if digits > 0 => Ok(rest),
        [] | [b'\r'] => Err(Verdict::NotYet),
        _ => Err(Verdict::No),
    }
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Redis {
    client: Reader,
    server: Reader,
    session: State,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            client: Reader::new(Direction::ToServer),
            server: Reader::new(Direction::ToClient),
            session: State::default(),
        }
    }
}

impl Parser for Redis {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        let Self { client, server, session } = self;
        if session.is_over() {
            return;
        }
        let first = session.turns.is_silent();
        if let Some(settled) = session.turns.chunk(&chunk, session.is_waiting()) {
            session.settle(settled.end, settled.answered, exchanges);
        }
        if first && chunk.gap_before == 0 {
            session.is_whole();
        }
        let reader = match chunk.direction {
            Direction::ToServer => client,
            Direction::ToClient => server,
        };
        if chunk.gap_before > 0 {
            reader.gap(chunk.gap_before, chunk.time, |value| session.value(value, exchanges));
        }
        if reader.is_astray() && reader.begins(chunk.bytes, session.turns.is_fresh()) {
            session.lost.resynchronized += u64::from(reader.was_in_place());
            reader.found();
        }
        if !reader.is_astray()
            && !reader.bytes(chunk.bytes, chunk.time, |value| session.value(value, exchanges))
        {
            session.lost.malformed += 1;
        }
        if chunk.cut > 0 {
            reader.gap(chunk.cut, chunk.time, |value| session.value(value, exchanges));
        }
        if reader.is_astray() {
            session.turns.doubt();
        }
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        let settled = self.session.turns.end(time);
        self.session.settle(settled.end, settled.answered, exchanges);
    }

    fn is_waiting(&self) -> bool {
        self.session.is_waiting()
    }

    fn rest(&self) -> Option<u64> {
        let is_between = self.client.is_between() && self.server.is_between();
        self.session.rest().filter(|_| is_between)
    }

    fn passed(&mut self, end: BootNanos) {
        self.session.turns.passed(end);
    }

    fn lost(&self) -> Lost {
        self.session.lost
    }
}
