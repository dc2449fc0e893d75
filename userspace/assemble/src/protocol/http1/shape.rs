//! Which bytes of requests and answers may differ without another meaning.
//!
//! Of a request nothing of its head may: the path, the host and the trace context are in it. Of an answer the date may. What
//! is behind a head is a body, whose length it tells.

use super::side::head_end;
use crate::template::{Family, Shape, Shapes};

pub(super) static SHAPES: Shapes = Shapes {
    family: Family { number: 1, start_words: 8, has_state: false },
    // The version and the status code.
    answer_start: 2,
    request,
    answer,
};

fn request(bytes: &[u8]) -> Option<Shape> {
    let head = head(bytes)?;
    Some(Shape { compared: head.len(), ..Shape::default() })
}

fn answer(bytes: &[u8]) -> Option<Shape> {
    let head = head(bytes)?;
    let mut shape = Shape { compared: head.len(), ..Shape::default() };
    let mut at = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if let Some(value) = value_of(line, b"date:") {
            let begin = at + line.len() - value.len();
            shape.any.push(begin..begin + value.trim_ascii_end().len());
        }
        at += line.len();
    }
    Some(shape)
}

/// The head, unless its body tells its own length.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.get(..head_end(bytes, 0)?)?;
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    lines.all(|line| value_of(line, b"transfer-encoding:").is_none()).then_some(head)
}

/// What follows a name at the beginning of a line.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_may_differ_and_nothing_else() {
        let text = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 11:00:00 GMT\r\nContent-Length: 2\r\n\r\nhi";
        let shape = answer(text).unwrap();
        assert_eq!(shape.compared, text.len() - 2);
        let holes: Vec<_> = shape.any.iter().map(|hole| &text[hole.clone()]).collect();
        assert_eq!(holes, [b" Sat, 28 Nov 2026 11:00:00 GMT"]);
        assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().compared, 27);
    }

    #[test]
    fn bodies_that_tell_their_length_are_left_alone() {
        assert_eq!(request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), None);
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), None);
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-"), None);
    }
}
