//! The text without its literals.

use std::sync::Arc;

use super::MAX_TEXT;
use super::lexer::{Kind, Token};

/// Writes a text token by token.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    text: String,
    /// Whether something was left out for its length.
    full: bool,
    /// A list of nothing but literals, open at the moment.
    list: Option<List>,
    /// What a `(` would begin here.
    before: Before,
    /// The statement begins here.
    at_start: bool,
    /// In `SET`, whose values need no quotes.
    set: Set,
    was_started: bool,
}

#[derive(Debug)]
struct List {
    /// Where its `(` stands.
    begin: usize,
    items: usize,
    what: Before,
}

/// What stands before a parenthesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Anything,
    /// `IN`.
    In,
    /// `VALUES`.
    Values,
    /// A row of `VALUES` that ends at this length of the text, and after it a comma.
    Row { end: usize, comma: bool },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Set {
    #[default]
    No,
    Name,
    Value,
}

impl Sanitizer {
    pub fn token(&mut self, token: &Token<'_>) {
        let is_value = self.track_set(token);
        if self.text.len() > 4 * MAX_TEXT {
            // Lists that are folded make it shorter again, but not without an end.
            self.full = true;
            return;
        }
        let hidden = token.kind == Kind::Literal
            || token.is_any(&["true", "false"])
            || is_value && matches!(token.kind, Kind::Word | Kind::Quoted);
        if token.spaced && !self.text.is_empty() {
            self.text.push(' ');
        }
        let begin = self.text.len();
        self.text.push_str(if hidden { "?" } else { token.text });
        self.fold(token, begin, hidden);
    }

    /// The text; `whole`: nothing is missing at its end.
    pub fn finish(mut self, whole: bool) -> Arc<str> {
        let mut whole = whole && !self.full;
        if self.text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| self.text.is_char_boundary(*end)).unwrap_or(0);
            self.text.truncate(end);
            whole = false;
        }
        if !whole {
            self.text.push('…');
        }
        self.text.into()
    }

    /// `SET name = value, name TO value`: a value is a literal even if it looks like a name. Whether it is one.
    fn track_set(&mut self, token: &Token<'_>) -> bool {
        let is_first = !self.was_started || self.at_start;
        self.was_started = true;
        self.at_start = token.kind == Kind::Sign(';');
        let before = self.set;
        self.set = match before {
            _ if is_first => {
                if token.is("set") {
                    Set::Name
                } else {
                    Set::No
                }
            }
            Set::Name if token.kind == Kind::Sign('=') || token.is("to") => Set::Value,
            Set::Value if token.kind == Kind::Sign(',') => Set::Name,
            state => state,
        };
        before == Set::Value && self.set == Set::Value
    }

    /// Folds `IN (?, ?)` to `IN (?)`, and rows of `VALUES` that are nothing but literals to the first of them.
    fn fold(&mut self, token: &Token<'_>, begin: usize, hidden: bool) {
        if let Some(list) = &mut self.list {
            match token.kind {
                _ if hidden => list.items += 1,
                Kind::Parameter => list.items += 1,
                Kind::Sign(',' | '-' | '+') => {}
                Kind::Sign(')') => {
                    let list = self.list.take();
                    self.close(list);
                    return;
                }
                Kind::Word if token.is_any(&["null", "default"]) => list.items += 1,
                _ => {
                    self.list = None;
                    self.before = Before::Anything;
                }
            }
            if self.list.is_some() {
                return;
            }
        }
        match (token.kind, self.before) {
            (Kind::Sign('('), Before::In | Before::Values | Before::Row { comma: true, .. }) => {
                self.list = Some(List { begin, items: 0, what: self.before });
            }
            (Kind::Sign(','), Before::Row { end, comma: false }) => {
                self.before = Before::Row { end, comma: true };
            }
            (Kind::Word, _) if token.is("in") => self.before = Before::In,
            (Kind::Word, _) if token.is_any(&["values", "value"]) => self.before = Before::Values,
            _ => self.before = Before::Anything,
        }
    }

    fn close(&mut self, list: Option<List>) {
        let Some(list) = list else { return };
        self.before = Before::Anything;
        match list.what {
            Before::In if list.items > 0 => {
                self.text.truncate(list.begin);
                self.text.push_str("(?)");
            }
            Before::Values => self.before = Before::Row { end: self.text.len(), comma: false },
            Before::Row { end, .. } => {
                self.text.truncate(end);
                self.before = Before::Row { end, comma: false };
            }
            _ => {}
        }
    }
}
