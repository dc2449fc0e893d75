//! What was asked and is not answered, and what is known of the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use descry_decode::ids::BootNanos;

use super::answer::{Answer, Shape, Step};
use super::packet::{self, COMPRESS, FULL, HEADER, SSL, ZSTD};
use crate::protocol::database::{Asked, MAX_WAITING, OTHER, Outcome, Prepared, exchange};
use crate::protocol::frame::{Frame, Message, Session};
use crate::protocol::turns::Turns;
use crate::protocol::{Direction, Exchange, Lost};
use crate::sql::{self, Backslash, Dialect, Statement};

/// MariaDB: the statement that was prepared last.
const LAST_PREPARED: u32 = u32::MAX;
/// `SERVER_STATUS_NO_BACKSLASH_ESCAPES`.
const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;
/// Errors that are the server's failure: disk full, out of memory, of sort memory, too many connections, out of
/// resources, shutdown in progress, table full, error of the storage ("Server Error Message Reference").
const SERVERS_FAULT: [u16; 8] = [1021, 1030, 1037, 1038, 1040, 1041, 1053, 1114];

/// What is to be done when the answer comes.
#[derive(Clone, Debug)]
enum Then {
    Nothing,
    /// The database is this one.
    Database(Arc<str>),
    /// The statement gets the id that the server tells.
    Prepare(Arc<Statement>),
    /// All prepared statements are gone.
    Reset,
}

#[derive(Debug)]
struct Waiting {
    start: BootNanos,
    asked: Asked,
    answer: Answer,
    then: Then,
    /// An exchange only if it failed.
    quiet: bool,
}

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct State {
    waiting: VecDeque<Waiting>,
    statements: Prepared<u32>,
    last_prepared: Option<Arc<Statement>>,
    namespace: Option<Arc<str>>,
    is_mariadb: bool,
    backslash: Backslash,
    offered: Option<u32>,
    agreed: Option<u32>,
    /// The packet before was full: the next one of this direction goes on with it.
    client_goes_on: bool,
    server_goes_on: bool,
    /// The client sends a file.
    infile: bool,
    over: bool,
    turns: Turns,
    pub lost: Lost,
}

impl Session for State {
    fn frame(&self, direction: Direction, head: &[u8]) -> Frame {
        packet::frame(direction, head)
    }

    fn message(&mut self, message: Message<'_>, exchanges: &mut Vec<Exchange>) {
        let length = message.length.saturating_sub(HEADER as u64);
        let goes_on = match message.direction {
            Direction::ToServer => &mut self.client_goes_on,
            Direction::ToClient => &mut self.server_goes_on,
        };
        if std::mem::replace(goes_on, length == FULL) {
            return;
        }
        let Some((header, payload)) = message.bytes.split_at_checked(HEADER) else { return };
        let number = header.last().copied().unwrap_or_default();
        match message.direction {
            Direction::ToServer => self.client_packet(payload, length, number, &message, exchanges),
            Direction::ToClient => self.server_packet(payload, length, number, message.end, exchanges),
        }
    }

    fn boundary(&self, direction: Direction, bytes: &[u8], fresh: bool) -> Option<usize> {
        let begins = match direction {
            // A command: its number is 0, and it has a byte at least.
            Direction::ToServer => {
                bytes.get(HEADER).is_some_and(|command| is_command(*command)) && packet::is_chain(bytes, 0)
            }
            Direction::ToClient => fresh && packet::is_chain(bytes, 1),
        };
        begins.then_some(0)
    }

    fn settle(&mut self, end: BootNanos, answered: bool, exchanges: &mut Vec<Exchange>) {
        (self.infile, self.client_goes_on, self.server_goes_on) = (false, false, false);
        while let Some(waiting) = self.waiting.pop_front() {
            self.emit(waiting, Outcome::plain(end, answered), exchanges);
        }
    }

    fn is_waiting(&self) -> bool {
        let login = |waiting: &Waiting| waiting.quiet || waiting.answer.is_almost_done();
        !self.infile && !self.waiting.iter().all(login)
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    fn lost(&mut self) -> &mut Lost {
        &mut self.lost
    }
}

/// Whether a command has this number ("Command Phase"; MariaDB adds 0xfa to 0xfd).
fn is_command(number: u8) -> bool {
    matches!(number, 0x01..=0x20 | 0xfa..=0xfd)
}

impl State {
    fn system(&self) -> &'static str {
        if self.is_mariadb { "mariadb" } else { "mysql" }
    }

    fn give_up(&mut self) {
        self.over = true;
        self.lost.unreadable += 1;
    }

    fn client_packet(
        &mut self,
        payload: &[u8],
        length: u64,
        number: u8,
        message: &Message<'_>,
        exchanges: &mut Vec<Exchange>,
    ) {
        if self.infile {
            self.infile = length > 0;
            return;
        }
        if number != 0 {
            if self.offered.is_some() && self.agreed.is_none() {
                self.login(payload, message);
            }
            return;
        }
        let Some((command, body)) = payload.split_first() else {
            self.lost.malformed += 1;
            return;
        };
        // An EOF that may have come did not.
        if self.waiting.front().is_some_and(|it| it.answer.is_almost_done()) {
            self.done(None, message.start, exchanges);
        }
        self.command(*command, body, message, exchanges);
    }

    fn login(&mut self, payload: &[u8], message: &Message<'_>) {
        let Some(login) = packet::login(payload) else { return };
        let offered = self.offered.unwrap_or_default();
        if login.capabilities & SSL != 0 {
            self.give_up();
            return;
        }
        self.agreed = Some(login.capabilities);
        self.namespace = login.database.map(|name| String::from_utf8_lossy(name).into());
        if login.capabilities & offered & (COMPRESS | ZSTD) != 0 {
            self.give_up();
            return;
        }
        self.waiting.push_back(Waiting {
            start: message.start,
            asked: Asked::Command("CONNECT"),
            answer: Answer::new(Shape::Login),
            then: Then::Nothing,
            quiet: true,
        });
    }

    fn command(&mut self, command: u8, body: &[u8], message: &Message<'_>, exchanges: &mut Vec<Exchange>) {
        let id = packet::u32_at(body, 0);
        let named = |name, shape| (Asked::Command(name), shape, Then::Nothing);
        let (asked, shape, then) = match command {
            0x02 => {
                let name: Arc<str> = String::from_utf8_lossy(body).into();
                let then = if message.is_cut() { Then::Nothing } else { Then::Database(name) };
                (Asked::Command("INIT_DB"), Shape::Simple, then)
            }
            0x03 => self.query(body, message),
            0x16 => {
                let statement = self.statement(body, !message.is_cut());
                (Asked::Statement(statement.clone()), Shape::Prepared, Then::Prepare(statement))
            }
            0x17 | 0xfa => (self.prepared(id), Shape::Results, Then::Nothing),
            0x1c => (self.prepared(id), Shape::Rows, Then::Nothing),
            0x1a => (self.prepared(id), Shape::Simple, Then::Nothing),
            0x19 => {
                // No answer comes.
                id.into_iter().for_each(|id| self.statements.remove(&id));
                return;
            }
            // Data of a parameter, and the end of the connection: no answer comes.
            0x01 | 0x18 => return,
            0x11 | 0x1f => {
                let name = if command == 0x11 { "CHANGE_USER" } else { "RESET_CONNECTION" };
                let shape = if command == 0x11 { Shape::Login } else { Shape::Simple };
                (Asked::Command(name), shape, Then::Reset)
            }
            0x12 | 0x1e => {
                // Replication: the server sends for as long as the connection lives.
                self.give_up();
                return;
            }
            0x04 => named("FIELD_LIST", Shape::Definitions),
            0x05 => named("CREATE_DB", Shape::Simple),
            0x06 => named("DROP_DB", Shape::Simple),
            0x07 => named("REFRESH", Shape::Simple),
            0x08 => named("SHUTDOWN", Shape::Simple),
            0x09 => named("STATISTICS", Shape::Packet),
            0x0a => named("PROCESS_INFO", Shape::Results),
            0x0c => named("PROCESS_KILL", Shape::Simple),
            0x0d => named("DEBUG", Shape::Simple),
            0x0e => named("PING", Shape::Simple),
            0x1b => named("SET_OPTION", Shape::Simple),
            _ => {
                self.lost.malformed += 1;
                return;
            }
        };
        if self.waiting.len() >= MAX_WAITING {
            self.lost.requests_dropped += self.waiting.len() as u64;
            self.settle(message.start, false, exchanges);
            self.turns.doubt();
        }
        let quiet = shape == Shape::Prepared;
        self.waiting.push_back(Waiting {
            start: message.start,
            asked,
            answer: Answer::new(shape),
            then,
            quiet,
        });
    }

    fn query(&self, body: &[u8], message: &Message<'_>) -> (Asked, Shape, Then) {
        let Some(text) = packet::query(body, self.agreed) else {
            return (Asked::Unknown, Shape::Results, Then::Nothing);
        };
        let statement = self.statement(text, !message.is_cut());
        let name = database_of_use(text).filter(|_| !message.is_cut());
        let then = name.map_or(Then::Nothing, |name| Then::Database(name.into()));
        (Asked::Statement(statement), Shape::Results, then)
    }

    fn statement(&self, text: &[u8], whole: bool) -> Arc<Statement> {
        sql::known_statement(text, whole, Dialect::MySql(self.backslash))
    }

    fn prepared(&mut self, id: Option<u32>) -> Asked {
        let statement = match id {
            Some(LAST_PREPARED) => {
                // It may be on its way yet.
                let open = self.waiting.iter().rev().find_map(|it| match &it.then {
                    Then::Prepare(statement) => Some(statement.clone()),
                    _ => None,
                });
                open.or_else(|| self.last_prepared.clone())
            }
            Some(id) => self.statements.get(&id),
            None => None,
        };
        statement.map_or(Asked::Unknown, Asked::Statement)
    }

    fn server_packet(
        &mut self,
        payload: &[u8],
        length: u64,
        number: u8,
        end: BootNanos,
        exchanges: &mut Vec<Exchange>,
    ) {
        if number == 0 && self.waiting.is_empty() {
            // The first packet of a connection.
            if let Some(greeting) = packet::greeting(payload) {
                self.is_mariadb = greeting.is_mariadb;
                self.offered = Some(greeting.capabilities);
                self.status(greeting.status);
            }
            return;
        }
        if self.turns.is_doubtful() {
            return;
        }
        let Some(front) = self.waiting.front_mut() else {
            self.lost.unmatched += 1;
            return;
        };
        match front.answer.packet(payload, length, number) {
            Step::More => {}
            Step::Infile => self.infile = true,
            Step::Done(status) => {
                self.status(status);
                self.done(None, end, exchanges);
            }
            Step::DoneBefore => {
                self.done(None, end, exchanges);
                if !self.waiting.is_empty() {
                    self.server_packet(payload, length, number, end, exchanges);
                }
            }
            Step::Prepared { id, done } => {
                if let Then::Prepare(statement) = &front.then {
                    let statement = statement.clone();
                    self.statements.put(id, statement.clone());
                    self.last_prepared = Some(statement);
                }
                if done {
                    self.done(None, end, exchanges);
                }
            }
            Step::Failed(code) => self.done(Some(code), end, exchanges),
        }
    }

    fn status(&mut self, status: Option<u16>) {
        if let Some(status) = status {
            let plain = status & NO_BACKSLASH_ESCAPES != 0;
            self.backslash = if plain { Backslash::Plain } else { Backslash::Escapes };
        }
    }

    /// The first answer is complete; `failed`: with this code, if it was captured.
    fn done(&mut self, failed: Option<Option<u16>>, end: BootNanos, exchanges: &mut Vec<Exchange>) {
        let Some(waiting) = self.waiting.pop_front() else { return };
        self.infile = false;
        let plain = Outcome::plain(end, true);
        match failed {
            None => {
                match &waiting.then {
                    Then::Database(name) => self.namespace = Some(name.clone()),
                    Then::Reset => {
                        self.statements.clear();
                        self.last_prepared = None;
                    }
                    Then::Nothing | Then::Prepare(_) => {}
                }
                self.emit(waiting, plain, exchanges);
            }
            Some(None) => self.emit(waiting, Outcome { error: Some(OTHER), ..plain }, exchanges),
            Some(Some(code)) => {
                let servers_fault = SERVERS_FAULT.contains(&code);
                let code = code.to_string();
                let outcome = Outcome { code: Some(&code), servers_fault, ..plain };
                self.emit(waiting, outcome, exchanges);
            }
        }
    }

    fn emit(&self, waiting: Waiting, outcome: Outcome<'_>, exchanges: &mut Vec<Exchange>) {
        let failed = outcome.code.is_some() || outcome.error.is_some();
        if failed || !waiting.quiet {
            let namespace = self.namespace.as_ref();
            exchanges.push(exchange(self.system(), namespace, waiting.start, &waiting.asked, outcome));
        }
    }
}

/// The database that `USE name` chooses.
fn database_of_use(text: &[u8]) -> Option<String> {
    let (word, name) = text.trim_ascii().split_at_checked(4)?;
    if !word.eq_ignore_ascii_case(b"use ") {
        return None;
    }
    let name = name.trim_ascii();
    let name = name.strip_suffix(b";").unwrap_or(name).trim_ascii_end();
    let name = name.strip_prefix(b"`").and_then(|name| name.strip_suffix(b"`")).unwrap_or(name);
    let plain = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-') || *byte >= 0x80);
    (plain && !name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}
