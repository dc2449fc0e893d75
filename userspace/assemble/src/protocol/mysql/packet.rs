//! Packets and what stands in them ("Protocol Basics", "Connection Phase", "Generic Response Packets").

use crate::protocol::Direction;
use crate::protocol::frame::Frame;
use crate::sql::MAX_INPUT;

/// Length (3 bytes) and sequence number.
pub(super) const HEADER: usize = 4;
/// The payload of a packet that goes on in the next one.
pub(super) const FULL: u64 = 0xff_ffff;
/// Kept of an answer's packet (bytes): its kind, numbers and flags, an error's code.
const KEEP_ANSWER: usize = 128;
/// Capabilities ("Capabilities Flags").
pub(super) const COMPRESS: u32 = 1 << 5;
pub(super) const CONNECT_WITH_DB: u32 = 1 << 3;
pub(super) const SSL: u32 = 1 << 11;
pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
pub(super) const PROTOCOL_41: u32 = 1 << 9;
pub(super) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
pub(super) const ZSTD: u32 = 1 << 26;
pub(super) const QUERY_ATTRIBUTES: u32 = 1 << 27;

/// What begins with these bytes. Any bytes are a packet: `length` 0 is one, too.
pub(super) fn frame(direction: Direction, head: &[u8]) -> Frame {
    let Some(length) = head.first_chunk::<HEADER>().map(length) else { return Frame::Partial };
    let keep = if direction == Direction::ToServer { MAX_INPUT + 64 } else { KEEP_ANSWER };
    Frame::Message { length: HEADER as u64 + length, keep }
}

fn length(header: &[u8; HEADER]) -> u64 {
    let [low, middle, high, _] = *header;
    u64::from(low) | u64::from(middle) << 8 | u64::from(high) << 16
}

/// Whether packets follow one another in these bytes from their beginning on, numbered from `first` on; the last
/// may be cut off.
pub(super) fn is_chain(bytes: &[u8], first: u8) -> bool {
    let (mut at, mut number) = (0_usize, first);
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
        if header[HEADER - 1] != number {
            return false;
        }
        number = number.wrapping_add(1);
        at = at.saturating_add(HEADER + usize::try_from(length(header)).unwrap_or(usize::MAX - HEADER));
    }
    at > 0
}

/// A number in as many bytes as it needs ("length-encoded integer"), and what is behind it.
pub(super) fn lenenc(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xfb | 0xff => return None,
        small => return Some((u64::from(*small), rest)),
    };
    let (number, rest) = rest.split_at_checked(width)?;
    Some((number.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Bytes up to a zero, and what is behind it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// The server's first packet ("Protocol::HandshakeV10").
pub(super) struct Greeting {
    pub is_mariadb: bool,
    pub capabilities: u32,
    pub status: Option<u16>,
}

pub(super) fn greeting(payload: &[u8]) -> Option<Greeting> {
    const VERSION: u8 = 10;
    let (_, rest) = payload.split_first().filter(|(version, _)| **version == VERSION)?;
    let (version, rest) = text(rest)?;
    // Thread id (4), half of the challenge (8), a zero; then flags (2), character set (1), status (2), flags (2).
    let (low, high) = (u16_at(rest, 13)?, u16_at(rest, 18).unwrap_or_default());
    Some(Greeting {
        is_mariadb: version.windows(7).any(|part| part.eq_ignore_ascii_case(b"mariadb")),
        capabilities: u32::from(low) | u32::from(high) << 16,
        status: u16_at(rest, 16),
    })
}

/// The client's answer to it ("Protocol::HandshakeResponse41", "Protocol::SSLRequest").
pub(super) struct Login<'a> {
    pub capabilities: u32,
    pub database: Option<&'a [u8]>,
}

pub(super) fn login(payload: &[u8]) -> Option<Login<'_>> {
    let capabilities = u32_at(payload, 0).filter(|flags| flags & PROTOCOL_41 != 0)?;
    Some(Login { capabilities, database: database(payload, capabilities) })
}

fn database(payload: &[u8], capabilities: u32) -> Option<&[u8]> {
    let has = |flag| capabilities & flag != 0;
    // Flags (4), largest packet (4), character set (1), zeros (23).
    let (_, rest) = text(payload.get(32..)?)?;
    let rest = if has(PLUGIN_AUTH_LENENC) {
        let (length, rest) = lenenc(rest)?;
        rest.get(usize::try_from(length).ok()?..)?
    } else if has(SECURE_CONNECTION) {
        let (length, rest) = rest.split_first()?;
        rest.get(usize::from(*length)..)?
    } else {
        text(rest)?.1
    };
    text(rest).filter(|_| has(CONNECT_WITH_DB)).map(|(name, _)| name).filter(|name| !name.is_empty())
}

/// The text of a `COM_QUERY`; none: it is behind parameters ("Query Attributes").
pub(super) fn query(body: &[u8], capabilities: Option<u32>) -> Option<&[u8]> {
    let has_attributes = capabilities.map(|flags| flags & QUERY_ATTRIBUTES != 0);
    match (body, has_attributes) {
        (body, Some(false)) => Some(body),
        // No parameter, in one set. No text begins with a zero.
        ([0, 1, text @ ..], _) => Some(text),
        (body, None) => Some(body).filter(|body| body.first().is_some_and(|first| *first >= b'\t')),
        _ => None,
    }
}
