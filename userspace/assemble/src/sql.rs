//! SQL text to what may be told of it: a summary of low cardinality, and the text without its literals.
//!
//! You give a text as the client sent it, whole or cut off, and its [`Dialect`]. It never fails and never takes more
//! than time and memory proportional to the text, of which at most [`MAX_INPUT`] bytes are looked at. No literal
//! comes out: where it is not certain where a literal ends, the rest of the text is left out.
//!
//! By "Sanitization of `db.query.text`" and "Generating a summary of the query" in the semantic conventions for
//! database client spans.

mod known;
mod lexer;
mod sanitize;
mod summary;

use std::ops::Range;
use std::sync::Arc;

pub use known::statement as known_statement;
use lexer::{Kind, Lexer, Token};
use sanitize::Sanitizer;
use summary::Summarizer;

/// Bytes of a statement that are looked at; what comes after is left out.
pub const MAX_INPUT: usize = 8192;
/// Bytes of the sanitized text; longer ones end in `…`.
pub const MAX_TEXT: usize = 2048;
/// Characters of a summary (semantic conventions: 255).
pub const MAX_SUMMARY: usize = 255;

/// What a backslash in an ordinary string means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backslash {
    /// Whether it escapes is not known: a string in which that would matter hides the rest of the text.
    #[default]
    Unknown,
    /// The character after it belongs to the string (MySQL's default).
    Escapes,
    /// Nothing (PostgreSQL's `standard_conforming_strings`, MySQL's `NO_BACKSLASH_ESCAPES`).
    Plain,
}

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL: `"` quotes identifiers, there are `$tag$` and `E''` strings, comments nest.
    PostgreSql(Backslash),
    /// MySQL and MariaDB: `` ` `` quotes identifiers, `"` strings (in ANSI mode they are identifiers, and hidden all
    /// the same), `#` begins a comment, `/*! */` holds code.
    MySql(Backslash),
}

/// What may be told of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statement {
    /// `SELECT users orders`: operations and what they act on, in their order; none if none was recognized.
    pub summary: Option<Arc<str>>,
    /// The text with `?` for every literal, one space for white space and comments, lists of literals folded.
    pub text: Arc<str>,
    /// The operation, if there is exactly one.
    pub operation: Option<Arc<str>>,
    /// The table, if there is exactly one.
    pub collection: Option<Arc<str>>,
    /// The procedure, if the statement calls exactly one.
    pub procedure: Option<Arc<str>>,
}

/// Reads a statement, or several in one text. `whole`: nothing of it is missing at its end.
pub fn statement(text: &[u8], whole: bool, dialect: Dialect) -> Statement {
    let mut tokens = Tokens::of(text, whole, dialect);
    let (mut sanitizer, mut summarizer) = (Sanitizer::default(), Summarizer::default());
    while let Some(token) = tokens.next() {
        sanitizer.token(&token);
        summarizer.token(&token);
    }
    let summary = summarizer.finish(tokens.whole);
    Statement {
        summary: summary.text,
        text: sanitizer.finish(tokens.are_all()),
        operation: summary.operation,
        collection: summary.collection,
        procedure: summary.procedure,
    }
}

/// Where numbers of nothing but digits are in a text: whatever digits they have, [`statement`] says the same of it.
pub fn numbers(text: &[u8], dialect: Dialect) -> Vec<Range<usize>> {
    // What a backslash means may be told later, and decides what is inside of a string.
    if text.contains(&b'\\') {
        return Vec::new();
    }
    let mut tokens = Tokens::of(text, true, dialect);
    let mut numbers = Vec::new();
    while let Some(token) = tokens.next() {
        let end = tokens.lexer.position();
        // With other digits another token may begin at what hangs on to it: `0x1`, `1e'..'`.
        let hangs = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$'&".contains(byte) || *byte >= 0x80;
        let is_number = token.kind == Kind::Literal && token.text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !text.get(end).is_some_and(hangs) {
            numbers.push(end - token.text.len()..end);
        }
    }
    if tokens.are_all() { numbers } else { Vec::new() }
}

/// The tokens of a text that can be relied on.
struct Tokens<'a> {
    lexer: Lexer<'a>,
    /// Nothing is missing at the text's end.
    whole: bool,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a [u8], whole: bool, dialect: Dialect) -> Self {
        let head = text.get(..MAX_INPUT).unwrap_or(text);
        // In another encoding a quote may be half of a character: nothing is told from there on.
        let (known, is_utf8) = match std::str::from_utf8(head) {
            Ok(known) => (known, true),
            Err(error) => {
                let valid = head.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok());
                (valid.unwrap_or_default(), false)
            }
        };
        let whole = whole && is_utf8 && head.len() == text.len();
        Self { lexer: Lexer::new(known, dialect), whole }
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.lexer.next()?;
        // The last word of a text that was cut off may be half of a word, and what looks like one a literal.
        (self.whole || !self.lexer.is_at_end()).then_some(token)
    }

    /// Whether none is missing, once the last was given.
    fn are_all(&self) -> bool {
        self.whole && !self.lexer.is_blind()
    }
}

#[cfg(test)]
mod tests;
