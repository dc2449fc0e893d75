//! The protocol of MySQL and MariaDB ("Client/Server Protocol" in both servers' documentation).
//!
//! One exchange for each command that gets an answer (`COM_QUERY`, `COM_STMT_EXECUTE`, `COM_PING`, ...), over all its
//! result sets; for a `COM_STMT_PREPARE` and the login (`CONNECT`) only if they failed. What a prepared statement says is known if its prepare
//! was seen. `db.namespace` is the database of the login, or the last that `COM_INIT_DB` chose; `USE` by
//! `COM_QUERY` counts too. Whether the server is MariaDB is known from its greeting; without one it is `mysql`.

mod answer;
mod packet;
mod session;

use descry_decode::ids::BootNanos;

use super::frame::{Frame, Framed, Session as _};
use super::{Chunk, Direction, Exchange, Lost, Parser};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use session::State;

/// MySQL and MariaDB.
pub static PROTOCOL: Protocol = Protocol {
    name: "mysql",
    transports: &[Transport::Stream],
    recognize,
    carries_many: false,
    shapes: None,
    parser: |_, _| Box::new(Mysql::default()),
};

/// Commands that clients send all the time ("Text Protocol", "Prepared Statements").
const COM_QUERY: u8 = 3;
const COM_STMT_EXECUTE: u8 = 23;

/// The server's greeting; of a connection that is older, a statement in a packet of its own.
fn recognize(_: Transport, opening: Opening<'_>) -> Verdict {
    let Opening { to_server, to_client, from_start } = opening;
    if from_start {
        return match to_client {
            [] if to_server.is_empty() => Verdict::NotYet,
            // A length under 64 KiB, the first packet, the version of the protocol.
            [_, _, 0, 0, 10, ..]
                if packet::greeting(to_client.get(packet::HEADER..).unwrap_or_default()).is_some() =>
            {
                Verdict::Yes
            }
            [_, _, 0, 0, 10, ..] | [_, _, 0, 0] | [_, _, 0] | [_, _] | [_] => Verdict::NotYet,
            _ => Verdict::No,
        };
    }
    match to_server {
        [] => Verdict::NotYet,
        [_, _, _, 0, COM_QUERY, first, ..] if is_alone(to_server) && first.is_ascii_alphabetic() => {
            Verdict::Yes
        }
        // A statement's number, flags, and the count that is always 1.
        [_, _, _, 0, COM_STMT_EXECUTE, _, _, _, _, _, 1, 0, 0, 0, ..] if is_alone(to_server) => Verdict::Yes,
        _ => Verdict::No,
    }
}

/// Whether these bytes are one packet, or the beginning of one.
fn is_alone(bytes: &[u8]) -> bool {
    match packet::frame(Direction::ToServer, bytes) {
        Frame::Message { length, .. } => length >= bytes.len() as u64,
        Frame::Partial | Frame::Nonsense => false,
    }
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Mysql(Framed<State>);

impl Parser for Mysql {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        self.0.data(chunk, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.0.end(time, exchanges);
    }

    fn is_waiting(&self) -> bool {
        self.0.session.is_waiting()
    }

    fn lost(&self) -> Lost {
        self.0.session.lost
    }
}
