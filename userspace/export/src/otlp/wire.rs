//! Protobuf's wire format, as far as writing straight to bytes needs it (protobuf.dev, "Encoding").
//!
//! Tags are given as bytes, so only fields 1 to 15 can be written with one; see [`key`] and [`wide_key`].

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// The key of a field whose number is at most 15.
pub const fn key(field: u8, wire_type: WireType) -> u8 {
    assert!(field >= 1 && field <= 15);
    (field << 3) | wire_type as u8
}

/// The key of a field whose number is from 16 to 2047: a varint of two bytes.
pub const fn wide_key(field: u16, wire_type: WireType) -> [u8; 2] {
    assert!(field >= 16 && field <= 2047);
    let key = (field << 3) | wire_type as u16;
    [(key & 0x7f) as u8 | 0x80, (key >> 7) as u8]
}

/// Bytes of a field of bytes, text or a message of so many bytes, with a key of one byte.
pub fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A field of a number (`int64`, `enum`, `bool`).
pub fn number(out: &mut Vec<u8>, key: u8, number: u64) {
    out.push(key);
    varint(out, number);
}

/// A number as a varint. Most take one byte, and the loop is what costs.
fn varint(out: &mut Vec<u8>, number: u64) {
    match number {
        0..0x80 => out.push(number as u8),
        _ => encode_varint(number, out),
    }
}

/// The key and the length of a field whose content follows.
pub fn delimited(out: &mut Vec<u8>, key: u8, len: usize) {
    out.push(key);
    varint(out, len as u64);
}

/// A field of bytes or text.
pub fn bytes(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    delimited(out, key, content.len());
    out.extend_from_slice(content);
}

/// As [`bytes`]; nothing where the text is the default, which is empty.
pub fn text(out: &mut Vec<u8>, key: u8, text: &str) {
    if !text.is_empty() {
        bytes(out, key, text.as_bytes());
    }
}

/// A field of eight bytes (`fixed64`, `double`); nothing where all its bits are zero.
pub fn fixed64(out: &mut Vec<u8>, key: u8, number: u64) {
    if number != 0 {
        out.push(key);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// A message whose length is known when it has been written. One of less than 128 bytes is written in place, a longer one
/// is moved on by the bytes that its length takes.
pub fn message(out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>)) {
    message_behind(1, out, key, write);
}

/// The same, where one of 128 to 16,383 bytes is written in place.
pub fn long_message(out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>)) {
    message_behind(2, out, key, write);
}

/// A message with room for a length of so many bytes before it.
fn message_behind(room: usize, out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(key);
    let place = out.len();
    out.resize(place + room, 0);
    write(out);
    let len = out.len() - place - room;
    let taken = encoded_len_varint(len as u64);
    if taken != room {
        out.resize(place + taken.max(room) + len, 0);
        out.copy_within(place + room..place + room + len, place + taken);
        out.truncate(place + taken + len);
    }
    if let Some(mut length) = out.get_mut(place..place + taken) {
        encode_varint(len as u64, &mut length);
    }
}
