//! What a statement does and to what, in a few words.
//!
//! No grammar: operations are found by where they stand, tables by what stands before them. A parenthesis is a level
//! of its own, so `EXTRACT(year FROM day)` names no table, and `FROM (SELECT ...)` another operation.

use std::sync::Arc;

use super::MAX_SUMMARY;
use super::lexer::{Kind, Token};

/// Levels of parentheses that are told apart; in deeper ones nothing is recognized.
const MAX_LEVELS: usize = 64;

/// Operations that can stand inside of other statements, and act on tables.
const INNER: &[&str] = &["insert", "update", "delete", "replace", "merge"];
/// Words after which an inner operation begins.
const BEFORE_INNER: &[&str] =
    &["as", "explain", "analyze", "verbose", "materialized", "extended", "partitions"];
/// Statements that name tables right behind the operation (or behind words of [`SKIPPED`]).
const ON_TABLES: &[&str] = &[
    "truncate", "lock", "copy", "vacuum", "analyze", "reindex", "cluster", "optimize", "repair", "check",
    "table", "refresh", "rename", "desc", "describe", "load", "handler",
];
/// Statements that are told by their operation alone.
const ALONE: &[&str] = &[
    "begin",
    "start",
    "commit",
    "rollback",
    "savepoint",
    "release",
    "end",
    "abort",
    "set",
    "show",
    "reset",
    "discard",
    "fetch",
    "move",
    "close",
    "listen",
    "notify",
    "unlisten",
    "deallocate",
    "checkpoint",
    "kill",
    "flush",
    "do",
    "grant",
    "revoke",
    "xa",
    "unlock",
    "explain",
    "declare",
    "prepare",
    "execute",
    "values",
    "help",
    "comment",
    "install",
    "uninstall",
    "change",
    "purge",
    "stop",
];
/// Statements with a kind of object.
const ON_OBJECTS: &[&str] = &["create", "alter", "drop"];
/// Kinds of objects whose names are told.
const OBJECTS: &[&str] = &[
    "table",
    "view",
    "index",
    "database",
    "schema",
    "function",
    "procedure",
    "trigger",
    "sequence",
    "type",
    "extension",
    "domain",
    "event",
    "aggregate",
    "publication",
    "subscription",
    "tablespace",
    "policy",
    "rule",
];
/// Kinds of objects whose names are not told: people's.
const PEOPLE: &[&str] = &["user", "role", "group", "server"];
/// Words between an operation and its table.
const SKIPPED: &[&str] = &[
    "only",
    "lateral",
    "if",
    "not",
    "exists",
    "into",
    "ignore",
    "low_priority",
    "delayed",
    "high_priority",
    "quick",
    "concurrently",
    "table",
    "tables",
    "full",
    "freeze",
    "verbose",
    "analyze",
    "materialized",
    "view",
    "index",
    "database",
    "schema",
    "data",
    "local",
    "infile",
    "from",
    "overwrite",
];
/// Words that end a list of tables.
const CLAUSES: &[&str] = &[
    "where",
    "group",
    "order",
    "having",
    "limit",
    "set",
    "returning",
    "union",
    "except",
    "intersect",
    "for",
    "window",
    "offset",
    "fetch",
    "values",
    "select",
    "on",
    "when",
    "procedure",
];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub text: Option<Arc<str>>,
    pub operation: Option<Arc<str>>,
    pub collection: Option<Arc<str>>,
    pub procedure: Option<Arc<str>>,
}

/// What an operation's targets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Target {
    #[default]
    Nothing,
    Table,
    Procedure,
    /// A schema, an index, ...
    Object,
}

/// Inside of one pair of parentheses.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// `FROM` and `JOIN` name tables here.
    reads: bool,
    /// `INTO` names a table here.
    writes: bool,
    /// `USING` names a table here.
    uses: bool,
    /// In a list of tables: another one follows a comma.
    list: bool,
}

/// A name that may turn out to be a function's.
#[derive(Debug)]
struct Name {
    text: String,
    dotted: bool,
    target: Target,
    /// A `(` behind it makes it a function.
    may_be_function: bool,
}

/// Goes through a statement token by token.
#[derive(Debug, Default)]
pub(super) struct Summarizer {
    text: String,
    full: bool,
    operations: Vec<Box<str>>,
    collections: Vec<Box<str>>,
    procedures: Vec<Box<str>>,
    levels: Vec<Level>,
    level: Level,
    /// Levels that are open beyond [`MAX_LEVELS`].
    beyond: usize,
    /// The next name is one.
    expected: Target,
    function_allowed: bool,
    name: Option<Name>,
    /// `INSERT` that may be the function of that name.
    doubtful: Option<Box<str>>,
    /// `CREATE`, whose kind of object has not come.
    object: Option<Box<str>>,
    begun: bool,
    before: Option<Before>,
}

/// The token before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Open,
    Close,
    Point,
    /// A word after which an inner operation begins.
    Introduces,
    Distinct,
    Other,
}

impl Summarizer {
    pub fn token(&mut self, token: &Token<'_>) {
        if self.full {
            return;
        }
        if self.beyond == 0 {
            self.settle(token);
        }
        match token.kind {
            Kind::Sign('(') => self.open(),
            Kind::Sign(')') => self.close(),
            _ if self.beyond > 0 => {}
            Kind::Sign(';') => {
                self.levels.clear();
                self.level = Level::default();
                self.expected = Target::Nothing;
                self.object = None;
                self.begun = false;
            }
            Kind::Sign(',') if self.level.list => {
                self.expected = Target::Table;
                self.function_allowed = true;
            }
            Kind::Sign('.') => {}
            Kind::Word | Kind::Quoted => self.word(token),
            Kind::Literal | Kind::Parameter | Kind::Sign(_) => {
                self.expected = Target::Nothing;
                self.begun = true;
            }
        }
        self.before = Some(match token.kind {
            Kind::Sign('(') => Before::Open,
            Kind::Sign(')') => Before::Close,
            Kind::Sign('.') => Before::Point,
            Kind::Word if token.is_any(BEFORE_INNER) => Before::Introduces,
            Kind::Word if token.is("distinct") => Before::Distinct,
            _ => Before::Other,
        });
    }

    /// What was found. `whole`: nothing is missing at the end, where a name may go on with a point.
    pub fn finish(mut self, whole: bool) -> Summary {
        if whole {
            self.commit();
        }
        let one = |found: &[Box<str>]| match found {
            [one] => Some(Arc::from(&**one)),
            _ => None,
        };
        Summary {
            operation: one(&self.operations).filter(|_| !self.full),
            collection: one(&self.collections).filter(|_| !self.full),
            procedure: one(&self.procedures).filter(|_| !self.full),
            text: (!self.text.is_empty()).then(|| self.text.into()),
        }
    }

    /// What this token decides about those before it.
    fn settle(&mut self, token: &Token<'_>) {
        if let Some(operation) = self.doubtful.take()
            && token.kind != Kind::Sign('(')
        {
            self.inner(&operation);
        }
        let Some(name) = &mut self.name else { return };
        match token.kind {
            Kind::Sign('.') => name.dotted = true,
            Kind::Word | Kind::Quoted if name.dotted => {}
            Kind::Sign('(') if name.may_be_function => self.name = None,
            _ => self.commit(),
        }
    }

    /// The name is a target.
    fn commit(&mut self) {
        let Some(name) = self.name.take().filter(|name| !name.dotted) else { return };
        let found = match name.target {
            Target::Table => Some(&mut self.collections),
            Target::Procedure => Some(&mut self.procedures),
            Target::Object | Target::Nothing => None,
        };
        if let Some(found) = found
            && !found.iter().any(|it| **it == *name.text)
        {
            found.push(name.text.as_str().into());
        }
        self.append(&name.text);
    }

    fn append(&mut self, word: &str) {
        let length = self.text.chars().count() + word.chars().count() + 1;
        if length > MAX_SUMMARY {
            self.full = true;
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(word);
    }

    fn operation(&mut self, operation: &str) {
        self.append(operation);
        self.operations.push(operation.into());
    }

    fn open(&mut self) {
        if self.levels.len() >= MAX_LEVELS {
            self.beyond += 1;
            return;
        }
        self.levels.push(self.level);
        // `FROM (a JOIN b)`: the tables are one level further down.
        let joins = self.expected == Target::Table && self.level.list;
        self.level = Level { reads: joins, list: joins, ..Level::default() };
        if !joins {
            self.expected = Target::Nothing;
        }
    }

    fn close(&mut self) {
        if self.beyond > 0 {
            self.beyond -= 1;
            return;
        }
        self.level = self.levels.pop().unwrap_or_default();
        self.expected = Target::Nothing;
    }

    fn word(&mut self, token: &Token<'_>) {
        if self.before == Some(Before::Point) {
            if let Some(name) = self.name.as_mut().filter(|name| name.dotted) {
                name.text.push('.');
                name.text.push_str(token.text);
                name.dotted = false;
            }
            return;
        }
        if token.is("select") {
            self.begun = true;
            self.expected = Target::Nothing;
            self.level = Level { reads: true, ..Level::default() };
            self.operation(token.text);
        } else if self.object.is_some() {
            self.object(token);
        } else if !self.begun {
            self.first(token);
        } else if self.expected != Target::Nothing {
            self.target(token);
        } else {
            self.keyword(token);
        }
    }

    /// The first word of a statement.
    fn first(&mut self, token: &Token<'_>) {
        self.begun = true;
        if token.is_any(INNER) {
            self.inner(token.text);
        } else if token.is_any(ON_OBJECTS) {
            self.object = Some(token.text.into());
        } else if token.is("call") {
            self.operation(token.text);
            self.expect(Target::Procedure, false);
        } else if token.is("use") {
            self.operation(token.text);
            self.expect(Target::Object, false);
        } else if token.is_any(ON_TABLES) {
            self.operation(token.text);
            self.level.list = !token.is_any(&["copy", "load"]);
            self.level.writes = token.is("load");
            if !token.is("load") {
                self.expect(Target::Table, false);
            }
        } else if token.is_any(ALONE) {
            self.operation(token.text);
        }
    }

    /// An operation that acts on tables.
    fn inner(&mut self, operation: &str) {
        let is = |keyword| operation.eq_ignore_ascii_case(keyword);
        self.operation(operation);
        self.level = Level {
            reads: is("delete") || is("update"),
            writes: is("insert") || is("replace") || is("merge"),
            uses: is("merge") || is("delete"),
            list: is("update") || is("delete"),
        };
        self.expect(Target::Table, false);
    }

    /// A word after `CREATE`, `ALTER` or `DROP`.
    fn object(&mut self, token: &Token<'_>) {
        let (object, person) = (token.is_any(OBJECTS), token.is_any(PEOPLE));
        if !object && !person {
            return;
        }
        let Some(operation) = self.object.take() else { return };
        self.operation(&format!("{operation} {}", token.text));
        if object {
            self.expect(if token.is("table") { Target::Table } else { Target::Object }, false);
        }
    }

    fn expect(&mut self, target: Target, function_allowed: bool) {
        self.expected = target;
        self.function_allowed = function_allowed;
    }

    /// A word where a name is expected.
    fn target(&mut self, token: &Token<'_>) {
        if token.is_any(SKIPPED) {
            return;
        }
        let target = std::mem::take(&mut self.expected);
        if token.is_any(CLAUSES) {
            self.keyword(token);
            return;
        }
        self.name = Some(Name {
            text: token.text.to_owned(),
            dotted: false,
            target,
            may_be_function: self.function_allowed,
        });
    }

    fn keyword(&mut self, token: &Token<'_>) {
        let from = token.is("from") && self.level.reads && self.before != Some(Before::Distinct);
        if from || token.is_any(&["join", "straight_join"]) && self.level.reads {
            self.level.list = true;
            self.expect(Target::Table, true);
        } else if token.is("into") && self.level.writes || token.is("using") && self.level.uses {
            self.level.uses = false;
            self.expect(Target::Table, true);
        } else if token.is_any(CLAUSES) && !token.is("on") {
            self.level.list = false;
        } else if token.is_any(INNER)
            && matches!(self.before, Some(Before::Open | Before::Close | Before::Introduces))
        {
            self.doubtful = Some(token.text.into());
        }
    }
}
