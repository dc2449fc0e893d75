//! One direction of a connection: where in a message it is.

use std::borrow::Cow;

use descry_decode::ids::BootNanos;
use memchr::memchr;

use super::super::Direction;
use super::head::{Body, begins};
use crate::infer::Verdict;

/// Longest head that is kept (bytes). What a longer one says after that is not read, and its body's length is unknown.
const MAX_HEAD: usize = 64 << 10;
/// Longest line between chunks of a body (bytes).
const MAX_LINE: usize = 4 << 10;

/// What a step came upon.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A head, ending in an empty line; not `whole`: less than was sent, up to a line's end.
    Head {
        /// Its bytes.
        bytes: Cow<'a, [u8]>,
        /// Whether these are all.
        whole: bool,
    },
    /// The end of a body.
    End,
    /// What cannot be there.
    Nonsense,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Side {
    state: State,
    /// The head or the line that has begun.
    begun: Vec<u8>,
    start: BootNanos,
    /// Whether the body's length may be wrong, because the request is not known.
    doubt: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body(u64),
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    Trailers,
    UntilClose,
    /// Until a message begins with a chunk.
    Lost,
}

impl Side {
    /// When the head that was found last began.
    pub(super) fn start(&self) -> BootNanos {
        self.start
    }

    /// Whether the body lasts as long as the connection.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether it is not known where in a message this is.
    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether the next byte begins a head.
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Head && self.begun.is_empty() && !self.doubt
    }

    /// A body begins. Says whether it ended with that.
    pub(super) fn body(&mut self, body: Body) -> bool {
        self.doubt = false;
        self.state = match body {
            Body::Length(0) => State::Head,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkSize,
            Body::UntilClose => State::UntilClose,
        };
        self.state == State::Head
    }

    /// The length of this body may be wrong.
    pub(super) fn doubt(&mut self) {
        self.doubt = true;
    }

    /// Where in a message the next bytes are is not known.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.begun = Vec::new();
    }

    /// A chunk begins. Says whether the place was found again with it.
    pub(super) fn at_chunk(&mut self, direction: Direction, bytes: &[u8]) -> bool {
        let found = (self.is_lost() || self.doubt) && begins(direction, bytes) == Verdict::Yes;
        // Where nothing was read before, nothing was lost.
        let was_lost = self.is_lost() && self.start != BootNanos::default();
        if found {
            self.state = State::Head;
            self.begun.clear();
            self.doubt = false;
        }
        found && was_lost
    }

    /// Takes bytes up to what is found; says how many.
    pub(super) fn step<'a>(
        &mut self,
        direction: Direction,
        bytes: &'a [u8],
        time: BootNanos,
    ) -> (usize, Option<Found<'a>>) {
        let all = bytes.len();
        match &mut self.state {
            State::Head => self.head(direction, bytes, time),
            State::Body(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(all);
                *left -= taken as u64;
                if *left > 0 {
                    return (taken, None);
                }
                self.state = State::Head;
                (taken, Some(Found::End))
            }
            State::Chunk(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(all);
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::ChunkSize;
                }
                (taken, None)
            }
            State::ChunkSize | State::Trailers => self.line(bytes),
            State::UntilClose | State::Lost => (all, None),
        }
    }

    fn head<'a>(
        &mut self,
        direction: Direction,
        bytes: &'a [u8],
        time: BootNanos,
    ) -> (usize, Option<Found<'a>>) {
        if self.begun.is_empty() {
            // Empty lines before a message are allowed (RFC 9112, section 2.2).
            let blank = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            if blank > 0 {
                return (blank, None);
            }
            self.start = time;
            if let Some(end) = head_end(bytes, 0) {
                if begins(direction, bytes) == Verdict::No {
                    return (bytes.len(), Some(Found::Nonsense));
                }
                let head = bytes.get(..end).unwrap_or_default();
                return (end, Some(Found::Head { bytes: Cow::Borrowed(head), whole: true }));
            }
        }
        let old = self.begun.len();
        let room = MAX_HEAD.saturating_sub(old).min(bytes.len());
        self.begun.extend_from_slice(bytes.get(..room).unwrap_or_default());
        if begins(direction, &self.begun) == Verdict::No {
            self.begun = Vec::new();
            return (bytes.len(), Some(Found::Nonsense));
        }
        // The end may have begun three bytes earlier.
        if let Some(end) = head_end(&self.begun, old.saturating_sub(3)) {
            let mut head = std::mem::take(&mut self.begun);
            head.truncate(end);
            return (end.saturating_sub(old), Some(Found::Head { bytes: Cow::Owned(head), whole: true }));
        }
        if self.begun.len() >= MAX_HEAD {
            // A first line that is longer than what is kept says nothing.
            return (bytes.len(), Some(self.cut_head().unwrap_or(Found::Nonsense)));
        }
        (bytes.len(), None)
    }

    /// The head that has begun, up to its last whole line.
    fn cut_head(&mut self) -> Option<Found<'static>> {
        let mut head = std::mem::take(&mut self.begun);
        let lines = head.iter().rposition(|byte| *byte == b'\n')? + 1;
        head.truncate(lines);
        head.extend_from_slice(b"\r\n");
        Some(Found::Head { bytes: Cow::Owned(head), whole: false })
    }

    /// Lines between chunks: sizes, and trailers behind the last.
    fn line(&mut self, bytes: &[u8]) -> (usize, Option<Found<'static>>) {
        let end = memchr(b'\n', bytes).map(|end| end + 1);
        let taken = end.unwrap_or(bytes.len());
        if self.begun.len() + taken > MAX_LINE {
            self.begun = Vec::new();
            return (bytes.len(), Some(Found::Nonsense));
        }
        self.begun.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if end.is_none() {
            return (taken, None);
        }
        let line = std::mem::take(&mut self.begun);
        let line = line.trim_ascii();
        if self.state == State::Trailers {
            if line.is_empty() {
                self.state = State::Head;
                return (taken, Some(Found::End));
            }
            return (taken, None);
        }
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok()) {
            // The line's end behind the chunk before.
            None if line.is_empty() => (taken, None),
            None => (bytes.len(), Some(Found::Nonsense)),
            Some(0) => {
                self.state = State::Trailers;
                (taken, None)
            }
            Some(size) => {
                self.state = State::Chunk(size);
                (taken, None)
            }
        }
    }

    /// Skips bytes that were not captured. Says whether the place is still known, and what was found.
    pub(super) fn skip(&mut self, bytes: u64) -> (bool, Option<Found<'static>>) {
        match &mut self.state {
            State::Body(left) if bytes <= *left => {
                *left -= bytes;
                if *left > 0 {
                    return (true, None);
                }
                self.state = State::Head;
                (true, Some(Found::End))
            }
            State::Chunk(left) if bytes <= *left => {
                *left -= bytes;
                if *left == 0 {
                    self.state = State::ChunkSize;
                }
                (true, None)
            }
            State::Body(_) => {
                self.state = State::Lost;
                (false, Some(Found::End))
            }
            State::UntilClose => (true, None),
            State::Head if !self.begun.is_empty() => {
                let head = self.cut_head();
                self.state = State::Lost;
                (false, head)
            }
            _ => (false, None),
        }
    }
}

/// Where a head ends, behind its empty line; it is looked for from `from` on.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}
