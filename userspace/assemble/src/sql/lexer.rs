//! SQL to tokens.
//!
//! By PostgreSQL's "Lexical Structure" (chapter 4.1) and MySQL's "Language Structure" (chapter 11), comments
//! by 4.1.5 and 11.7.

use super::{Backslash, Dialect};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name.
    Word,
    /// A name in quotes.
    Quoted,
    /// A string or a number.
    Literal,
    /// `$1` or `?`.
    Parameter,
    /// One character of anything else.
    Sign(char),
}

/// A token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    /// As it stands in the text.
    pub text: &'a str,
    /// Something that is no token stands before it.
    pub spaced: bool,
}

impl Token<'_> {
    /// Whether it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is one of these keywords.
    pub fn is_any(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }
}

/// Goes through a text.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    dialect: Dialect,
    /// Inside of MySQL's `/*! */`.
    in_code_comment: bool,
    /// Where a literal ends was not certain, so nothing after it was read.
    blind: bool,
}

/// Where a quoted piece ends.
enum End {
    At(usize),
    /// It has no end, or nobody can say where it is.
    Nowhere,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str, dialect: Dialect) -> Self {
        Self { text, at: 0, dialect, in_code_comment: false, blind: false }
    }

    /// Bytes that were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Whether the rest of the text was left out.
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// The next token.
    pub fn next(&mut self) -> Option<Token<'a>> {
        let spaced = self.space();
        let begin = self.at;
        let first = self.peek(0)?;
        let kind = match first {
            b'\'' => self.string(self.backslash()),
            b'"' if self.is_mysql() => self.string(self.backslash()),
            b'"' => self.quoted_name(b'"'),
            b'`' if self.is_mysql() => self.quoted_name(b'`'),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) && !self.follows_name() => {
                self.number()
            }
            b'$' if !self.is_mysql() => self.dollar(),
            b'?' => {
                self.at += 1;
                Kind::Parameter
            }
            _ if self.is_name(first) => self.word(),
            _ => {
                let sign = self.text.get(self.at..).and_then(|rest| rest.chars().next())?;
                self.at += sign.len_utf8();
                Kind::Sign(sign)
            }
        };
        Some(Token { kind, text: self.text.get(begin..self.at).unwrap_or_default(), spaced })
    }

    fn is_mysql(&self) -> bool {
        matches!(self.dialect, Dialect::MySql(_))
    }

    fn backslash(&self) -> Backslash {
        match self.dialect {
            Dialect::PostgreSql(backslash) | Dialect::MySql(backslash) => backslash,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.byte(self.at + ahead)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn starts(&self, with: &str) -> bool {
        self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(with.as_bytes()))
    }

    /// Whether a byte belongs to a name; digits and `$` do not begin one.
    fn is_name(&self, byte: u8) -> bool {
        byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 || byte == b'$' && self.is_mysql()
    }

    fn is_in_name(&self, byte: u8) -> bool {
        self.is_name(byte) || byte.is_ascii_digit() || byte == b'$'
    }

    /// Whether the character before this one ends a name, so that a point is none of a number.
    fn follows_name(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.byte(at));
        before.is_some_and(|before| self.is_in_name(before) || matches!(before, b'"' | b'`'))
    }

    /// Steps over white space and comments; whether there were any.
    fn space(&mut self) -> bool {
        let begin = self.at;
        loop {
            match self.peek(0) {
                // Vertical tab too, which `is_ascii_whitespace` leaves out.
                Some(byte) if byte.is_ascii_whitespace() || byte == 0x0b => self.at += 1,
                Some(b'-') if self.is_line_comment() => self.line(),
                Some(b'#') if self.is_mysql() => self.line(),
                Some(b'/') if self.starts("/*") => self.block(),
                Some(b'*') if self.in_code_comment && self.starts("*/") => {
                    self.in_code_comment = false;
                    self.at += 2;
                }
                _ => return self.at > begin,
            }
        }
    }

    /// MySQL wants white space or a control character after `--`.
    fn is_line_comment(&self) -> bool {
        let next = self.peek(2);
        let begins = next.is_none_or(|next| next.is_ascii_whitespace() || next.is_ascii_control());
        self.starts("--") && (!self.is_mysql() || begins)
    }

    fn line(&mut self) {
        // PostgreSQL ends a line at a carriage return too, MySQL does not.
        let ends = |byte: &u8| *byte == b'\n' || *byte == b'\r' && !self.is_mysql();
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    fn block(&mut self) {
        if self.is_mysql() && (self.starts("/*!") || self.starts("/*M!")) {
            self.at += if self.starts("/*!") { 3 } else { 4 };
            while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1;
            }
            self.in_code_comment = true;
            return;
        }
        let mut depth = 0_usize;
        while self.at < self.text.len() {
            if self.starts("/*") && (depth == 0 || !self.is_mysql()) {
                depth += 1;
                self.at += 2;
            } else if self.starts("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// A string, from its quote on.
    fn string(&mut self, backslash: Backslash) -> Kind {
        let quote = self.peek(0).unwrap_or(b'\'');
        let begin = self.at;
        match self.closing(begin + 1, quote, backslash) {
            // A server of a lower version sees no code there, and the comment's end inside of the string.
            End::At(end)
                if self.in_code_comment && self.text.get(begin..end).is_none_or(|it| it.contains("*/")) =>
            {
                self.give_up();
            }
            End::At(end) => self.at = end,
            End::Nowhere => self.give_up(),
        }
        Kind::Literal
    }

    /// A string that begins with a letter: `E'..'`, and `E'..'` that goes on on another line.
    fn escape_string(&mut self) -> Kind {
        self.string(Backslash::Escapes);
        loop {
            let after = self.at;
            // PostgreSQL: two strings with a line's end between them are one.
            if !self.space() || self.peek(0) != Some(b'\'') {
                self.at = after;
                return Kind::Literal;
            }
            self.string(Backslash::Escapes);
        }
    }

    fn closing(&self, mut at: usize, quote: u8, backslash: Backslash) -> End {
        while let Some(byte) = self.byte(at) {
            at += 1;
            if byte == b'\\' {
                match backslash {
                    Backslash::Escapes => at += 1,
                    Backslash::Plain => {}
                    // Two backslashes are harmless either way; before a quote one is not.
                    Backslash::Unknown => match self.byte(at) {
                        Some(next) if next == quote => return End::Nowhere,
                        Some(b'\\') => at += 1,
                        _ => {}
                    },
                }
            } else if byte == quote {
                if self.byte(at) != Some(quote) {
                    return End::At(at);
                }
                at += 1;
            }
        }
        End::Nowhere
    }

    fn give_up(&mut self) {
        self.blind = true;
        self.at = self.text.len();
    }

    fn quoted_name(&mut self, quote: u8) -> Kind {
        match self.closing(self.at + 1, quote, Backslash::Plain) {
            End::At(end) => {
                self.at = end;
                Kind::Quoted
            }
            // It may be anything.
            End::Nowhere => {
                self.give_up();
                Kind::Literal
            }
        }
    }

    /// Digits, and all that hangs on to them.
    fn number(&mut self) -> Kind {
        while let Some(byte) = self.peek(0) {
            let exponent = matches!(byte, b'e' | b'E') && matches!(self.peek(1), Some(b'+' | b'-'));
            // `1e'..'` and `1$$..$$`: older servers see a number and a string.
            let string = matches!(self.peek(1), Some(b'\'' | b'&')) || byte == b'$' && !self.is_mysql();
            if exponent {
                self.at += 2;
            } else if (self.is_in_name(byte) && !string) || byte == b'.' || byte.is_ascii_digit() {
                self.at += 1;
            } else {
                break;
            }
        }
        Kind::Literal
    }

    /// PostgreSQL: `$1`, `$$..$$`, `$tag$..$tag$`.
    fn dollar(&mut self) -> Kind {
        let begin = self.at;
        self.at += 1;
        if self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1;
            }
            return Kind::Parameter;
        }
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        while self.peek(0).is_some_and(is_tag) {
            self.at += 1;
        }
        match self.peek(0) {
            Some(b'$') => {}
            // Of a text that is cut off, this may be the beginning of a tag.
            None => return Kind::Sign('$'),
            Some(_) => {
                self.at = begin + 1;
                return Kind::Sign('$');
            }
        }
        self.at += 1;
        let tag = self.text.get(begin..self.at).unwrap_or_default();
        match self.text.get(self.at..).and_then(|rest| rest.find(tag)) {
            Some(end) => self.at += end + tag.len(),
            None => self.give_up(),
        }
        Kind::Literal
    }

    fn word(&mut self) -> Kind {
        let begin = self.at;
        while self.peek(0).is_some_and(|byte| self.is_in_name(byte)) {
            self.at += 1;
        }
        let word = self.text.get(begin..self.at).unwrap_or_default();
        match (word, self.peek(0)) {
            ("e" | "E", Some(b'\'')) if !self.is_mysql() => self.escape_string(),
            ("b" | "B" | "x" | "X" | "n" | "N", Some(b'\'')) => self.string(self.backslash()),
            ("u" | "U", Some(b'&')) if !self.is_mysql() && self.peek(1) == Some(b'\'') => {
                self.at += 1;
                self.string(self.backslash())
            }
            ("u" | "U", Some(b'&')) if !self.is_mysql() && self.peek(1) == Some(b'"') => {
                self.at += 1;
                self.quoted_name(b'"')
            }
            _ => Kind::Word,
        }
    }
}
