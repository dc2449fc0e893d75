//! WebSocket (RFC 6455) after an upgrade: frames and their bytes are counted, nothing of them is kept.

use super::super::Direction;
use super::super::http::add;
use crate::span::{Attribute, Value};

/// The opcode of a close frame (section 5.2).
const CLOSE: u8 = 8;
/// Bytes of a frame's header at most: 2, 8 of length, 4 of mask.
const MAX_HEADER: usize = 14;

/// Both directions.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    client: Side,
    server: Side,
}

#[derive(Debug, Default)]
struct Side {
    header: Vec<u8>,
    left: u64,
    frames: u64,
    bytes: u64,
    closed: bool,
    lost: bool,
}

impl WebSocket {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::ToServer => &mut self.client,
            Direction::ToClient => &mut self.server,
        }
    }

    /// Takes bytes; says whether both sides have closed.
    pub(super) fn data(&mut self, direction: Direction, bytes: &[u8]) -> bool {
        self.side(direction).data(bytes);
        self.client.closed && self.server.closed
    }

    /// Bytes that were not captured.
    pub(super) fn skip(&mut self, direction: Direction, bytes: u64) {
        let side = self.side(direction);
        match side.left.checked_sub(bytes) {
            Some(left) => side.left = left,
            None => side.lost = true,
        }
    }

    /// What was counted. Nothing of a direction in which frames went by unseen.
    pub(super) fn describe(&self, attributes: &mut Vec<Attribute>) {
        add(attributes, "network.protocol.name", Value::Static("websocket"));
        let names = [
            ("descry.websocket.to_server.frames", "descry.websocket.to_server.bytes"),
            ("descry.websocket.to_client.frames", "descry.websocket.to_client.bytes"),
        ];
        for ((frames, bytes), side) in names.into_iter().zip([&self.client, &self.server]) {
            if !side.lost {
                add(attributes, frames, Value::Int(side.frames.try_into().unwrap_or(i64::MAX)));
                add(attributes, bytes, Value::Int(side.bytes.try_into().unwrap_or(i64::MAX)));
            }
        }
    }
}

impl Side {
    fn data(&mut self, mut bytes: &[u8]) {
        // Nothing follows a close frame (section 5.5.1).
        while !bytes.is_empty() && !self.lost && !self.closed {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.header.push(*byte);
            bytes = rest;
            if let Some((opcode, length)) = header(&self.header) {
                self.header.clear();
                self.frames += 1;
                self.bytes = self.bytes.saturating_add(length);
                self.left = length;
                self.closed |= opcode == CLOSE;
            } else if self.header.len() >= MAX_HEADER {
                self.lost = true;
            }
        }
    }
}

/// Opcode and length of the payload, once the header is whole.
fn header(bytes: &[u8]) -> Option<(u8, u64)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, taken) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        short => (u64::from(short), 0),
    };
    (rest.len() >= taken + mask).then_some((first & 0xf, length))
}
