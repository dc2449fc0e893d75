//! One direction of a TCP connection: segments in any order to bytes in theirs.
//!
//! Segments may come late, twice, overlapping, or never. Later ones wait for a missing one until there are too many of
//! them, or until it is proven that the receiver has it; then what is missing is a gap.

use std::collections::BTreeMap;

use descry_decode::ids::BootNanos;

/// Segments that wait.
const MAX_WAITING: usize = 256;
/// Bytes that wait.
const MAX_WAITING_BYTES: usize = 256 << 10;
/// Bytes that a segment may be ahead by and still be waited for. One that is further ahead comes after a longer loss.
const MAX_AHEAD: u64 = 16 << 20;

/// Bytes in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// When they were sent.
    pub(super) time: BootNanos,
    /// Bytes before them that are missing; [`u64::MAX`]: it is not known how many.
    pub(super) gap_before: u64,
    /// What was captured.
    pub(super) bytes: &'a [u8],
    /// Bytes behind that were not captured.
    pub(super) cut: u64,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// The number of the first byte; none: nothing was seen.
    first: Option<u32>,
    /// Bytes since then that were delivered or given up.
    offset: u64,
    /// The gap before the next byte that was not told yet.
    gap: u64,
    /// Segments that wait, by where they begin.
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    /// Where the last byte is.
    end: Option<u64>,
    /// Segments that had come before.
    duplicates: u64,
}

#[derive(Debug)]
struct Waiting {
    time: BootNanos,
    bytes: Box<[u8]>,
    length: u64,
}

impl Half {
    /// The connection opens with this number.
    pub(super) fn open(&mut self, sequence: u32) {
        self.first = Some(sequence.wrapping_add(1));
    }

    /// Whether it opened with this number.
    pub(super) fn is_opened_by(&self, sequence: u32) -> bool {
        self.first == Some(sequence.wrapping_add(1))
    }

    /// Bytes that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Segments that had come before.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Whether all bytes came, and the end.
    pub(super) fn is_ended(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }

    /// How far a number is ahead of the next byte that is expected; negative: behind it.
    fn ahead(&mut self, sequence: u32) -> i64 {
        let first = *self.first.get_or_insert_with(|| {
            self.gap = u64::MAX;
            sequence
        });
        let expected = first.wrapping_add(self.offset as u32);
        i64::from(sequence.wrapping_sub(expected) as i32)
    }

    /// The last byte is before this number.
    pub(super) fn end(&mut self, sequence: u32) {
        let ahead = self.ahead(sequence);
        self.end = self.end.or(Some(self.offset.saturating_add_signed(ahead)));
    }

    /// A segment of `length` bytes, of which `bytes` were captured.
    pub(super) fn push(
        &mut self,
        sequence: u32,
        time: BootNanos,
        bytes: &[u8],
        length: u32,
        deliver: &mut dyn FnMut(Piece<'_>),
    ) {
        let (mut bytes, mut length) = (bytes, u64::from(length));
        let ahead = self.ahead(sequence);
        let old = if ahead < 0 { ahead.unsigned_abs() } else { 0 };
        if old >= length {
            self.duplicates += 1;
            return;
        }
        bytes = bytes.get(usize::try_from(old).unwrap_or(usize::MAX)..).unwrap_or_default();
        length -= old;
        let position = self.offset.saturating_add_signed(ahead.max(0));
        if position > self.offset + MAX_AHEAD {
            self.flush(deliver);
            self.skip_to(position);
        }
        if position == self.offset {
            self.deliver(time, bytes, length, deliver);
            self.contiguous(deliver);
            return;
        }
        let longer = self.waiting.get(&position).is_none_or(|known| known.length < length);
        if longer {
            self.waiting_bytes += bytes.len();
            let old = self.waiting.insert(position, Waiting { time, bytes: bytes.into(), length });
            self.waiting_bytes -= old.map_or(0, |old| old.bytes.len());
        } else {
            self.duplicates += 1;
        }
        while self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            self.give_up(deliver);
        }
    }

    /// The other side has everything before this number: what did not come was not captured.
    pub(super) fn acknowledged(
        &mut self,
        sequence: u32,
        time: BootNanos,
        deliver: &mut dyn FnMut(Piece<'_>),
    ) {
        let ahead = self.ahead(sequence);
        if !(0..=MAX_AHEAD as i64).contains(&ahead) {
            return;
        }
        // The end of a direction has a number too.
        let position = self.offset.saturating_add_signed(ahead).min(self.end.unwrap_or(u64::MAX));
        while self.offset < position {
            match self.waiting.first_key_value() {
                Some((first, _)) if *first <= position => self.give_up(deliver),
                _ => {
                    self.skip_to(position);
                    self.deliver(time, &[], 0, deliver);
                }
            }
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn flush(&mut self, deliver: &mut dyn FnMut(Piece<'_>)) {
        while !self.waiting.is_empty() {
            self.give_up(deliver);
        }
    }

    /// What is missing before the first segment that waits is a gap.
    fn give_up(&mut self, deliver: &mut dyn FnMut(Piece<'_>)) {
        if let Some(first) = self.waiting.first_key_value().map(|(first, _)| *first) {
            self.skip_to(first);
        }
        self.contiguous(deliver);
    }

    fn skip_to(&mut self, position: u64) {
        self.gap = self.gap.saturating_add(position.saturating_sub(self.offset));
        self.offset = position.max(self.offset);
    }

    /// Delivers the segments that were waited with.
    fn contiguous(&mut self, deliver: &mut dyn FnMut(Piece<'_>)) {
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > self.offset {
                return;
            }
            let (position, Waiting { time, bytes, length }) = first.remove_entry();
            self.waiting_bytes -= bytes.len();
            let old = self.offset - position;
            if old < length {
                let rest = bytes.get(usize::try_from(old).unwrap_or(usize::MAX)..).unwrap_or_default();
                self.deliver(time, rest, length - old, deliver);
            }
        }
    }

    fn deliver(&mut self, time: BootNanos, bytes: &[u8], length: u64, deliver: &mut dyn FnMut(Piece<'_>)) {
        let gap_before = std::mem::take(&mut self.gap);
        self.offset += length;
        deliver(Piece { time, gap_before, bytes, cut: length.saturating_sub(bytes.len() as u64) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments (number, bytes), all of a connection that opened with 99, to what is delivered: `~N` is a gap.
    fn check(segments: &[(u32, &str)], expected: &str) {
        let mut half = Half::default();
        half.open(99);
        let mut found = String::new();
        let mut deliver = |piece: Piece<'_>| {
            if piece.gap_before > 0 {
                found += &format!("~{}", piece.gap_before);
            }
            found += &String::from_utf8_lossy(piece.bytes);
            if piece.cut > 0 {
                found += &format!("+{}", piece.cut);
            }
        };
        for (sequence, bytes) in segments {
            half.push(*sequence, BootNanos(1), bytes.as_bytes(), bytes.len() as u32, &mut deliver);
        }
        half.flush(&mut deliver);
        assert_eq!(half.waiting_bytes(), 0);
        assert_eq!(found, expected, "{segments:?}");
    }

    #[test]
    fn order_is_restored() {
        check(&[(100, "abc"), (103, "def")], "abcdef");
        check(&[(103, "def"), (106, "g"), (100, "abc")], "abcdefg");
        check(&[(100, "abc"), (100, "abc"), (101, "bcd"), (104, "e")], "abcde");
        check(&[(102, "cdef"), (103, "d"), (104, "efgh"), (100, "ab")], "abcdefgh");
        check(&[(90, "x"), (100, "a")], "a");
        check(&[(98, "xxabc")], "abc");
    }

    #[test]
    fn what_is_missing_is_a_gap() {
        check(&[(100, "abc"), (105, "f"), (107, "h")], "abc~2f~1h");
        let far = 100 + MAX_AHEAD as u32 + 2;
        check(&[(100, "a"), (far, "b")], &format!("a~{}b", MAX_AHEAD + 1));
    }

    #[test]
    fn numbers_wrap() {
        let mut half = Half::default();
        half.open(u32::MAX - 1);
        let mut found = Vec::new();
        let mut deliver = |piece: Piece<'_>| found.extend_from_slice(piece.bytes);
        half.push(1, BootNanos(1), b"cd", 2, &mut deliver);
        half.push(u32::MAX, BootNanos(1), b"ab", 2, &mut deliver);
        assert_eq!(found, b"abcd");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut half = Half::default();
        half.open(0);
        let mut delivered = 0;
        let mut deliver = |piece: Piece<'_>| delivered += piece.bytes.len();
        for number in 1..=2 * MAX_WAITING as u32 {
            half.push(number * 2000, BootNanos(1), &[0; 1500], 1500, &mut deliver);
            assert!(half.waiting_bytes() <= MAX_WAITING_BYTES);
        }
        half.flush(&mut deliver);
        assert_eq!(delivered, 2 * MAX_WAITING * 1500);
    }

    #[test]
    fn what_the_receiver_has_is_not_waited_for() {
        let mut half = Half::default();
        half.open(99);
        let mut found = Vec::new();
        let mut deliver = |piece: Piece<'_>| found.push((piece.gap_before, piece.bytes.to_vec()));
        half.push(102, BootNanos(1), b"c", 1, &mut deliver);
        half.acknowledged(105, BootNanos(1), &mut deliver);
        half.push(105, BootNanos(1), b"f", 1, &mut deliver);
        let expected: [(u64, &[u8]); 3] = [(2, b"c"), (2, b""), (0, b"f")];
        assert_eq!(found, expected.map(|(gap, bytes)| (gap, bytes.to_vec())));
    }

    #[test]
    fn the_cut_end_of_a_segment_is_told() {
        let mut half = Half::default();
        half.open(99);
        let mut found = Vec::new();
        let mut deliver = |piece: Piece<'_>| found.push((piece.bytes.to_vec(), piece.cut));
        half.push(100, BootNanos(1), b"ab", 10, &mut deliver);
        half.push(105, BootNanos(1), b"xxxxx", 10, &mut deliver);
        assert_eq!(found, [(b"ab".to_vec(), 8), (Vec::new(), 5)]);
    }
}
