//! What was asked and is not answered, and what is known of the connection.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use descry_decode::ids::BootNanos;
use rustc_hash::FxHasher;

use super::message::{self, CANCEL_REQUEST, GSS_REQUEST, HEADER, SSL_REQUEST};
use crate::protocol::database::{Asked, MAX_WAITING, OTHER, Outcome, Prepared, exchange};
use crate::protocol::frame::{Frame, Message, Session};
use crate::protocol::turns::Turns;
use crate::protocol::{Direction, Exchange, Lost};
use crate::sql::{self, Backslash, Dialect, Statement};

const SYSTEM: &str = "postgresql";
/// What a statement ends with that was skipped, because one before it in its pipeline failed.
const ABORTED: &str = "pipeline_aborted";
/// Classes of SQLSTATE that are the server's failure: insufficient resources, operator intervention, system error,
/// configuration file error, internal error (appendix A).
const SERVERS_FAULT: [&[u8; 2]; 5] = [b"53", b"57", b"58", b"F0", b"XX"];
/// The class of `57014`, which the client itself asked for.
const QUERY_CANCELED: &[u8; 5] = b"57014";

/// What waits for its answer.
#[derive(Debug)]
enum Waiting {
    /// The start of the connection, which ends with `ReadyForQuery` like a query.
    Startup { start: BootNanos },
    /// `Parse`: the statement, and which one had that name before.
    Parse { start: BootNanos, name: Box<[u8]>, statement: Arc<Statement>, before: Option<Arc<Statement>> },
    /// A simple query or a function call, up to `ReadyForQuery`.
    Query { start: BootNanos, asked: Asked, failure: Option<Failure> },
    /// `Execute`.
    Execute { start: BootNanos, asked: Asked },
    /// The client's end of a COPY.
    CopyEnd,
    /// `Sync`, answered by `ReadyForQuery`.
    Sync,
}

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct State {
    waiting: VecDeque<Waiting>,
    statements: Prepared<Box<[u8]>>,
    portals: Prepared<Box<[u8]>>,
    namespace: Option<Arc<str>>,
    backslash: Backslash,
    /// When the messages began that lead to the next `Execute`.
    unit: Option<BootNanos>,
    /// What was bound and not executed since then.
    bound: Option<Asked>,
    /// The server skips what comes before the next `Sync`.
    skipping: bool,
    /// The server takes the data of a COPY, and no `Sync`.
    copying: bool,
    /// The server has said at least once that it waits for a query.
    was_ready: bool,
    /// The server's next byte answers a request for encryption.
    awaits_byte: bool,
    over: bool,
    turns: Turns,
    pub lost: Lost,
}

impl Session for State {
    fn frame(&self, direction: Direction, head: &[u8]) -> Frame {
        message::frame(direction, head, self.awaits_byte)
    }

    fn message(&mut self, message: Message<'_>, exchanges: &mut Vec<Exchange>) {
        let Some(kind) = message.bytes.first().copied() else { return };
        match message.direction {
            Direction::ToServer if kind == 0 => self.startup(&message),
            Direction::ToServer if message.length == 1 => self.give_up(),
            Direction::ToServer => self.asked(kind, &message, exchanges),
            Direction::ToClient if self.awaits_byte => self.encryption(kind),
            Direction::ToClient => self.answered(kind, &message, exchanges),
        }
    }

    fn boundary(&self, direction: Direction, bytes: &[u8], fresh: bool) -> Option<usize> {
        let starts = direction == Direction::ToServer || fresh;
        if starts && message::is_chain(direction, bytes) {
            return Some(0);
        }
        (direction == Direction::ToClient && message::ends_ready(bytes)).then_some(bytes.len())
    }

    fn settle(&mut self, end: BootNanos, answered: bool, exchanges: &mut Vec<Exchange>) {
        self.skipping = false;
        self.copying = false;
        // The `Execute` of what was bound is among the bytes that were not captured.
        if let (Some(start), Some(asked)) = (self.unit.take(), self.bound.take()) {
            self.waiting.push_back(Waiting::Execute { start, asked });
        }
        while !self.waiting.is_empty() {
            self.finish_front(Outcome::plain(end, answered), exchanges);
        }
    }

    fn is_waiting(&self) -> bool {
        !self.copying
            && self.waiting.iter().any(|it| matches!(it, Waiting::Query { .. } | Waiting::Execute { .. }))
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

impl State {
    /// What the next exchange depends on beside its bytes and the names in them.
    pub fn rest(&self) -> Option<u64> {
        let is_between = self.waiting.is_empty() && self.unit.is_none() && self.bound.is_none();
        let is_plain = self.was_ready && !self.skipping && !self.copying && !self.over;
        if !is_between || !is_plain || self.turns.is_doubtful() {
            return None;
        }
        let mut hasher = FxHasher::default();
        (&self.namespace, self.backslash, self.statements.has_changed()).hash(&mut hasher);
        Some(hasher.finish())
    }

    /// What statement a request is about that begins with `Bind`.
    pub fn meaning(&mut self, request: &[u8]) -> u64 {
        let bound = request.strip_prefix(b"B").and_then(|rest| message::text(rest.get(4..)?)).map(|it| it.1);
        let Some((name, _)) = bound.and_then(message::text) else { return 0 };
        let mut hasher = FxHasher::default();
        self.statements.get(name).hash(&mut hasher);
        hasher.finish()
    }

    /// A query or a statement went by: what has no name is another one's now.
    pub fn passed(&mut self, end: BootNanos) {
        self.turns.passed(end);
        let nameless: &[u8] = &[];
        self.statements.doubt(nameless);
        self.portals.doubt(nameless);
    }

    fn give_up(&mut self) {
        self.over = true;
        self.lost.unreadable += 1;
    }

    /// A message without a type.
    fn startup(&mut self, message: &Message<'_>) {
        match message.bytes.get(4..8).and_then(message::number) {
            Some(SSL_REQUEST | GSS_REQUEST) => self.awaits_byte = true,
            // It comes alone on its connection, and gets no answer.
            Some(CANCEL_REQUEST) => {}
            _ => {
                let (user, database) = message::parameters(message.bytes.get(8..).unwrap_or_default());
                // Of a message that is cut the database may be missing: then it is not the user's.
                let name = database.or(user.filter(|_| !message.is_cut()));
                self.namespace = name.map(|name| String::from_utf8_lossy(name).into());
                // PostgreSQL's default since 9.1; the server tells if it is not so.
                self.backslash = Backslash::Plain;
                self.waiting.push_back(Waiting::Startup { start: message.start });
            }
        }
    }

    /// The answer to a request for encryption: TLS tells itself by its first byte.
    fn encryption(&mut self, answer: u8) {
        self.awaits_byte = false;
        if answer == b'G' {
            self.give_up();
        }
    }

    fn statement(&self, text: &[u8], whole: bool) -> Arc<Statement> {
        sql::known_statement(text, whole, Dialect::PostgreSql(self.backslash))
    }

    fn asked(&mut self, kind: u8, message: &Message<'_>, exchanges: &mut Vec<Exchange>) {
        let body = message.bytes.get(HEADER..).unwrap_or_default();
        match kind {
            b'Q' => {
                let (text, whole) = message::text(body).map_or((body, false), |(text, _)| (text, true));
                self.forget_by_sql(text);
                let asked = Asked::Statement(self.statement(text, whole));
                self.push(Waiting::Query { start: message.start, asked, failure: None }, exchanges);
            }
            b'F' => {
                let asked = Asked::Command("FUNCTION CALL");
                self.push(Waiting::Query { start: message.start, asked, failure: None }, exchanges);
            }
            b'P' => self.parse(body, message, exchanges),
            b'B' => self.bind(body, message.start),
            b'E' => {
                let start = self.unit.take().unwrap_or(message.start);
                self.bound = None;
                let portal = message::text(body).and_then(|(portal, _)| self.portals.get(portal));
                let asked = portal.map_or(Asked::Unknown, Asked::Statement);
                if self.skipping {
                    self.emit(Waiting::Execute { start, asked }, aborted(message.end), exchanges);
                } else {
                    self.push(Waiting::Execute { start, asked }, exchanges);
                }
            }
            b'C' => match body.split_first() {
                Some((b'S', name)) => drop(message::text(name).map(|(name, _)| self.statements.remove(name))),
                Some((_, name)) => drop(message::text(name).map(|(name, _)| self.portals.remove(name))),
                None => {}
            },
            b'S' => {
                (self.unit, self.bound) = (None, None);
                if !self.copying {
                    self.skipping = false;
                    self.push(Waiting::Sync, exchanges);
                }
            }
            b'c' | b'f' => {
                self.copying = false;
                self.push(Waiting::CopyEnd, exchanges);
            }
            _ => {}
        }
    }

    fn parse(&mut self, body: &[u8], message: &Message<'_>, exchanges: &mut Vec<Exchange>) {
        let start = *self.unit.get_or_insert(message.start);
        let Some((name, rest)) = message::text(body).filter(|_| !self.skipping) else { return };
        let (text, whole) = message::text(rest).map_or((rest, false), |(text, _)| (text, true));
        self.forget_by_sql(text);
        let statement = self.statement(text, whole);
        // An unnamed one is made to be executed at once.
        if name.is_empty() {
            self.bound = Some(Asked::Statement(statement.clone()));
        }
        let before = self.statements.put(name.into(), statement.clone());
        self.push(Waiting::Parse { start, name: name.into(), statement, before }, exchanges);
    }

    fn bind(&mut self, body: &[u8], start: BootNanos) {
        self.unit.get_or_insert(start);
        let Some((portal, rest)) = message::text(body) else { return };
        let statement = message::text(rest).and_then(|(name, _)| self.statements.get(name));
        self.bound = Some(statement.clone().map_or(Asked::Unknown, Asked::Statement));
        match statement {
            Some(statement) => drop(self.portals.put(portal.into(), statement)),
            None => self.portals.remove(portal),
        }
    }

    /// Statements and cursors may be made and forgotten by SQL too: what their names mean then is not known.
    fn forget_by_sql(&mut self, text: &[u8]) {
        let text = text.trim_ascii_start();
        if begins(text, "deallocate") || begins(text, "prepare") || begins(text, "discard") {
            let name = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').nth(1);
            let one = name.filter(|name| {
                !begins(text, "discard") && !matches!(*name, b"all" | b"ALL" | b"prepare" | b"PREPARE" | b"")
            });
            match one {
                Some(name) => self.statements.remove(name),
                None => self.statements.clear(),
            }
        } else if begins(text, "declare") {
            self.portals.clear();
        }
    }

    fn push(&mut self, waiting: Waiting, exchanges: &mut Vec<Exchange>) {
        if self.waiting.len() >= MAX_WAITING {
            // Whoever has so many open has most likely lost answers: none can be matched any more.
            let count = self.waiting.len() as u64;
            self.lost.requests_dropped += count;
            let end = self.waiting.iter().rev().find_map(start).unwrap_or_default();
            self.settle(end, false, exchanges);
            self.turns.doubt();
        }
        self.waiting.push_back(waiting);
    }

    fn answered(&mut self, kind: u8, message: &Message<'_>, exchanges: &mut Vec<Exchange>) {
        let body = message.bytes.get(HEADER..).unwrap_or_default();
        match kind {
            b'S' => self.parameter(body),
            b'W' => {
                // Both sides now send replication's data, for as long as they like.
                self.settle(message.end, true, exchanges);
                self.give_up();
            }
            _ if self.turns.is_doubtful() => {}
            b'1' => {
                if matches!(self.waiting.front(), Some(Waiting::Parse { .. })) {
                    self.waiting.pop_front();
                }
                if self.waiting.is_empty() {
                    // The client waited for this, and what it executes next is not of the same unit.
                    (self.unit, self.bound) = (None, None);
                }
            }
            b'C' | b'I' | b's' => {
                while matches!(self.waiting.front(), Some(Waiting::Parse { .. } | Waiting::CopyEnd)) {
                    self.waiting.pop_front();
                }
                if matches!(self.waiting.front(), Some(Waiting::Execute { .. })) {
                    self.finish_front(Outcome::plain(message.end, true), exchanges);
                }
            }
            b'G' => self.copy_in(),
            b'E' => self.error(Failure(message::sql_state(body)), message.end, exchanges),
            b'Z' => self.ready(message.end, exchanges),
            _ => {}
        }
    }

    fn parameter(&mut self, body: &[u8]) {
        let Some((b"standard_conforming_strings", rest)) = message::text(body) else { return };
        self.backslash = match message::text(rest) {
            Some((b"on", _)) => Backslash::Plain,
            Some((b"off", _)) => Backslash::Escapes,
            _ => Backslash::Unknown,
        };
    }

    /// The server waits for data: it ignores each `Sync` up to their end (section 55.2.6).
    fn copy_in(&mut self) {
        let end = self.waiting.iter().position(|it| matches!(it, Waiting::CopyEnd));
        self.copying = end.is_none();
        let mut index = 0;
        let end = end.unwrap_or(self.waiting.len());
        self.waiting.retain(|it| {
            index += 1;
            index > end || !matches!(it, Waiting::Sync)
        });
    }

    fn error(&mut self, failure: Failure, end: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.copying = false;
        while matches!(self.waiting.front(), Some(Waiting::CopyEnd)) {
            self.waiting.pop_front();
        }
        match self.waiting.front_mut() {
            Some(Waiting::Query { failure: told, .. }) => *told = Some(failure),
            Some(Waiting::Startup { start }) => {
                let (start, asked) = (*start, Asked::Command("CONNECT"));
                self.waiting.pop_front();
                self.emit(Waiting::Execute { start, asked }, failure.outcome(end), exchanges);
            }
            Some(Waiting::Parse { .. } | Waiting::Execute { .. }) => {
                self.unit_failed(failure, end, exchanges)
            }
            // An error of `Sync` or `Describe`, or one that nobody asked for.
            Some(Waiting::Sync | Waiting::CopyEnd) | None => {}
        }
    }

    /// The first unit failed, those behind it are skipped up to the next `Sync`.
    fn unit_failed(&mut self, failure: Failure, end: BootNanos, exchanges: &mut Vec<Exchange>) {
        let sync = self.waiting.iter().position(|it| matches!(it, Waiting::Sync));
        self.skipping = sync.is_none();
        let group: Vec<Waiting> = self.waiting.drain(..sync.unwrap_or(self.waiting.len())).collect();
        // Undone in the reverse order, so that a name that was given twice is what it was before.
        for waiting in group.iter().rev() {
            let Waiting::Parse { name, before, .. } = waiting else { continue };
            match before {
                Some(before) => drop(self.statements.put(name.clone(), before.clone())),
                None => self.statements.remove(name),
            }
        }
        let mut group = group.into_iter().peekable();
        let Some(failed) = group.next() else { return };
        let failed = match failed {
            Waiting::Parse { start, statement, .. } => {
                // Its own `Execute` is the exchange, if there is one.
                let own = group.next_if(|next| match next {
                    Waiting::Execute { asked: Asked::Statement(executed), .. } => {
                        Arc::ptr_eq(executed, &statement)
                    }
                    _ => false,
                });
                own.unwrap_or(Waiting::Execute { start, asked: Asked::Statement(statement) })
            }
            other => other,
        };
        self.emit(failed, failure.outcome(end), exchanges);
        for skipped in group {
            self.emit(skipped, aborted(end), exchanges);
        }
    }

    fn ready(&mut self, end: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.was_ready = true;
        self.copying = false;
        loop {
            match self.waiting.front() {
                Some(Waiting::Parse { .. } | Waiting::CopyEnd | Waiting::Execute { .. }) => {
                    self.finish_front(Outcome::plain(end, true), exchanges);
                }
                Some(Waiting::Query { .. } | Waiting::Startup { .. } | Waiting::Sync) => {
                    self.finish_front(Outcome::plain(end, true), exchanges);
                    return;
                }
                None => {
                    self.lost.unmatched += 1;
                    return;
                }
            }
        }
    }

    fn finish_front(&mut self, outcome: Outcome<'_>, exchanges: &mut Vec<Exchange>) {
        match self.waiting.pop_front() {
            Some(Waiting::Query { start, asked, failure: Some(failure) }) => {
                let failed = failure.outcome(outcome.end);
                self.emit(Waiting::Query { start, asked, failure: None }, failed, exchanges);
            }
            Some(waiting) => self.emit(waiting, outcome, exchanges),
            None => {}
        }
    }

    fn emit(&self, waiting: Waiting, outcome: Outcome<'_>, exchanges: &mut Vec<Exchange>) {
        if let Waiting::Query { start, asked, .. } | Waiting::Execute { start, asked } = waiting {
            exchanges.push(exchange(SYSTEM, self.namespace.as_ref(), start, &asked, outcome));
        }
    }
}

/// Whether SQL begins with a word, in whatever case.
fn begins(text: &[u8], word: &str) -> bool {
    text.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether SQL may change what a name stands for.
pub(super) fn gives_names(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    ["deallocate", "prepare", "discard", "declare"].iter().any(|word| begins(text, word))
}

fn start(waiting: &Waiting) -> Option<BootNanos> {
    match waiting {
        Waiting::Query { start, .. } | Waiting::Execute { start, .. } | Waiting::Parse { start, .. } => {
            Some(*start)
        }
        Waiting::Startup { .. } | Waiting::CopyEnd | Waiting::Sync => None,
    }
}

/// An `ErrorResponse`: its SQLSTATE, if that was captured.
#[derive(Clone, Copy, Debug)]
struct Failure(Option<[u8; 5]>);

impl Failure {
    fn outcome(&self, end: BootNanos) -> Outcome<'_> {
        let plain = Outcome::plain(end, true);
        let Some(code) = &self.0 else { return Outcome { error: Some(OTHER), ..plain } };
        let class = code.first_chunk::<2>();
        let servers_fault =
            class.is_some_and(|class| SERVERS_FAULT.contains(&class)) && code != QUERY_CANCELED;
        Outcome { code: std::str::from_utf8(code).ok(), servers_fault, ..plain }
    }
}

fn aborted(end: BootNanos) -> Outcome<'static> {
    Outcome { error: Some(ABORTED), ..Outcome::plain(end, true) }
}
