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

use super::frame::Framed;
use super::{Chunk, Exchange, Lost, Parser};
use session::State;

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

    fn lost(&self) -> Lost {
        self.0.session.lost
    }
}
