//! A request as it waits, and as a record of the spool. Pure.

use bytes::{BufMut, Bytes};

use crate::signal::Signal;

/// The signals that can wait, each with its number in records. A number is never given to another signal.
pub const SIGNALS: [(u8, Signal); 4] =
    [(1, Signal::PROFILES), (2, Signal::METRICS), (3, Signal::TRACES), (4, Signal::LOGS)];

/// Bytes of a payload before the request: signal, items.
const PAYLOAD_HEADER: usize = 1 + 8;
/// Bytes of a record before its payload: length, checksum, state.
pub(crate) const RECORD_HEADER: usize = 4 + 4 + 1;
/// Where in a record its state is.
pub(crate) const STATE_OFFSET: u64 = 8;
/// The states: it waits, or it is done with.
const WAITING: u8 = 0;
pub(crate) const DONE: u8 = 1;
/// Bytes of a payload at most: twice the largest request that receivers take.
const MAX_PAYLOAD: usize = 8 << 20;
/// Items of a request at most, so that sums of them stay far from their end: each item takes a byte or more.
const MAX_ITEMS: u64 = MAX_PAYLOAD as u64;

/// An encoded request that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is in it.
    pub signal: Signal,
    /// How many items, in the unit in which receivers count rejected ones.
    pub items: u64,
    /// The export request in protobuf's encoding.
    pub body: Bytes,
}

/// What is at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A record of this length.
    Record { request: Request, length: usize, done: bool },
    /// The end.
    End,
    /// No whole record.
    Damaged,
}

/// ```text
/// length   u32 LE   of the payload
/// checksum u32 LE   CRC-32 (IEEE) of the length and the payload
/// state    u8       0 waits, 1 done with; not part of the checksum
/// payload           signal u8, items u64 LE, the request
/// ```
pub(crate) fn encode(request: &Request) -> Option<Vec<u8>> {
    let (number, _) = SIGNALS.iter().find(|(_, signal)| *signal == request.signal)?;
    let length = PAYLOAD_HEADER + request.body.len();
    let is_sound = length <= MAX_PAYLOAD && request.items <= MAX_ITEMS;
    let length = u32::try_from(length).ok().filter(|_| is_sound)?;
    let mut payload = Vec::with_capacity(length as usize);
    payload.put_u8(*number);
    payload.put_u64_le(request.items);
    payload.put_slice(&request.body);
    let mut record = Vec::with_capacity(RECORD_HEADER + payload.len());
    record.put_u32_le(length);
    record.put_u32_le(checksum(length, &payload));
    record.put_u8(WAITING);
    record.put_slice(&payload);
    Some(record)
}

/// The length of the payload that a record header tells; `None`: none that was ever written.
pub(crate) fn payload_length(header: &[u8; RECORD_HEADER]) -> Option<usize> {
    let [a, b, c, d, ..] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    (PAYLOAD_HEADER..=MAX_PAYLOAD).contains(&length).then_some(length)
}

/// Reads a record from its header and its payload.
pub(crate) fn decode(header: &[u8; RECORD_HEADER], payload: &[u8]) -> Read {
    let [a, b, c, d, e, f, g, h, state] = *header;
    let length = u32::from_le_bytes([a, b, c, d]);
    if length as usize != payload.len()
        || checksum(length, payload) != u32::from_le_bytes([e, f, g, h])
        || state > DONE
    {
        return Read::Damaged;
    }
    let request = (|| {
        let (number, rest) = payload.split_first()?;
        let (items, body) = rest.split_first_chunk()?;
        let (_, signal) = SIGNALS.iter().find(|(known, _)| known == number)?;
        let items = Some(u64::from_le_bytes(*items)).filter(|items| *items <= MAX_ITEMS)?;
        Some(Request { signal: *signal, items, body: Bytes::copy_from_slice(body) })
    })();
    match request {
        Some(request) => Read::Record { request, length: RECORD_HEADER + payload.len(), done: state == DONE },
        None => Read::Damaged,
    }
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
