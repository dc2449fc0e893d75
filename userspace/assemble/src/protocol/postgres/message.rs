//! Messages: their lengths, and the fields of those that matter (section 55.7, "Message Formats").

use crate::protocol::Direction;
use crate::protocol::frame::Frame;
use crate::sql::MAX_INPUT;

/// Type and length.
pub(super) const HEADER: usize = 5;
/// Codes in the place of a protocol's version.
pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSS_REQUEST: u32 = 80_877_104;
pub(super) const CANCEL_REQUEST: u32 = 80_877_102;
/// The major version in the upper half.
const MAJOR: u32 = 3;
/// TLS's record type of a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// `MAX_STARTUP_PACKET_LENGTH` (libpq/pqcomm.h).
const MAX_STARTUP: u32 = 10_000;
/// The largest message that the server makes or takes (`PQ_LARGE_MESSAGE_LIMIT`, libpq/libpq.h: 1 GiB less 1).
const MAX_LENGTH: u32 = 0x3fff_ffff;
/// Kept of a start-up message (bytes): user and database come early in what clients send.
const KEEP_STARTUP: usize = 1024;
/// Kept of messages that name something (bytes): a name has at most 63 (`NAMEDATALEN`).
const KEEP_NAMES: usize = 256;

/// What begins with these bytes.
pub(super) fn frame(direction: Direction, head: &[u8], awaits_byte: bool) -> Frame {
    let Some(kind) = head.first().copied() else { return Frame::Partial };
    if awaits_byte && direction == Direction::ToClient {
        return Frame::Message { length: 1, keep: 1 };
    }
    if direction == Direction::ToServer && matches!(kind, 0 | TLS_HANDSHAKE) {
        return if kind == 0 { startup(head) } else { Frame::Message { length: 1, keep: 1 } };
    }
    let Some(length) = head.get(1..HEADER).and_then(number) else {
        return if is_kind(direction, kind) { Frame::Partial } else { Frame::Nonsense };
    };
    if !is_kind(direction, kind) || !is_length(direction, kind, length) {
        return Frame::Nonsense;
    }
    let keep = match (direction, kind) {
        (Direction::ToServer, b'Q' | b'P') => MAX_INPUT + KEEP_NAMES,
        (Direction::ToServer, b'B' | b'E' | b'C') | (Direction::ToClient, b'E' | b'S') => KEEP_NAMES,
        (Direction::ToClient, b'Z') => HEADER + 1,
        _ => HEADER,
    };
    Frame::Message { length: u64::from(length) + 1, keep }
}

fn startup(head: &[u8]) -> Frame {
    let (Some(length), Some(code)) = (head.get(..4).and_then(number), head.get(4..8).and_then(number)) else {
        return Frame::Partial;
    };
    let known = code >> 16 == MAJOR || matches!(code, SSL_REQUEST | GSS_REQUEST | CANCEL_REQUEST);
    if known && (8..=MAX_STARTUP).contains(&length) {
        Frame::Message { length: u64::from(length), keep: KEEP_STARTUP }
    } else {
        Frame::Nonsense
    }
}

fn is_kind(direction: Direction, kind: u8) -> bool {
    match direction {
        Direction::ToServer => b"QPBDESCFHXdcfp".contains(&kind),
        Direction::ToClient => b"RKSEZNTDCI123tnsGHWdcAVv".contains(&kind),
    }
}

/// Whether a message of this kind can have this length (which counts itself, not the kind).
fn is_length(direction: Direction, kind: u8, length: u32) -> bool {
    match (direction, kind) {
        (Direction::ToServer, b'S' | b'H' | b'X' | b'c') => length == 4,
        (Direction::ToClient, b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c') => length == 4,
        (Direction::ToClient, b'Z') => length == 5,
        (Direction::ToClient, b'K') => (12..=268).contains(&length),
        _ => (4..=MAX_LENGTH).contains(&length),
    }
}

/// Whether messages follow one another in these bytes from their beginning on; the last may be cut off.
pub(super) fn is_chain(direction: Direction, bytes: &[u8]) -> bool {
    let mut at = 0_usize;
    let mut messages = 0_usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match frame(direction, rest, false) {
            Frame::Message { length, .. } => {
                messages += 1;
                at = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            }
            Frame::Partial => break,
            Frame::Nonsense => return false,
        }
    }
    messages > 0
}

/// Whether a `ReadyForQuery` ends these bytes: what comes next is the beginning of a message.
pub(super) fn ends_ready(bytes: &[u8]) -> bool {
    matches!(bytes, [.., b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E'])
}

/// A number of 4 bytes, in network byte order.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Text up to its zero, and what is behind that; none: the zero is not there.
pub(super) fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// User and database of a start-up message, as far as they are there.
pub(super) fn parameters(mut bytes: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let (mut user, mut database) = (None, None);
    while let Some((name, rest)) = text(bytes).filter(|(name, _)| !name.is_empty()) {
        let Some((value, rest)) = text(rest) else { break };
        match name {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            _ => {}
        }
        bytes = rest;
    }
    (user, database)
}

/// The code of an `ErrorResponse` (section 55.8, field `C`): five letters or digits.
pub(super) fn sql_state(mut fields: &[u8]) -> Option<[u8; 5]> {
    while let Some((field, rest)) = text(fields) {
        if let [b'C', code @ ..] = field {
            let code: [u8; 5] = code.try_into().ok()?;
            return code.iter().all(u8::is_ascii_alphanumeric).then_some(code);
        }
        fields = rest;
    }
    None
}
