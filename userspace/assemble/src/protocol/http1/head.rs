//! Heads of messages: request lines, status lines and the fields that are read.

use std::mem::MaybeUninit;

use memchr::memchr;

use super::super::Direction;
use super::super::http::{Field, Request, Response};
use crate::infer::Verdict;

/// Fields of a head that are read; what comes behind them is not known.
const MAX_FIELDS: usize = 256;
/// Longest method that is taken for one (bytes); WebDAV's longest is `VERSION-CONTROL`.
const MAX_METHOD: usize = 24;
/// Methods that tell by themselves that this is HTTP.
const METHODS: [&[u8]; 9] =
    [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];

/// How long the body behind a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// In chunks (RFC 9112, section 7.1).
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// What a request asks to switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Nothing that is known.
    None,
    /// WebSocket (RFC 6455).
    WebSocket,
    /// HTTP/2 in clear text (RFC 7540, section 3.2).
    Http2,
}

/// An answer's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseHead {
    /// What it says.
    pub(super) response: Response,
    /// How long its body is, if it may have one.
    pub(super) body: Body,
}

/// Whether a message begins here.
pub(super) fn begins(direction: Direction, bytes: &[u8]) -> Verdict {
    match direction {
        Direction::ToServer => begins_request(bytes),
        Direction::ToClient => begins_response(bytes),
    }
}

fn begins_request(bytes: &[u8]) -> Verdict {
    let Some(end) = bytes.iter().position(|byte| !is_method_byte(*byte)) else {
        return if bytes.len() > MAX_METHOD { Verdict::No } else { Verdict::NotYet };
    };
    let (method, rest) = bytes.split_at(end);
    if method.is_empty() || method.len() > MAX_METHOD || rest.first() != Some(&b' ') {
        return Verdict::No;
    }
    let known = METHODS.contains(&method);
    let end = memchr(b'\n', rest);
    let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte >= 0x80 || b" \r".contains(byte);
    if !line.iter().all(is_text) {
        return Verdict::No;
    }
    match end {
        Some(_) => {
            let version = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            if matches!(version, b"HTTP/1.1" | b"HTTP/1.0") { Verdict::Yes } else { Verdict::No }
        }
        // A line whose end was not captured.
        None if known && rest.len() > 1 => Verdict::Yes,
        None => Verdict::NotYet,
    }
}

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

fn begins_response(bytes: &[u8]) -> Verdict {
    let pattern = b"HTTP/1.? ??? ";
    let digit =
        |(byte, pattern): (&u8, &u8)| if *pattern == b'?' { byte.is_ascii_digit() } else { byte == pattern };
    // Some servers leave the reason and the blank before it out.
    let is_end = |byte: &u8| b" \r\n".contains(byte);
    let fits = bytes.iter().zip(pattern).take(pattern.len() - 1).all(digit);
    match bytes.get(pattern.len() - 1) {
        _ if !fits => Verdict::No,
        None => Verdict::NotYet,
        Some(byte) if is_end(byte) => Verdict::Yes,
        Some(_) => Verdict::No,
    }
}

/// The beginning of a head that has more fields than are read, as a head of its own; none: it has not so many.
pub(super) fn cut(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let length = lines.by_ref().take(1 + MAX_FIELDS).map(<[u8]>::len).sum();
    // The empty line is one too.
    lines.nth(1)?;
    Some([bytes.get(..length)?, b"\r\n"].concat())
}

/// Reads a request's head, which ends in an empty line.
pub(super) fn request(bytes: &[u8]) -> Option<(Request, Switch, Body)> {
    // Not written before they are found: that would take longer than to read the head.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    // Browsers send bytes in targets that RFC 3986 does not allow; httparse takes what real servers take.
    if !parsed.parse_with_uninit_headers(bytes, &mut fields).ok()?.is_complete() {
        return None;
    }
    let mut request = Request::new(if parsed.version == Some(0) { "1.0" } else { "1.1" });
    request.field(Field::Method, parsed.method?.as_bytes());
    request.field(Field::Path, parsed.path?.as_bytes());
    let mut frame = Frame::default();
    let mut switch = Switch::None;
    for header in parsed.headers.iter() {
        let Some(field) = Field::of(header.name.as_bytes()) else { continue };
        request.field(field, header.value);
        frame.field(field, header.value);
        if field == Field::Upgrade {
            let has =
                |name: &str| tokens(header.value).any(|token| token.eq_ignore_ascii_case(name.as_bytes()));
            switch = if has("h2c") {
                Switch::Http2
            } else if has("websocket") {
                Switch::WebSocket
            } else {
                switch
            };
        }
    }
    request.complete();
    Some((request, switch, frame.body().unwrap_or(Body::Length(0))))
}

/// Reads an answer's head, which ends in an empty line.
pub(super) fn response(bytes: &[u8]) -> Option<ResponseHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let read = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
    if !read.ok()?.is_complete() {
        return None;
    }
    let mut response = Response::new(parsed.code);
    let mut frame = Frame::default();
    for header in parsed.headers.iter() {
        let Some(field) = Field::of(header.name.as_bytes()) else { continue };
        response.field(field, header.value);
        frame.field(field, header.value);
    }
    Some(ResponseHead { response, body: frame.body().unwrap_or(Body::UntilClose) })
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The fields that say how long a body is (RFC 9112, section 6.3).
#[derive(Default)]
struct Frame {
    length: Option<u64>,
    encoding: Option<bool>,
}

impl Frame {
    fn field(&mut self, field: Field, value: &[u8]) {
        match field {
            // Several equal ones may be a list.
            Field::ContentLength => {
                let first = tokens(value).next().and_then(|token| std::str::from_utf8(token).ok());
                self.length = first.and_then(|text| text.parse().ok());
            }
            Field::TransferEncoding => {
                self.encoding = tokens(value).last().map(|token| token.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
    }

    fn body(&self) -> Option<Body> {
        match (self.encoding, self.length) {
            (Some(true), _) => Some(Body::Chunked),
            (Some(false), _) => Some(Body::UntilClose),
            (None, length) => length.map(Body::Length),
        }
    }
}
