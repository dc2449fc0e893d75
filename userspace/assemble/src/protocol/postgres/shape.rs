//! Which bytes of requests and answers may differ without another meaning.
//!
//! Of a query the digits of its numbers may; of a statement that was prepared the values that are bound. Strings in the text
//! of a query may not: a quote in one ends it. Of answers the rows may be any of the same lengths.

use std::ops::Range;

use super::message::{self, HEADER};
use super::session::gives_names;
use crate::protocol::Direction;
use crate::protocol::frame::Frame;
use crate::sql::{self, Backslash, Dialect};
use crate::template::{Family, Shape, Shapes};

pub(super) static SHAPES: Shapes = Shapes {
    family: Family { number: 3, start_words: START_WORDS as u8, has_state: true },
    // What begins with `BindComplete` may have a row's bytes in its second word.
    answer_start: 1,
    request,
    answer,
};

/// Type, length and the first words of a query; or type, length, and the name of a prepared statement.
const START_WORDS: usize = 2;
/// Bytes that a request is looked up by: they have to be these.
const START: usize = START_WORDS * 8;

/// Goes through messages that are all there.
struct Messages<'a> {
    direction: Direction,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    fn of(direction: Direction, bytes: &'a [u8]) -> Self {
        Self { direction, bytes, at: 0 }
    }

    /// The next one's type, and where its body is.
    fn next(&mut self) -> Option<(u8, Range<usize>)> {
        let rest = self.bytes.get(self.at..)?;
        let Frame::Message { length, .. } = message::frame(self.direction, rest, false) else { return None };
        let (kind, length) = (*rest.first()?, usize::try_from(length).ok()?);
        let body = self.at + HEADER..self.at.checked_add(length)?;
        self.bytes.get(body.clone())?;
        self.at = body.end;
        Some((kind, body))
    }

    fn are_over(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// A simple query; or `Bind` of a statement, or of one that is parsed before it, up to `Execute` and `Sync`.
fn request(bytes: &[u8]) -> Option<Shape> {
    let mut shape = Shape { compared: bytes.len(), ..Shape::default() };
    let mut messages = Messages::of(Direction::ToServer, bytes);
    let (mut parsed, mut bound, mut executed) = (false, false, false);
    loop {
        let (kind, range) = messages.next()?;
        let body = bytes.get(range.clone())?;
        match kind {
            b'Q' if range.start == HEADER => {
                let (text, behind) = message::text(body)?;
                (behind.is_empty() && messages.are_over()).then_some(())?;
                shape.digits = numbers(text, range.start)?;
                return Some(shape);
            }
            b'P' if !parsed && !bound => {
                let (name, rest) = message::text(body)?;
                let (text, _) = message::text(rest)?;
                name.is_empty().then_some(())?;
                shape.digits = numbers(text, range.start + 1)?;
                parsed = true;
            }
            b'B' if !bound => {
                let values = Values::of(body)?;
                // What has no name is what it was made to be last, which may not have been seen.
                (values.portal.is_empty() && values.statement.is_empty() == parsed).then_some(())?;
                shape
                    .any
                    .extend(values.ranges.into_iter().map(|it| it.start + range.start..it.end + range.start));
                bound = true;
            }
            b'E' if bound && !executed => {
                // Without a name, and not a part of the rows: the rest would be asked for by another request.
                (body == [0; 5]).then_some(())?;
                executed = true;
            }
            // What comes first says what the request is about: see `State::meaning`.
            b'D' if parsed || bound => {}
            b'C' if bound && body == b"P\0" => {}
            b'S' if executed && messages.are_over() => break,
            _ => return None,
        }
    }
    shape.any.iter().all(|hole| hole.start >= START).then_some(shape)
}

/// The digits of numbers in a statement that begins here, unless it gives names to others.
fn numbers(text: &[u8], begin: usize) -> Option<Vec<Range<usize>>> {
    if gives_names(text) {
        return None;
    }
    let numbers = sql::numbers(text, Dialect::PostgreSql(Backslash::Unknown)).into_iter();
    Some(numbers.map(|it| it.start + begin..it.end + begin).filter(|hole| hole.start >= START).collect())
}

/// `Bind`.
struct Values<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    /// Where its values are in it.
    ranges: Vec<Range<usize>>,
}

impl<'a> Values<'a> {
    fn of(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = message::text(body)?;
        let (statement, rest) = message::text(rest)?;
        let (formats, rest) = short(rest)?;
        let (count, mut rest) = short(rest.get(usize::from(formats) * 2..)?)?;
        let mut ranges = Vec::new();
        for _ in 0..count {
            let length = message::number(rest)?;
            rest = rest.get(4..)?;
            // NULL has none.
            if length != u32::MAX {
                let begin = body.len() - rest.len();
                let length = usize::try_from(length).ok()?;
                rest = rest.get(length..)?;
                ranges.push(begin..begin + length);
            }
        }
        Some(Self { portal, statement, ranges })
    }
}

/// A number of 2 bytes, and what is behind it.
fn short(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Rows and what is said about them, up to the first `ReadyForQuery`, which is the last message.
fn answer(bytes: &[u8]) -> Option<Shape> {
    let mut shape = Shape { compared: bytes.len(), ..Shape::default() };
    let mut messages = Messages::of(Direction::ToClient, bytes);
    loop {
        let (kind, body) = messages.next()?;
        match kind {
            b'D' => shape.any.push(body),
            // `SELECT 1`.
            b'C' => {
                let tag = bytes.get(body.clone())?.strip_suffix(&[0])?;
                let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
                let end = body.start + tag.len();
                shape.digits.push(end - digits..end);
            }
            b'T' | b'E' | b'N' | b'I' | b'1' | b'2' | b'3' | b'n' | b't' => {}
            b'Z' => return messages.are_over().then_some(shape),
            // Of a COPY, of a part of the rows, or of what is in force from now on.
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message: its type, and its body behind the length.
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    /// `Bind` of a statement to values, `Execute` of it, and `Sync`.
    fn bound(statement: &str, values: &[&str]) -> Vec<u8> {
        let mut body = [b"\0", statement.as_bytes(), b"\0\0\0"].concat();
        body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(value.as_bytes());
        }
        body.extend([0, 0]);
        [message(b'B', &body), message(b'D', b"P\0"), message(b'E', &[0; 5]), message(b'S', b"")].concat()
    }

    fn holes<'a>(bytes: &'a [u8], ranges: &[Range<usize>]) -> Vec<&'a str> {
        ranges.iter().map(|range| std::str::from_utf8(&bytes[range.clone()]).unwrap()).collect()
    }

    #[test]
    fn numbers_of_a_query_may_be_others() {
        let text = message(
            b'Q',
            b"SELECT a FROM t1 WHERE id = 4711 AND b IN (1, 2.5, 0x1f) AND c = '12' LIMIT 10\0",
        );
        let shape = request(&text).unwrap();
        assert_eq!((shape.compared, holes(&text, &shape.digits)), (text.len(), vec!["4711", "1", "10"]));
        assert!(shape.any.is_empty());
        let looked_up = message(b'Q', b"SELECT 1\0");
        assert_eq!(request(&looked_up).unwrap().digits, [], "it is looked up by these bytes");
        for text in ["SELECT 'a\\', 1234567\0", "SELECT 'open, 1234567\0"] {
            let text = message(b'Q', text.as_bytes());
            assert_eq!(request(&text).unwrap().digits, [], "{}", String::from_utf8_lossy(&text));
        }
        for text in
            ["DEALLOCATE ALL\0", " prepare a AS SELECT 1\0", "Declare c CURSOR FOR SELECT 1\0", "no end"]
        {
            assert_eq!(request(&message(b'Q', text.as_bytes())), None, "{text}");
        }
        let two = [message(b'Q', b"SELECT 1\0"), message(b'Q', b"SELECT 2\0")].concat();
        assert_eq!(request(&two), None);
    }

    #[test]
    fn values_that_are_bound_may_be_others() {
        let text = bound("S_1", &["12345", "", "a'b"]);
        let shape = request(&text).unwrap();
        assert_eq!((shape.compared, holes(&text, &shape.any)), (text.len(), vec!["12345", "", "a'b"]));
        let parsed =
            |name: &str| message(b'P', &[name.as_bytes(), b"\0SELECT a FROM t WHERE b = $1\0\0\0"].concat());
        let text = [parsed(""), bound("", &["12"])].concat();
        assert_eq!(holes(&text, &request(&text).unwrap().any), ["12"]);
        for (what, text) in [
            ("what has no name", bound("", &["12"])),
            ("a name is given", [parsed("S_1"), bound("S_1", &["12"])].concat()),
            ("another is bound", [parsed(""), bound("S_1", &["12"])].concat()),
            ("two requests", [bound("S_1", &["12"]), bound("S_1", &["13"])].concat()),
            ("no end", bound("S_1", &["12"])[..40].to_vec()),
            ("nothing is executed", message(b'S', b"")),
            ("a cursor is closed first", [message(b'C', b"P\0"), bound("S_1", &["12"])].concat()),
            ("another is described first", [message(b'D', b"SS_2\0"), bound("S_1", &["12"])].concat()),
        ] {
            assert_eq!(request(&text), None, "{what}");
        }
    }

    #[test]
    fn rows_may_be_others_of_the_same_lengths() {
        let row = message(b'D', b"\0\x01\0\0\0\x04abcd");
        let end = [message(b'C', b"SELECT 12\0"), message(b'Z', b"I")].concat();
        let text = [message(b'T', b"\0\0"), row.clone(), row.clone(), end.clone()].concat();
        let shape = answer(&text).unwrap();
        let body = "\0\x01\0\0\0\x04abcd";
        assert_eq!((holes(&text, &shape.any), holes(&text, &shape.digits)), (vec![body, body], vec!["12"]));
        let none = [message(b'I', b""), message(b'Z', b"T")].concat();
        assert_eq!(answer(&none), Some(Shape { compared: none.len(), ..Shape::default() }));
        for (what, text) in [
            ("no end", row.clone()),
            ("two answers", [end.clone(), end.clone()].concat()),
            ("a part of the rows", [row, message(b's', b""), message(b'Z', b"T")].concat()),
            ("a setting", [message(b'S', b"a\0b\0"), end].concat()),
            ("a copy", [message(b'H', b"\0\0\0"), message(b'Z', b"I")].concat()),
        ] {
            assert_eq!(answer(&text), None, "{what}");
        }
    }
}
