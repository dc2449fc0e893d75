//! Commands that wait for their answers, and what is known of the connection.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use descry_decode::ids::BootNanos;

use super::reader::Value;
use crate::protocol::database::{MAX_WAITING, OTHER, Outcome, attributes, finished, text};
use crate::protocol::turns::Turns;
use crate::protocol::{Direction, Exchange, Lost};
use crate::span;

/// Commands whose second word says what they do (their "container commands").
const CONTAINERS: &[&str] = &[
    "acl", "client", "cluster", "command", "config", "function", "latency", "memory", "module", "object",
    "pubsub", "script", "slowlog", "xgroup", "xinfo",
];
/// Commands that are answered by a message for each channel.
const SUBSCRIPTIONS: &[&str] =
    &["subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"];
/// What a subscriber is sent.
const MESSAGES: &[&str] = &["message", "pmessage", "smessage"];
/// Errors that are the server's failure (the prefixes in Redis's server.c and cluster.c).
const SERVERS_FAULT: &[&str] =
    &["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "TRYAGAIN"];
/// Longest name of a command (bytes), its second word counted.
const MAX_NAME: usize = 48;

/// What is to be done when the answer comes.
#[derive(Debug)]
enum Then {
    Nothing,
    /// The database is this one.
    Select(Option<Arc<str>>),
    /// Answers that are still to come, a channel each.
    Subscribe(u64),
    /// What comes after it is no answer to anything.
    Monitor,
}

#[derive(Debug)]
struct Waiting {
    start: BootNanos,
    name: Box<str>,
    procedure: Option<Box<str>>,
    then: Then,
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    /// The next command gets none.
    SkipsOne,
}

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct State {
    waiting: VecDeque<Waiting>,
    namespace: Option<Arc<str>>,
    subscribed: bool,
    monitors: bool,
    replies: Replies,
    over: bool,
    pub turns: Turns,
    pub lost: Lost,
}

impl State {
    /// All of the connection is seen.
    pub fn is_whole(&mut self) {
        self.namespace = Some("0".into());
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the next command's exchange depends on beside its bytes, where nothing is under way: the database.
    pub fn rest(&self) -> Option<u64> {
        let is_plain = !self.over && !self.subscribed && !self.monitors && self.replies == Replies::On;
        if !is_plain || self.is_waiting() || self.turns.is_doubtful() {
            return None;
        }
        let Some(namespace) = &self.namespace else { return Some(0) };
        namespace.parse::<u32>().ok().map(|number| u64::from(number) + 1)
    }

    pub fn settle(&mut self, end: BootNanos, answered: bool, exchanges: &mut Vec<Exchange>) {
        while let Some(waiting) = self.waiting.pop_front() {
            if matches!(waiting.then, Then::Select(_)) {
                self.namespace = None;
            }
            self.emit(waiting, Outcome::plain(end, answered), exchanges);
        }
    }

    pub fn value(&mut self, value: Value, exchanges: &mut Vec<Exchange>) {
        match value.direction {
            _ if self.over => {}
            Direction::ToServer if value.is_tls => self.give_up(),
            Direction::ToServer => self.command(&value, exchanges),
            Direction::ToClient => self.answer(&value, exchanges),
        }
    }

    fn give_up(&mut self) {
        self.over = true;
        self.lost.unreadable += 1;
    }

    fn command(&mut self, value: &Value, exchanges: &mut Vec<Exchange>) {
        let word = |index: usize| value.words.get(index).map(Vec::as_slice).unwrap_or_default();
        let is = |name: &str| word(0).eq_ignore_ascii_case(name.as_bytes());
        if is("sync") || is("psync") {
            self.give_up();
            return;
        }
        let then = if SUBSCRIPTIONS.iter().any(|name| is(name)) {
            self.subscribed = true;
            Then::Subscribe(value.count.saturating_sub(1).max(1))
        } else if is("select") {
            let digits = word(1);
            let known = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
            Then::Select(known.then(|| String::from_utf8_lossy(digits).into()))
        } else if is("reset") {
            self.subscribed = false;
            Then::Select(self.namespace.is_some().then(|| "0".into()))
        } else if is("monitor") {
            Then::Monitor
        } else {
            Then::Nothing
        };
        let waiting = Waiting {
            start: value.start,
            name: name(word(0), word(1)),
            procedure: script(word(0), word(1)),
            then,
        };
        if !self.replies_to(word(0), word(1), word(2)) {
            self.emit(waiting, Outcome::plain(value.end, false), exchanges);
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.lost.requests_dropped += self.waiting.len() as u64;
            self.settle(value.end, false, exchanges);
            self.turns.doubt();
        }
        self.waiting.push_back(waiting);
    }

    /// Whether this command gets an answer.
    fn replies_to(&mut self, command: &[u8], second: &[u8], third: &[u8]) -> bool {
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is(command, "client") && is(second, "reply") {
            self.replies = match third {
                it if is(it, "off") => Replies::Off,
                it if is(it, "skip") && self.replies == Replies::On => Replies::SkipsOne,
                it if is(it, "on") => Replies::On,
                _ => self.replies,
            };
            return self.replies == Replies::On;
        }
        match self.replies {
            Replies::On => true,
            Replies::Off => false,
            Replies::SkipsOne => {
                self.replies = Replies::On;
                false
            }
        }
    }

    fn answer(&mut self, value: &Value, exchanges: &mut Vec<Exchange>) {
        if self.turns.is_doubtful() {
            return;
        }
        let word = value.words.first().map(Vec::as_slice).unwrap_or_default();
        let is_any = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
        let is_push = value.kind == b'>';
        if is_push || value.kind == b'*' && (self.subscribed || self.waiting.is_empty()) {
            if is_any(SUBSCRIPTIONS) {
                self.subscription(value, word, exchanges);
                return;
            }
            if is_push || is_any(MESSAGES) {
                return;
            }
        }
        let Some(mut waiting) = self.waiting.pop_front() else {
            self.lost.unmatched += u64::from(!self.monitors);
            return;
        };
        let plain = Outcome::plain(value.end, true);
        if matches!(value.kind, b'-' | b'!') {
            if word.starts_with(b"ERR unknown command") {
                // It may be anything that somebody typed.
                waiting.name = OTHER.into();
            }
            let code = prefix(word);
            let servers_fault = code.is_some_and(|code| SERVERS_FAULT.contains(&code));
            let error = code.is_none().then_some(OTHER);
            self.emit(waiting, Outcome { code, error, servers_fault, ..plain }, exchanges);
            return;
        }
        match &waiting.then {
            Then::Select(database) => {
                self.namespace = database.clone().filter(|_| word != b"QUEUED");
            }
            Then::Monitor => self.monitors = true,
            Then::Nothing | Then::Subscribe(_) => {}
        }
        self.emit(waiting, plain, exchanges);
    }

    /// The answer for one channel.
    fn subscription(&mut self, value: &Value, word: &[u8], exchanges: &mut Vec<Exchange>) {
        if word.to_ascii_lowercase().windows(5).any(|part| part == b"unsub") {
            let left = value.words.get(2).map(Vec::as_slice);
            self.subscribed &= left != Some(b"0");
        }
        let Some(front) = self.waiting.front_mut() else { return };
        if !front.name.as_bytes().eq_ignore_ascii_case(word) {
            return;
        }
        if let Then::Subscribe(left) = &mut front.then {
            *left = left.saturating_sub(1);
            if *left == 0
                && let Some(waiting) = self.waiting.pop_front()
            {
                self.emit(waiting, Outcome::plain(value.end, true), exchanges);
            }
        }
    }

    fn emit(&self, waiting: Waiting, outcome: Outcome<'_>, exchanges: &mut Vec<Exchange>) {
        let mut attributes = attributes([
            text("db.system.name", span::Value::Static("redis")),
            text("db.operation.name", span::Value::Text(waiting.name.clone())),
        ]);
        if let Some(namespace) = &self.namespace {
            attributes.push(text("db.namespace", span::Value::Shared(namespace.clone())));
        }
        if let Some(procedure) = waiting.procedure {
            attributes.push(text("db.stored_procedure.name", span::Value::Text(procedure)));
        }
        exchanges.push(finished(Cow::Owned(waiting.name.into()), waiting.start, attributes, outcome));
    }
}

/// Whether of a command only its first word matters.
pub(super) fn is_told_by_name(command: &[u8]) -> bool {
    const ITS_WORDS_MATTER: [&str; 12] = [
        "evalsha",
        "evalsha_ro",
        "fcall",
        "fcall_ro",
        "hello",
        "monitor",
        "psync",
        "quit",
        "reset",
        "select",
        "sync",
        "replconf",
    ];
    let is_among = |names: &[&str]| names.iter().any(|name| command.eq_ignore_ascii_case(name.as_bytes()));
    !is_among(CONTAINERS) && !is_among(SUBSCRIPTIONS) && !is_among(&ITS_WORDS_MATTER)
}

/// A word that can be told: commands, modules' too (`JSON.SET`), are of letters, digits and a few signs.
fn plain(word: &[u8]) -> Option<&str> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'|');
    let begins = word.first().is_some_and(u8::is_ascii_alphabetic);
    std::str::from_utf8(word).ok().filter(|_| begins && word.len() < MAX_NAME && word.iter().all(is_name))
}

/// The name of a command, as the client wrote it.
fn name(command: &[u8], second: &[u8]) -> Box<str> {
    let Some(command) = plain(command) else { return OTHER.into() };
    let is_container = CONTAINERS.iter().any(|it| it.eq_ignore_ascii_case(command));
    match plain(second).filter(|second| is_container && command.len() + second.len() < MAX_NAME) {
        Some(second) => format!("{command} {second}").into(),
        None => command.into(),
    }
}

/// The digest or name of the script that a command runs.
fn script(command: &[u8], second: &[u8]) -> Option<Box<str>> {
    const SHA1_DIGITS: usize = 40;
    let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
    let is_digest = second.len() == SHA1_DIGITS && second.iter().all(u8::is_ascii_hexdigit);
    if is("evalsha") || is("evalsha_ro") {
        return std::str::from_utf8(second).ok().filter(|_| is_digest).map(Into::into);
    }
    plain(second).filter(|_| is("fcall") || is("fcall_ro")).map(Into::into)
}

/// The first word of an error. Redis's own are in capitals; what a script says may be anything.
fn prefix(error: &[u8]) -> Option<&str> {
    let word = error.split(u8::is_ascii_whitespace).next()?;
    let is_prefix = !word.is_empty()
        && word.len() < 32
        && word.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    std::str::from_utf8(word).ok().filter(|_| is_prefix)
}
