//! HPACK (RFC 7541): header blocks to fields, of which only the known ones are kept.
//!
//! A decoder that came late, or missed a block, does not know the table that the two sides share; entries that are added
//! after that are at the table's front, where their numbers are right. Entries behind those it knows are unknown, and
//! fields that refer to them are left out and reported. It never forgets an entry that the sender may still refer to
//! without that entry becoming unknown, so a field is right or not there.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::http::Field;
use super::huffman;

/// The first index of the dynamic table (section 2.3.3).
const FIRST_DYNAMIC: u64 = 62;
/// Size of the table until the sender says another (section 6.5.2 of RFC 9113).
const DEFAULT_SIZE: usize = 4096;
/// Largest size that is kept to, whatever the sender says.
const MAX_SIZE: usize = 64 << 10;
/// What an entry counts beside its texts (section 4.1).
const ENTRY_SIZE: usize = 32;
/// Longest value that is kept (bytes).
const MAX_VALUE: usize = 4096;
/// Bytes of values of one block that are given: one that refers to a long entry again and again says nothing more.
const MAX_LIST: usize = 256 << 10;
/// Longest name that is compared with those of the known fields (bytes).
const MAX_NAME: usize = 64;

/// What a block refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// A field that is read; the value is none where it is too long.
    Known(Field, Option<Arc<[u8]>>),
    /// One that is not.
    Other,
    /// One that was added when nobody listened, or under such a name.
    Unknown,
}

/// What a block was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// All of it was understood.
    Whole,
    /// Some fields are not known.
    Partial,
    /// It breaks the rules.
    Malformed,
}

/// The table of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first, each with what it counts.
    entries: VecDeque<(Entry, usize)>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: DEFAULT_SIZE }
    }
}

impl Decoder {
    /// Blocks went by unseen.
    pub(super) fn lose(&mut self) {
        self.entries.clear();
        self.size = 0;
    }

    /// Decodes a block, or the part of one that was captured.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        is_whole: bool,
        found: &mut dyn FnMut(Field, &[u8]),
    ) -> Block {
        let mut input = Input(block);
        let mut result = if is_whole { Block::Whole } else { Block::Partial };
        let mut room = MAX_LIST;
        while !input.0.is_empty() {
            let Some(entry) = self.field(&mut input) else {
                self.lose();
                return if is_whole { Block::Malformed } else { Block::Partial };
            };
            match entry {
                Some(Entry::Known(field, Some(value))) if value.len() <= room => {
                    room -= value.len();
                    found(field, &value);
                }
                Some(Entry::Known(..) | Entry::Unknown) => result = Block::Partial,
                Some(Entry::Other) | None => {}
            }
        }
        if !is_whole {
            self.lose();
        }
        result
    }

    /// One representation (section 6): a field, or none where it changes the table's size. None: it breaks the rules.
    fn field(&mut self, input: &mut Input<'_>) -> Option<Option<Entry>> {
        let first = input.peek()?;
        if first & 0x80 != 0 {
            let index = input.number(7)?;
            return Some(Some(self.get(index)?));
        }
        if first & 0xe0 == 0x20 {
            let limit = input.number(5)?;
            self.limit = usize::try_from(limit).unwrap_or(MAX_SIZE).min(MAX_SIZE);
            self.shrink();
            return Some(None);
        }
        let is_indexed = first & 0x40 != 0;
        let index = input.number(if is_indexed { 6 } else { 4 })?;
        let (name, name_size) = if index == 0 {
            let name = input.text()?;
            let decoded = name.decode(MAX_NAME);
            (
                decoded
                    .and_then(|name| Field::of(&name))
                    .map_or(Entry::Other, |field| Entry::Known(field, None)),
                name.0.len(),
            )
        } else {
            (self.get(index)?, 0)
        };
        let value = input.text()?;
        let entry = match name {
            Entry::Known(field, _) => Entry::Known(field, value.decode(MAX_VALUE).map(Into::into)),
            other => other,
        };
        if is_indexed {
            // Names that are referred to count nothing here: an entry may be kept longer than the sender keeps it.
            let size = ENTRY_SIZE + name_size + value.0.len();
            self.entries.push_front((entry.clone(), size));
            self.size += size;
            self.shrink();
        }
        Some(Some(entry))
    }

    fn shrink(&mut self) {
        while self.size > self.limit {
            let Some((_, size)) = self.entries.pop_back() else { return };
            self.size -= size;
        }
    }

    /// An entry of either table. None: there is no entry 0.
    fn get(&self, index: u64) -> Option<Entry> {
        if index == 0 {
            return None;
        }
        let Some(dynamic) = index.checked_sub(FIRST_DYNAMIC) else { return Some(fixed(index)) };
        let entry = usize::try_from(dynamic).ok().and_then(|at| self.entries.get(at));
        Some(entry.map_or(Entry::Unknown, |(entry, _)| entry.clone()))
    }
}

/// An entry of the static table (appendix A).
fn fixed(index: u64) -> Entry {
    let (field, value): (_, &[u8]) = match index {
        1 => (Field::Authority, b""),
        2 => (Field::Method, b"GET"),
        3 => (Field::Method, b"POST"),
        4 => (Field::Path, b"/"),
        5 => (Field::Path, b"/index.html"),
        6 => (Field::Scheme, b"http"),
        7 => (Field::Scheme, b"https"),
        8 => (Field::Status, b"200"),
        9 => (Field::Status, b"204"),
        10 => (Field::Status, b"206"),
        11 => (Field::Status, b"304"),
        12 => (Field::Status, b"400"),
        13 => (Field::Status, b"404"),
        14 => (Field::Status, b"500"),
        28 => (Field::ContentLength, b""),
        31 => (Field::ContentType, b""),
        38 => (Field::Host, b""),
        57 => (Field::TransferEncoding, b""),
        _ => return Entry::Other,
    };
    Entry::Known(field, Some(value.into()))
}

/// A text as it was sent, and whether by the Huffman code.
struct Text<'a>(&'a [u8], bool);

impl Text<'_> {
    /// The text, if it is no longer than `limit`.
    fn decode(&self, limit: usize) -> Option<Vec<u8>> {
        if self.1 {
            huffman::decode(self.0, limit)
        } else {
            Some(self.0.to_vec()).filter(|text| text.len() <= limit)
        }
    }
}

/// The rest of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number that begins with the lowest bits of a byte (section 5.1). None: it ends too soon, or is over 32 bits.
    fn number(&mut self, bits: u32) -> Option<u64> {
        let most = (1_u8 << bits) - 1;
        let low = self.byte()? & most;
        if low < most {
            return Some(low.into());
        }
        let mut number = u64::from(most);
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A string (section 5.2).
    fn text(&mut self) -> Option<Text<'a>> {
        let huffman = self.peek()? & 0x80 != 0;
        let length = usize::try_from(self.number(7)?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Text(text, huffman))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks, one after the other, to the fields that are found.
    fn check(decoder: &mut Decoder, block: &[u8], is_whole: bool, expected: &[(Field, &str)], result: Block) {
        let mut found = Vec::new();
        let got = decoder.decode(block, is_whole, &mut |field, value| {
            found.push((field, String::from_utf8_lossy(value).into_owned()));
        });
        let found: Vec<_> = found.iter().map(|(field, value)| (*field, value.as_str())).collect();
        assert_eq!((found.as_slice(), got), (expected, result), "{block:x?}");
    }

    const FIRST: &[u8] = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    const SECOND: &[u8] = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    const THIRD: &[u8] =
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";

    #[test]
    fn examples_of_the_specification() {
        // Appendix C.4.
        let mut decoder = Decoder::default();
        let http = [
            (Field::Method, "GET"),
            (Field::Scheme, "http"),
            (Field::Path, "/"),
            (Field::Authority, "www.example.com"),
        ];
        check(&mut decoder, FIRST, true, &http, Block::Whole);
        check(&mut decoder, SECOND, true, &http, Block::Whole);
        let https = [(Field::Method, "GET"), (Field::Scheme, "https"), (Field::Path, "/index.html"), http[3]];
        check(&mut decoder, THIRD, true, &https, Block::Whole);
    }

    #[test]
    fn who_comes_late_knows_less() {
        let mut decoder = Decoder::default();
        let known = [(Field::Method, "GET"), (Field::Scheme, "http"), (Field::Path, "/")];
        check(&mut decoder, SECOND, true, &known, Block::Partial);
        check(
            &mut decoder,
            FIRST,
            true,
            &[known[0], known[1], known[2], (Field::Authority, "www.example.com")],
            Block::Whole,
        );
        check(
            &mut decoder,
            &SECOND[..4],
            true,
            &[known[0], known[1], known[2], (Field::Authority, "www.example.com")],
            Block::Whole,
        );
        decoder.lose();
        check(&mut decoder, &SECOND[..4], true, &known, Block::Partial);
    }

    #[test]
    fn entries_are_forgotten() {
        let mut decoder = Decoder::default();
        let authority = [(Field::Authority, "a")];
        check(&mut decoder, b"\x41\x01a", true, &authority, Block::Whole);
        check(&mut decoder, b"\xbe", true, &authority, Block::Whole);
        // The size is set to 0 and back.
        check(&mut decoder, b"\x20\x3f\xe1\x1f\xbe", true, &[], Block::Partial);
    }

    #[test]
    fn a_block_gives_so_much() {
        let mut decoder = Decoder::default();
        // An entry of 4,000 bytes, and a thousand references to it.
        let mut block = b"\x41\x7f\xa1\x1e".to_vec();
        block.resize(block.len() + 4000, b'a');
        block.resize(block.len() + 1000, 0xbe);
        let mut given = 0;
        let result = decoder.decode(&block, true, &mut |_, value| given += value.len());
        assert_eq!((result, given), (Block::Partial, MAX_LIST / 4000 * 4000));
    }

    #[test]
    fn what_breaks_the_rules() {
        let mut decoder = Decoder::default();
        check(&mut decoder, b"\x80", true, &[], Block::Malformed);
        check(&mut decoder, b"\x41\x05a", true, &[], Block::Malformed);
        check(&mut decoder, b"\x41\x05a", false, &[], Block::Partial);
        check(&mut decoder, b"\xff\xff\xff\xff\xff\xff\xff", true, &[], Block::Malformed);
        check(&mut decoder, b"\x82\x40", false, &[(Field::Method, "GET")], Block::Partial);
    }
}
