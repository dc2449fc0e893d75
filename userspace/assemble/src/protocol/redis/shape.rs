//! Which bytes of commands and answers may differ without another meaning.
//!
//! Of most commands only the name is told: keys and values may be any of the same lengths. Of answers strings may be any and
//! numbers any digits; the words of a status or an error have to be these.

use std::ops::Range;

use memchr::memchr;

use super::session::is_told_by_name;
use crate::template::{Family, Shape, Shapes};

pub(super) static SHAPES: Shapes = Shapes {
    // `*3`, `$3`, `SET` with their line ends are 13 bytes.
    family: Family { number: 2, start_words: 2, has_state: true },
    answer_start: 0,
    request,
    answer,
};

/// Elements of an answer that are followed at most.
const MAX_ELEMENTS: u64 = 64;

/// Goes through the lines and strings of a message.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line, without its end.
    fn line(&mut self) -> Option<(Range<usize>, &'a [u8])> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr(b'\n', rest)?;
        let line = rest.get(..end)?.strip_suffix(b"\r")?;
        let range = self.at..self.at + line.len();
        self.at += end + 1;
        Some((range, line))
    }

    /// The next bytes as a string of this length.
    fn string(&mut self, len: usize) -> Option<(Range<usize>, &'a [u8])> {
        let range = self.at..self.at.checked_add(len)?;
        let string = self.bytes.get(range.clone())?;
        let end = range.end.checked_add(2)?;
        (self.bytes.get(range.end..end)? == b"\r\n").then_some(())?;
        self.at = end;
        Some((range, string))
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// One command of strings.
fn request(bytes: &[u8]) -> Option<Shape> {
    let mut lines = Lines { bytes, at: 0 };
    let mut shape = Shape { compared: bytes.len(), ..Shape::default() };
    let count = number(lines.line()?.1.strip_prefix(b"*")?)?;
    for index in 0..count {
        let len = number(lines.line()?.1.strip_prefix(b"$")?)?;
        let (range, string) = lines.string(usize::try_from(len).ok()?)?;
        if index == 0 {
            is_told_by_name(string).then_some(())?;
        } else {
            shape.any.push(range);
        }
    }
    (count > 0 && lines.is_at_end()).then_some(shape)
}

/// One answer.
fn answer(bytes: &[u8]) -> Option<Shape> {
    let mut lines = Lines { bytes, at: 0 };
    let mut shape = Shape { compared: bytes.len(), ..Shape::default() };
    let mut left = 1;
    while left > 0 {
        left -= 1;
        let (range, line) = lines.line()?;
        let (kind, rest) = line.split_first()?;
        match kind {
            b'+' | b'-' | b'_' | b'#' => {}
            b':' => {
                let sign = usize::from(rest.first().is_some_and(|sign| b"+-".contains(sign)));
                shape.digits.push(range.start + 1 + sign..range.end);
            }
            b'$' if rest == b"-1" => {}
            b'$' => {
                let string = lines.string(usize::try_from(number(rest)?).ok()?)?;
                shape.any.push(string.0);
            }
            b'*' if rest == b"-1" => {}
            b'*' => left += number(rest).filter(|count| *count <= MAX_ELEMENTS)?,
            _ => return None,
        }
        (left <= MAX_ELEMENTS).then_some(())?;
    }
    lines.is_at_end().then_some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holes<'a>(bytes: &'a [u8], ranges: &[Range<usize>]) -> Vec<&'a str> {
        ranges.iter().map(|range| std::str::from_utf8(&bytes[range.clone()]).unwrap()).collect()
    }

    #[test]
    fn keys_and_values_may_be_any() {
        let text = b"*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$0\r\n\r\n";
        let shape = request(text).unwrap();
        assert_eq!((shape.compared, holes(text, &shape.any)), (text.len(), vec!["key:1", ""]));
        for not_told_by_name in ["select", "CLIENT", "evalsha", "SUBSCRIBE", "reset"] {
            let len = not_told_by_name.len();
            let text = format!("*2\r\n${len}\r\n{not_told_by_name}\r\n$1\r\n1\r\n");
            assert_eq!(request(text.as_bytes()), None, "{not_told_by_name}");
        }
        for no_single_command in
            ["PING\r\n", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", "*1\r\n$4\r\nPI", "*0\r\n"]
        {
            assert_eq!(request(no_single_command.as_bytes()), None, "{no_single_command}");
        }
    }

    #[test]
    fn strings_may_be_any_and_numbers_digits() {
        let text = b"*3\r\n$3\r\nabc\r\n:-12\r\n*1\r\n+OK\r\n";
        let shape = answer(text).unwrap();
        assert_eq!((holes(text, &shape.any), holes(text, &shape.digits)), (vec!["abc"], vec!["12"]));
        assert!(answer(b"$-1\r\n").unwrap().any.is_empty());
        for no_single_answer in
            ["+OK\r\n+OK\r\n", "$5\r\nab", ":1", "*2\r\n:1\r\n", "*65\r\n", "$99999999999999999999\r\n"]
        {
            assert_eq!(answer(no_single_answer.as_bytes()), None, "{no_single_answer}");
        }
    }
}
