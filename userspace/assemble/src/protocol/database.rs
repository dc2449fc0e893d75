//! What the databases have in common: an exchange by the semantic conventions, and statements by their names.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use descry_decode::ids::BootNanos;
use lru::LruCache;

use super::{ATTRIBUTES, Exchange};
use crate::span::{Attribute, SpanKind, Status, Value};
use crate::sql::Statement;

/// Requests of one connection that wait for their answers. More: the oldest is given up.
pub(super) const MAX_WAITING: usize = 4096;
/// `error.type` of a failure whose code was not captured (semantic conventions, "error.type").
pub(super) const OTHER: &str = "_OTHER";
/// Statements that are known by name on one connection.
const MAX_PREPARED: usize = 256;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome<'a> {
    /// When.
    pub end: BootNanos,
    /// Whether the answer came.
    pub answered: bool,
    /// The database's code of the failure.
    pub code: Option<&'a str>,
    /// What `error.type` says where the database gave no code.
    pub error: Option<&'static str>,
    /// The failure is the server's own (out of memory, shutting down), not the request's.
    pub servers_fault: bool,
}

impl Outcome<'_> {
    /// Ended without a failure that is known.
    pub fn plain(end: BootNanos, answered: bool) -> Self {
        Self { end, answered, code: None, error: None, servers_fault: false }
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// A statement.
    Statement(Arc<Statement>),
    /// A command of the protocol itself.
    Command(&'static str),
    /// Something that was prepared before anybody watched, or was not captured.
    Unknown,
}

/// An exchange (semantic conventions, "Semantic conventions for database client spans").
///
/// `db.operation.name` and `db.collection.name` are told of statements that have exactly one.
pub(super) fn exchange(
    system: &'static str,
    namespace: Option<&Arc<str>>,
    start: BootNanos,
    asked: &Asked,
    outcome: Outcome<'_>,
) -> Exchange {
    let mut attributes = attributes([text("db.system.name", Value::Static(system))]);
    let mut shared = |name, value: Option<&Arc<str>>| {
        attributes.extend(value.map(|value| text(name, Value::Shared(value.clone()))));
    };
    shared("db.namespace", namespace);
    let name = match asked {
        Asked::Statement(it) => {
            shared("db.query.summary", it.summary.as_ref());
            shared("db.operation.name", it.operation.as_ref());
            shared("db.collection.name", it.collection.as_ref());
            shared("db.stored_procedure.name", it.procedure.as_ref());
            shared("db.query.text", Some(&it.text).filter(|it| !it.is_empty()));
            it.summary.as_ref().map_or(Cow::Borrowed(system), |it| Cow::Owned(it.to_string()))
        }
        Asked::Command(command) => {
            attributes.push(text("db.operation.name", Value::Static(command)));
            Cow::Borrowed(*command)
        }
        Asked::Unknown => Cow::Borrowed(system),
    };
    finished(name, start, attributes, outcome)
}

/// An exchange with what its outcome adds. The server's words are left out: they quote values.
pub(super) fn finished(
    name: Cow<'static, str>,
    start: BootNanos,
    mut attributes: Vec<Attribute>,
    outcome: Outcome<'_>,
) -> Exchange {
    if let Some(code) = outcome.code {
        attributes.push(text("db.response.status_code", Value::Text(code.into())));
        attributes.push(text("error.type", Value::Text(code.into())));
    } else if let Some(error) = outcome.error {
        attributes.push(text("error.type", Value::Static(error)));
    }
    let failed = outcome.code.is_some() || outcome.error.is_some();
    let status = |failed| if failed { Status::Error(Cow::Borrowed("")) } else { Status::Unset };
    Exchange {
        start,
        end: outcome.end,
        name,
        kind: SpanKind::Server,
        client_status: status(failed),
        server_status: status(failed && outcome.servers_fault),
        attributes,
        context: None,
        answered: outcome.answered,
    }
}

/// The first attributes of an exchange, and room for more.
pub(super) fn attributes(first: impl IntoIterator<Item = Attribute>) -> Vec<Attribute> {
    let mut attributes = Vec::with_capacity(ATTRIBUTES);
    attributes.extend(first);
    attributes
}

pub(super) fn text(name: &'static str, value: Value) -> Attribute {
    (Cow::Borrowed(name), value)
}

/// Statements by the names that the client gave them; those that were not used for the longest are forgotten.
pub(super) struct Prepared<K: Hash + Eq> {
    statements: LruCache<K, Arc<Statement>>,
    has_changed: bool,
}

impl<K: Hash + Eq> Default for Prepared<K> {
    fn default() -> Self {
        // A bounded one would take its room at once, on each connection.
        Self { statements: LruCache::unbounded(), has_changed: false }
    }
}

impl<K: Hash + Eq> Prepared<K> {
    /// Keeps a statement, and gives the one that had this name before.
    pub fn put(&mut self, name: K, statement: Arc<Statement>) -> Option<Arc<Statement>> {
        let before = self.statements.put(name, statement.clone());
        self.has_changed |= before.as_ref().is_some_and(|before| *before != statement);
        if self.statements.len() > MAX_PREPARED {
            self.has_changed = true;
            self.statements.pop_lru();
        }
        before
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, name: &Q) -> Option<Arc<Statement>>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.statements.get(name).cloned()
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, name: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.has_changed |= self.statements.pop(name).is_some();
    }

    /// Forgets what a name stands for, which it may still do.
    pub fn doubt<Q: Hash + Eq + ?Sized>(&mut self, name: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.statements.pop(name);
    }

    pub fn clear(&mut self) {
        self.has_changed |= !self.statements.is_empty();
        self.statements.clear();
    }

    /// Whether a name has ever stood for something else than later.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<K: Hash + Eq> fmt::Debug for Prepared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({})", self.statements.len())
    }
}
