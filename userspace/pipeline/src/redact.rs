//! Secrets out of texts.
//!
//! What looks like one is replaced by a word in brackets: `[card]`, `[token]`, `[email]`, and `[redacted]` for what the
//! user's own expressions fit. Expressions run in time linear in the text.

use std::borrow::Cow;

use descry_assemble::span::{Attribute, Span, Status, Value};
use regex::{Captures, Regex, RegexSet};

/// 13 to 19 digits (ISO/IEC 7812-1), also in groups.
const CARD: &str = r"\b[0-9](?:[ -]?[0-9]){12,18}\b";
const EMAIL: &str =
    r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b";
/// JSON web tokens (RFC 7519), HTTP's credentials (RFC 9110, section 11.4), keys by their makers' published forms, and what
/// is named as a secret. The first group of an expression is what stays.
const TOKENS: [&str; 4] = [
    r"()\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",
    r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/-]{8,}=*",
    r"()\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk[-_](?:live_|test_|proj-|ant-)?[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{35})",
    r#"(?i)\b((?:api[_-]?key|access[_-]?token|auth[_-]?token|token|secret|password|passwd|pwd)["']?\s*[=:]\s*["']?)[^\s"'&;,\[]{3,}"#,
];

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Card numbers whose check digit is right.
    pub cards: bool,
    /// Tokens and keys.
    pub tokens: bool,
    /// E-mail addresses.
    pub emails: bool,
    /// Own expressions.
    pub patterns: Vec<String>,
}

/// An expression that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a pattern of redaction cannot be used: {0}")]
pub struct RedactorError(#[from] regex::Error);

/// What stands for what was found.
#[derive(Clone, Copy, Debug)]
enum Replacement {
    Card,
    Token,
    Email,
    Own,
}

/// Takes secrets out.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// All of them at once: most texts hold nothing.
    any: RegexSet,
    rules: Vec<(Regex, Replacement)>,
    replaced: u64,
}

impl Redactor {
    /// By these rules.
    ///
    /// # Errors
    /// An own expression that is none, or too large.
    pub fn new(rules: &Rules) -> Result<Self, RedactorError> {
        let mut expressions: Vec<(&str, Replacement)> = Vec::new();
        // First what is the longest: a token may hold what looks like a card number.
        expressions.extend(rules.patterns.iter().map(|pattern| (pattern.as_str(), Replacement::Own)));
        if rules.tokens {
            expressions.extend(TOKENS.map(|token| (token, Replacement::Token)));
        }
        if rules.emails {
            expressions.push((EMAIL, Replacement::Email));
        }
        if rules.cards {
            expressions.push((CARD, Replacement::Card));
        }
        let any = RegexSet::new(expressions.iter().map(|(expression, _)| expression))?;
        let compiled = expressions
            .into_iter()
            .map(|(expression, replacement)| Ok((Regex::new(expression)?, replacement)));
        Ok(Self { any, rules: compiled.collect::<Result<_, regex::Error>>()?, replaced: 0 })
    }

    /// Places that were replaced so far.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The text without secrets; none: it holds none.
    pub fn text(&mut self, text: &str) -> Option<String> {
        let found = self.any.matches(text);
        if !found.matched_any() {
            return None;
        }
        let (mut clean, mut replaced) = (Cow::Borrowed(text), 0);
        for index in found.iter() {
            let Some((expression, replacement)) = self.rules.get(index) else { continue };
            let new = expression.replace_all(&clean, |found: &Captures<'_>| {
                let whole = found.get(0).map_or("", |whole| whole.as_str());
                let word = match replacement {
                    Replacement::Card if !is_card(whole) => return whole.to_owned(),
                    Replacement::Card => "[card]",
                    Replacement::Email => "[email]",
                    Replacement::Own => "[redacted]",
                    Replacement::Token => {
                        replaced += 1;
                        return format!("{}[token]", found.get(1).map_or("", |name| name.as_str()));
                    }
                };
                replaced += 1;
                word.to_owned()
            });
            clean = Cow::Owned(new.into_owned());
        }
        self.replaced += replaced;
        (replaced > 0).then(|| clean.into_owned())
    }

    /// The same of the values of attributes.
    pub fn attributes(&mut self, attributes: &mut [Attribute]) {
        for (_, value) in attributes {
            let new = match value {
                // descry's own words.
                Value::Static(_) | Value::Int(_) | Value::Double(_) | Value::Bool(_) => None,
                Value::Text(text) => self.text(text),
                Value::Shared(text) => self.text(text),
                Value::Texts(texts) => {
                    for text in texts {
                        if let Some(clean) = self.text(text) {
                            *text = clean.into();
                        }
                    }
                    None
                }
            };
            if let Some(new) = new {
                *value = Value::Text(new.into());
            }
        }
    }

    /// The same of everything that a span tells in texts. Most spans hold nothing and are not copied.
    pub fn span<'a>(&mut self, span: &'a Span) -> Cow<'a, Span> {
        if !self.finds(span) {
            return Cow::Borrowed(span);
        }
        let mut span = span.clone();
        if let Cow::Owned(name) = &span.name
            && let Some(clean) = self.text(name)
        {
            span.name = Cow::Owned(clean);
        }
        if let Status::Error(Cow::Owned(text)) = &span.status
            && let Some(clean) = self.text(text)
        {
            span.status = Status::Error(Cow::Owned(clean));
        }
        self.attributes(&mut span.attributes);
        span.events.iter_mut().for_each(|event| self.attributes(&mut event.attributes));
        span.links.iter_mut().for_each(|link| self.attributes(&mut link.attributes));
        Cow::Owned(span)
    }

    /// Whether there may be something in a span.
    fn finds(&self, span: &Span) -> bool {
        let in_value = |value: &Value| match value {
            Value::Static(_) | Value::Int(_) | Value::Double(_) | Value::Bool(_) => false,
            Value::Text(text) => self.any.is_match(text),
            Value::Shared(text) => self.any.is_match(text),
            Value::Texts(texts) => texts.iter().any(|text| self.any.is_match(text)),
        };
        let in_attributes = |attributes: &[Attribute]| attributes.iter().any(|(_, value)| in_value(value));
        let in_text = |text: &Cow<'static, str>| matches!(text, Cow::Owned(text) if self.any.is_match(text));
        in_text(&span.name)
            || matches!(&span.status, Status::Error(text) if in_text(text))
            || in_attributes(&span.attributes)
            || span.events.iter().any(|event| in_attributes(&event.attributes))
            || span.links.iter().any(|link| in_attributes(&link.attributes))
    }
}

/// Whether the check digit is right (ISO/IEC 7812-1, annex B). A row of equal digits is no card.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, twice) => {
                if twice > 9 {
                    twice - 9
                } else {
                    twice
                }
            }
        })
        .sum();
    sum.is_multiple_of(10) && digits.windows(2).any(|pair| pair.first() != pair.last())
}
