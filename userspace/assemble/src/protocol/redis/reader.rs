//! Values out of the bytes of one direction.
//!
//! Of a value only what tells it apart is kept: its kind, and the first bytes of its first elements. Strings may be
//! cut or lost in part, since their lengths come before them.

use descry_decode::ids::BootNanos;
use memchr::memchr;

use crate::protocol::Direction;

/// Kept of a line (bytes).
const MAX_LINE: usize = 128;
/// An inline command that goes on for longer is none (`PROTO_INLINE_MAX_SIZE`, server.h).
const MAX_INLINE: usize = 65_536;
/// Kept of an element (bytes): commands, digests (40), kinds of messages.
const MAX_WORD: usize = 48;
/// Elements that are kept.
const MAX_WORDS: usize = 3;
/// Aggregates inside of each other. Redis itself nests about 10.
const MAX_LEVELS: usize = 128;
/// Longest string (bytes): twice the default of `proto-max-bulk-len`.
const MAX_BULK: u64 = 1 << 30;
/// Most elements of an aggregate (`proto` limits a command to this many, networking.c).
const MAX_ELEMENTS: u64 = i32::MAX as u64;
/// TLS's record type of a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A whole value.
#[derive(Debug)]
pub(super) struct Value {
    pub direction: Direction,
    pub start: BootNanos,
    pub end: BootNanos,
    /// The character that its kind begins with; a command's is `*` also if it is an inline one.
    pub kind: u8,
    /// How many elements it has.
    pub count: u64,
    /// The first bytes of its first elements, or its own; empty for those that were lost or are aggregates.
    pub words: Vec<Vec<u8>>,
    /// It is no value but the beginning of TLS.
    pub is_tls: bool,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: u64,
    /// Out of band: what is in it does not count as elements.
    is_attribute: bool,
}

/// A string whose bytes go by.
#[derive(Debug)]
struct Bulk {
    /// Bytes that are still to come, the line's end counted.
    left: u64,
    word: Vec<u8>,
    lost: bool,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Reader {
    direction: Direction,
    levels: Vec<Level>,
    line: Vec<u8>,
    /// The line's true length.
    passed: usize,
    bulk: Option<Bulk>,
    value: Option<Value>,
    start: BootNanos,
    astray: bool,
    was_in_place: bool,
}

/// The bytes are no value.
struct Nonsense;

impl Reader {
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            levels: Vec::new(),
            line: Vec::new(),
            passed: 0,
            bulk: None,
            value: None,
            start: BootNanos(0),
            astray: false,
            was_in_place: false,
        }
    }

    pub fn is_astray(&self) -> bool {
        self.astray
    }

    /// Whether the next byte begins a value.
    pub fn is_between(&self) -> bool {
        !self.astray
            && self.levels.is_empty()
            && self.bulk.is_none()
            && self.value.is_none()
            && self.passed == 0
    }

    pub fn was_in_place(&self) -> bool {
        self.was_in_place
    }

    /// A value begins with the next byte.
    pub fn found(&mut self) {
        self.astray = false;
    }

    /// Whether a value begins with these bytes. `fresh`: they are the first since the other side spoke.
    pub fn begins(&self, bytes: &[u8], fresh: bool) -> bool {
        let is_command = self.direction == Direction::ToServer && bytes.first() == Some(&b'*');
        let mut trial = Self::new(self.direction);
        !bytes.is_empty() && (fresh || is_command) && trial.bytes(bytes, BootNanos(0), |_| {})
    }

    /// Takes bytes, and hands on the values that they complete. False: they make no sense, and the place is lost.
    pub fn bytes(&mut self, mut bytes: &[u8], time: BootNanos, mut sink: impl FnMut(Value)) -> bool {
        while let Some(first) = bytes.first() {
            if self.levels.is_empty() && self.value.is_none() && self.passed == 0 && self.bulk.is_none() {
                self.start = time;
                if *first == TLS_HANDSHAKE && self.direction == Direction::ToServer {
                    self.value = Some(Value { is_tls: true, ..self.empty(b'*', time) });
                    self.finish(time, &mut sink);
                    return true;
                }
            }
            if self.bulk.is_some() {
                bytes = self.string(bytes, time, &mut sink);
                continue;
            }
            let end = memchr(b'\n', bytes);
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            let room = MAX_LINE.saturating_sub(self.line.len()).min(part.len());
            self.line.extend(part.iter().take(room));
            self.passed += part.len();
            bytes = rest;
            if self.passed > MAX_INLINE {
                self.stray();
                return false;
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                self.passed = 0;
                if self.take_line(line.trim_ascii_end(), time, &mut sink).is_err() {
                    self.stray();
                    return false;
                }
                self.line = line;
                self.line.clear();
            }
        }
        true
    }

    /// Bytes that nobody saw: harmless inside of a string.
    pub fn gap(&mut self, bytes: u64, time: BootNanos, mut sink: impl FnMut(Value)) {
        match &mut self.bulk {
            Some(bulk) if bytes <= bulk.left => {
                bulk.left -= bytes;
                bulk.lost |= bulk.word.len() < MAX_WORD;
                if bulk.left == 0 {
                    self.string_done(time, &mut sink);
                }
            }
            _ => self.stray(),
        }
    }

    fn stray(&mut self) {
        *self = Self { astray: true, was_in_place: self.was_in_place, ..Self::new(self.direction) };
    }

    fn empty(&self, kind: u8, time: BootNanos) -> Value {
        Value {
            direction: self.direction,
            start: self.start,
            end: time,
            kind,
            count: 0,
            words: Vec::new(),
            is_tls: false,
        }
    }

    fn string<'a>(&mut self, bytes: &'a [u8], time: BootNanos, sink: &mut impl FnMut(Value)) -> &'a [u8] {
        let Some(bulk) = &mut self.bulk else { return bytes };
        let taken = usize::try_from(bulk.left).unwrap_or(usize::MAX).min(bytes.len());
        let (taken, rest) = bytes.split_at(taken);
        if !bulk.lost {
            // The line's end is no part of the string.
            let text = usize::try_from(bulk.left.saturating_sub(2)).unwrap_or(usize::MAX);
            let room = MAX_WORD.saturating_sub(bulk.word.len()).min(text);
            bulk.word.extend(taken.iter().take(room));
        }
        bulk.left -= taken.len() as u64;
        if bulk.left == 0 {
            self.string_done(time, sink);
        }
        rest
    }

    fn string_done(&mut self, time: BootNanos, sink: &mut impl FnMut(Value)) {
        let Some(bulk) = self.bulk.take() else { return };
        self.word(if bulk.lost { Vec::new() } else { bulk.word });
        self.element(time, sink);
    }

    fn take_line(
        &mut self,
        line: &[u8],
        time: BootNanos,
        sink: &mut impl FnMut(Value),
    ) -> Result<(), Nonsense> {
        let at_top = self.levels.is_empty();
        let is_command = self.direction == Direction::ToServer;
        let Some((kind, rest)) = line.split_first() else {
            // Redis passes over empty lines between commands.
            return if is_command && at_top { Ok(()) } else { Err(Nonsense) };
        };
        if is_command && !(at_top && *kind == b'*') {
            return if at_top { self.inline(line, time, sink) } else { self.argument(*kind, rest) };
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' if !is_command => {
                self.begin(*kind, 0, time);
                self.word(rest.get(..MAX_WORD.min(rest.len())).unwrap_or_default().to_vec());
                self.element(time, sink);
            }
            b'$' | b'!' | b'=' if !is_command => match length(rest)? {
                Some(length) => {
                    self.begin(*kind, 0, time);
                    self.bulk(length)?;
                }
                None => {
                    self.begin(b'_', 0, time);
                    self.word(Vec::new());
                    self.element(time, sink);
                }
            },
            b'*' | b'~' | b'>' | b'%' | b'|' if *kind == b'*' || !is_command => {
                let is_attribute = *kind == b'|';
                let pairs = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                let Some(count) = length(rest)?.filter(|count| *count > 0) else {
                    if !is_attribute && !is_command {
                        self.begin(*kind, 0, time);
                        self.word(Vec::new());
                        self.element(time, sink);
                    }
                    return Ok(());
                };
                if count > MAX_ELEMENTS || self.levels.len() >= MAX_LEVELS {
                    return Err(Nonsense);
                }
                if !is_attribute {
                    self.begin(*kind, count, time);
                }
                self.levels.push(Level { left: count * pairs, is_attribute });
            }
            _ => return Err(Nonsense),
        }
        Ok(())
    }

    /// A command's argument: each is a string.
    fn argument(&mut self, kind: u8, rest: &[u8]) -> Result<(), Nonsense> {
        let length = length(rest)?.filter(|_| kind == b'$').ok_or(Nonsense)?;
        self.bulk(length)
    }

    fn bulk(&mut self, length: u64) -> Result<(), Nonsense> {
        if length > MAX_BULK {
            return Err(Nonsense);
        }
        self.bulk = Some(Bulk { left: length + 2, word: Vec::new(), lost: false });
        Ok(())
    }

    fn inline(&mut self, line: &[u8], time: BootNanos, sink: &mut impl FnMut(Value)) -> Result<(), Nonsense> {
        if !line.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(Nonsense);
        }
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let count = words.clone().count() as u64;
        let words = words.take(MAX_WORDS).map(|word| word.iter().copied().take(MAX_WORD).collect()).collect();
        self.value = Some(Value { count, words, ..self.empty(b'*', time) });
        self.finish(time, sink);
        Ok(())
    }

    /// A value begins, if none has.
    fn begin(&mut self, kind: u8, count: u64, time: BootNanos) {
        if self.value.is_none() && !self.levels.iter().any(|level| level.is_attribute) {
            self.value = Some(Value { count, ..self.empty(kind, time) });
        } else if self.levels.len() == 1 && count > 0 {
            // An aggregate as an element.
            self.word(Vec::new());
        }
    }

    /// Keeps an element of the outermost aggregate, or the value itself.
    fn word(&mut self, word: Vec<u8>) {
        let in_attribute = self.levels.iter().any(|level| level.is_attribute);
        if let Some(value) = &mut self.value
            && self.levels.len() <= 1
            && !in_attribute
            && value.words.len() < MAX_WORDS
        {
            value.words.push(word);
        }
    }

    /// An element is complete; the value too, if it was the last.
    fn element(&mut self, time: BootNanos, sink: &mut impl FnMut(Value)) {
        while let Some(level) = self.levels.last_mut() {
            level.left = level.left.saturating_sub(1);
            if level.left > 0 {
                return;
            }
            let is_attribute = level.is_attribute;
            self.levels.pop();
            if is_attribute {
                return;
            }
        }
        self.finish(time, sink);
    }

    fn finish(&mut self, time: BootNanos, sink: &mut impl FnMut(Value)) {
        self.was_in_place = true;
        if let Some(mut value) = self.value.take() {
            value.end = time;
            sink(value);
        }
    }
}

/// A length; none: there is nothing (-1).
fn length(digits: &[u8]) -> Result<Option<u64>, Nonsense> {
    if digits == b"-1" {
        return Ok(None);
    }
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Nonsense);
    }
    Ok(Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}
