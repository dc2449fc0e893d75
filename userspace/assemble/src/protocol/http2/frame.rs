//! Frames of one direction (RFC 9113, sections 4 and 6): bytes in, what happens to streams out.

use descry_decode::ids::BootNanos;

use super::super::Direction;
use crate::infer::Verdict;

/// What a client says first (section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Bytes of one header block that are kept; of a longer one the fields behind are not known.
const MAX_BLOCK: usize = 64 << 10;
/// Longest frame where frames are looked for: what both sides may send unasked (SETTINGS_MAX_FRAME_SIZE, section 6.5.2).
const MAX_LIKELY: u32 = 1 << 14;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Flag of HEADERS, PUSH_PROMISE and CONTINUATION.
const END_HEADERS: u8 = 4;
/// Flag of DATA, HEADERS and PUSH_PROMISE.
const PADDED: u8 = 8;
/// Flag of HEADERS.
const PRIORITY: u8 = 0x20;

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A header block.
    Headers(Block),
    /// A stream's last bytes of this direction.
    End(u32),
    /// A stream is given up, with an error code (section 7).
    Reset(u32, u32),
    /// No stream above this will be answered, with an error code.
    GoAway(u32, u32),
    /// What cannot be there.
    Nonsense,
}

/// A header block, put together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// The stream.
    pub(super) stream: u32,
    /// Whether the stream ends with it.
    pub(super) is_end: bool,
    /// Whether it announces another stream's request, which only the table needs.
    pub(super) is_promise: bool,
    /// Whether all of it is here.
    pub(super) is_whole: bool,
    /// When it began.
    pub(super) start: BootNanos,
    /// Its bytes, from the beginning.
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn read(header: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = header.first_chunk::<HEADER>()?;
        let [x, y, z, w] = *stream;
        let stream = u32::from_be_bytes([x, y, z, w]) & 0x7fff_ffff;
        Some(Self { length: u32::from_be_bytes([0, *a, *b, *c]), kind: *kind, flags: *flags, stream })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether what it holds is read.
    fn is_read(self) -> bool {
        matches!(self.kind, HEADERS | RST_STREAM | PUSH_PROMISE | GOAWAY | CONTINUATION)
    }

    /// Whether a frame like this is to be expected (section 6). Far from everything that is allowed.
    fn is_likely(self, direction: Direction) -> bool {
        let of_stream = self.stream % 2 == 1;
        let of_connection = self.stream == 0;
        self.length <= MAX_LIKELY
            && match self.kind {
                DATA => of_stream && self.flags & !(END_STREAM | PADDED) == 0,
                HEADERS => {
                    of_stream
                        && self.length > 0
                        && self.flags & !(END_STREAM | END_HEADERS | PADDED | PRIORITY) == 0
                }
                2 => of_stream && self.length == 5 && self.flags == 0,
                RST_STREAM => of_stream && self.length == 4 && self.flags == 0,
                SETTINGS => {
                    of_connection && self.length.is_multiple_of(6) && self.length <= 60 && self.flags <= 1
                }
                PUSH_PROMISE => {
                    of_stream && direction == Direction::ToClient && self.flags & !(END_HEADERS | PADDED) == 0
                }
                6 => of_connection && self.length == 8 && self.flags <= 1,
                GOAWAY => of_connection && self.length >= 8 && self.flags == 0,
                8 => (of_stream || of_connection) && self.length == 4 && self.flags == 0,
                CONTINUATION => of_stream && self.flags & !END_HEADERS == 0,
                _ => false,
            }
    }
}

/// Whether frames begin here: each header leads to the next likely one, up to the end of what is here. Half a header
/// decides nothing.
pub(super) fn begins(direction: Direction, bytes: &[u8]) -> Verdict {
    let mut rest = bytes;
    let mut frames = 0;
    loop {
        let Some(frame) = Frame::read(rest) else {
            return match (frames, rest.is_empty()) {
                (0, _) => Verdict::NotYet,
                (1, false) => Verdict::NotYet,
                _ => Verdict::Yes,
            };
        };
        if !frame.is_likely(direction) {
            return Verdict::No;
        }
        frames += 1;
        match rest.get(HEADER + frame.length as usize..) {
            Some(behind) => rest = behind,
            // A frame that is longer than what is here has to have come alone, or behind another.
            None if frames > 1 || matches!(frame.kind, DATA | HEADERS) => return Verdict::Yes,
            None => return Verdict::NotYet,
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Side {
    state: State,
    /// The preface, the header or the payload that has begun.
    begun: Vec<u8>,
    /// The header block that has begun.
    block: Option<Block>,
    /// When the frame began.
    start: BootNanos,
}

#[derive(Debug)]
enum State {
    Preface,
    Header,
    /// Of a frame this many bytes are to come; whether some were not captured.
    Payload(Frame, u64, bool),
    /// Until frames begin with a chunk.
    Lost,
}

impl Side {
    pub(super) fn client() -> Self {
        Self { state: State::Preface, begun: Vec::new(), block: None, start: BootNanos(0) }
    }

    pub(super) fn server() -> Self {
        Self { state: State::Header, ..Self::client() }
    }

    /// Where the next frame begins is not known.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.begun = Vec::new();
        self.block = None;
    }

    /// A chunk begins. Says whether the place was found again with it.
    pub(super) fn at_chunk(&mut self, direction: Direction, bytes: &[u8]) -> bool {
        let found = matches!(self.state, State::Lost) && begins(direction, bytes) == Verdict::Yes;
        if found {
            self.state = State::Header;
        }
        // Where nothing was read before, nothing was lost.
        found && self.start != BootNanos::default()
    }

    /// Takes bytes up to what happens; says how many.
    pub(super) fn step(&mut self, bytes: &[u8], time: BootNanos) -> (usize, Option<Event>) {
        match &mut self.state {
            State::Lost => (bytes.len(), None),
            State::Preface => {
                let taken = self.fill(bytes, PREFACE.len());
                if !PREFACE.starts_with(&self.begun) {
                    return (taken, Some(Event::Nonsense));
                }
                if self.begun.len() == PREFACE.len() {
                    self.begun.clear();
                    self.state = State::Header;
                }
                (taken, None)
            }
            State::Header => {
                if self.begun.is_empty() {
                    self.start = time;
                }
                let taken = self.fill(bytes, HEADER);
                let Some(frame) = Frame::read(&self.begun) else { return (taken, None) };
                self.begun.clear();
                // Nothing may come between the parts of a header block (section 4.3).
                let of_block = self
                    .block
                    .as_ref()
                    .is_none_or(|block| frame.kind == CONTINUATION && frame.stream == block.stream);
                if !of_block {
                    return (taken, Some(Event::Nonsense));
                }
                self.state = State::Payload(frame, frame.length.into(), true);
                (taken, if frame.length == 0 { self.payload_end() } else { None })
            }
            State::Payload(frame, left, is_whole) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                let is_end = *left == 0;
                if frame.is_read() && *is_whole {
                    let room = MAX_BLOCK.saturating_sub(self.begun.len()).min(taken);
                    *is_whole = room == taken;
                    self.begun.extend_from_slice(bytes.get(..room).unwrap_or_default());
                }
                (taken, if is_end { self.payload_end() } else { None })
            }
        }
    }

    /// Skips bytes that were not captured. Says whether the place is still known, and what happened.
    pub(super) fn skip(&mut self, bytes: u64) -> (bool, Option<Event>) {
        match &mut self.state {
            State::Payload(_, left, is_whole) if bytes <= *left => {
                *left -= bytes;
                *is_whole = false;
                let is_end = *left == 0;
                (true, if is_end { self.payload_end() } else { None })
            }
            State::Payload(_, left, is_whole) => {
                *left = 0;
                *is_whole = false;
                (false, self.payload_end())
            }
            _ => (false, None),
        }
    }

    fn fill(&mut self, bytes: &[u8], length: usize) -> usize {
        let taken = length.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        taken
    }

    fn payload_end(&mut self) -> Option<Event> {
        let State::Payload(frame, _, is_whole) = std::mem::replace(&mut self.state, State::Header) else {
            return None;
        };
        let payload = std::mem::take(&mut self.begun);
        let number = |at: usize| Some(u32::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        match frame.kind {
            DATA => frame.has(END_STREAM).then_some(Event::End(frame.stream)),
            HEADERS | PUSH_PROMISE => {
                let before = match frame.kind {
                    PUSH_PROMISE => 4,
                    _ if frame.has(PRIORITY) => 5,
                    _ => 0,
                };
                let Some(bytes) = fragment(frame, &payload, before, is_whole) else {
                    return Some(Event::Nonsense);
                };
                self.fragment(
                    frame,
                    is_whole,
                    Block {
                        stream: frame.stream,
                        is_end: frame.kind == HEADERS && frame.has(END_STREAM),
                        is_promise: frame.kind == PUSH_PROMISE,
                        is_whole: true,
                        start: self.start,
                        bytes: bytes.to_vec(),
                    },
                )
            }
            CONTINUATION => match self.block.take() {
                Some(mut block) => {
                    let room = MAX_BLOCK.saturating_sub(block.bytes.len()).min(payload.len());
                    if block.is_whole {
                        block.bytes.extend_from_slice(payload.get(..room).unwrap_or_default());
                    }
                    self.fragment(frame, is_whole && room == payload.len(), block)
                }
                None => Some(Event::Nonsense),
            },
            RST_STREAM => Some(Event::Reset(frame.stream, number(0)?)),
            GOAWAY => Some(Event::GoAway(number(0)? & 0x7fff_ffff, number(4)?)),
            _ => None,
        }
    }

    /// A part of a header block is there.
    fn fragment(&mut self, frame: Frame, is_whole: bool, mut block: Block) -> Option<Event> {
        block.is_whole &= is_whole;
        if frame.has(END_HEADERS) {
            return Some(Event::Headers(block));
        }
        self.block = Some(block);
        None
    }
}

/// The part of a header block in a frame, without padding and what stands before. Of a frame that is not whole, the
/// padding may be among what is missing.
fn fragment(frame: Frame, payload: &[u8], before: usize, is_whole: bool) -> Option<&[u8]> {
    if !frame.has(PADDED) {
        return payload.get(before..).or((!is_whole).then_some(&[]));
    }
    let Some((padding, rest)) = payload.split_first() else { return (!is_whole).then_some(&[]) };
    let length = (frame.length as usize).checked_sub(1 + usize::from(*padding))?;
    rest.get(before..length.min(rest.len())).or((!is_whole).then_some(&[]))
}
