//! Messages out of the bytes of one direction, where each message tells its length in its head.
//!
//! Bytes may come in any portions and with gaps. Of a message only the head is kept, as much as its kind needs; the
//! rest is counted, so bytes that were not captured cost nothing as long as they lie inside of one message. After a
//! larger gap the place is lost, until the session says where a message begins.

use descry_decode::ids::BootNanos;

use super::turns::Turns;
use super::{Chunk, Direction, Exchange, Lost};

/// A head that has not told its length by then never will (bytes). No protocol here needs more than 8.
const MAX_UNDECIDED: usize = 16;

/// What the first bytes of a message say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// More bytes are needed to tell.
    Partial,
    /// A message of `length` bytes, its head counted, of which the first `keep` matter.
    Message { length: u64, keep: usize },
    /// No message begins like this.
    Nonsense,
}

/// A message that has gone by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Which way.
    pub direction: Direction,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Its true length.
    pub length: u64,
    /// When its first byte went.
    pub start: BootNanos,
    /// When its last byte went.
    pub end: BootNanos,
}

impl Message<'_> {
    /// Whether only a part of it is there.
    pub fn is_cut(&self) -> bool {
        (self.bytes.len() as u64) < self.length
    }
}

/// What a protocol does with messages.
pub(super) trait Session {
    /// Tells the length from a message's first bytes, of which there is at least one.
    fn frame(&self, direction: Direction, head: &[u8]) -> Frame;
    /// Takes a message.
    fn message(&mut self, message: Message<'_>, exchanges: &mut Vec<Exchange>);
    /// Where in these bytes a message begins (their length: right behind them). `fresh`: they are the first since the
    /// other side spoke.
    fn boundary(&self, direction: Direction, bytes: &[u8], fresh: bool) -> Option<usize>;
    /// Gives the requests that wait for an answer, in their order, and forgets them: nobody can say any more which
    /// answer belongs to which. `answered`: the answers came, though.
    fn settle(&mut self, end: BootNanos, answered: bool, exchanges: &mut Vec<Exchange>);
    /// Whether a request waits whose answer the client awaits before it goes on.
    fn is_waiting(&self) -> bool;
    /// Whether nothing more can be understood.
    fn is_over(&self) -> bool;
    /// Whose turn it is.
    fn turns(&mut self) -> &mut Turns;
    /// The counters.
    fn lost(&mut self) -> &mut Lost;
}

/// Both directions of a connection whose messages tell their length.
#[derive(Debug, Default)]
pub(super) struct Framed<S> {
    client: Framer,
    server: Framer,
    pub session: S,
}

impl<S: Session> Framed<S> {
    /// Takes the next bytes of either direction.
    pub fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        if self.session.is_over() {
            return;
        }
        let Self { client, server, session } = self;
        let waiting = session.is_waiting();
        if let Some(settled) = session.turns().chunk(&chunk, waiting) {
            session.settle(settled.end, settled.answered, exchanges);
        }
        match chunk.direction {
            Direction::ToServer => client.data(&chunk, session, exchanges),
            Direction::ToClient => server.data(&chunk, session, exchanges),
        }
    }

    /// Whether each side's next byte begins a message.
    pub fn is_between(&self) -> bool {
        self.client.is_between() && self.server.is_between()
    }

    /// The connection was closed.
    pub fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        let settled = self.session.turns().end(time);
        self.session.settle(settled.end, settled.answered, exchanges);
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Framer {
    /// The kept bytes of the message that is not complete.
    head: Vec<u8>,
    /// How many of its bytes went by.
    passed: u64,
    /// Its length and how much of it matters, once that is known.
    known: Option<(u64, usize)>,
    /// When its first byte went.
    start: BootNanos,
    /// Where messages begin is not known.
    astray: bool,
    /// Something was understood before.
    was_in_place: bool,
}

impl Framer {
    fn is_between(&self) -> bool {
        self.passed == 0 && !self.astray
    }

    fn data<S: Session>(&mut self, chunk: &Chunk<'_>, session: &mut S, exchanges: &mut Vec<Exchange>) {
        if chunk.gap_before > 0 {
            self.gap(chunk.gap_before, chunk, session, exchanges);
        }
        self.bytes(chunk, session, exchanges);
        if chunk.cut > 0 {
            self.gap(chunk.cut, chunk, session, exchanges);
        }
    }

    fn bytes<S: Session>(&mut self, chunk: &Chunk<'_>, session: &mut S, exchanges: &mut Vec<Exchange>) {
        let mut rest = chunk.bytes;
        if self.astray && !rest.is_empty() {
            let fresh = session.turns().is_fresh();
            let Some(begin) = session.boundary(chunk.direction, rest, fresh) else {
                session.turns().doubt();
                return;
            };
            self.astray = false;
            session.lost().resynchronized += u64::from(self.was_in_place);
            rest = rest.get(begin..).unwrap_or_default();
        }
        while !rest.is_empty() && !session.is_over() {
            if self.passed == 0 {
                self.start = chunk.time;
                // The usual case: the whole message is in this chunk, and nothing needs to be copied.
                if let Frame::Message { length, keep } = session.frame(chunk.direction, rest)
                    && let Some((whole, behind)) = split(rest, length)
                {
                    rest = behind;
                    let bytes = whole.get(..keep).unwrap_or(whole);
                    self.hand_over(bytes, length, chunk, session, exchanges);
                    continue;
                }
            }
            let Some((length, keep)) = self.known else {
                let Some(behind) = self.decide(rest, chunk.direction, session) else {
                    session.lost().malformed += 1;
                    self.stray(session);
                    return;
                };
                rest = behind;
                // Some messages are nothing but a head.
                if let Some((length, _)) = self.known.filter(|(length, _)| *length == self.passed) {
                    self.complete(length, chunk, session, exchanges);
                }
                continue;
            };
            rest = self.collect(rest, length, keep, chunk, session, exchanges);
        }
    }

    /// Takes bytes until the length is known; none: these bytes are no message.
    fn decide<'a, S: Session>(
        &mut self,
        bytes: &'a [u8],
        direction: Direction,
        session: &S,
    ) -> Option<&'a [u8]> {
        let (first, rest) = bytes.split_first()?;
        self.head.push(*first);
        self.passed += 1;
        match session.frame(direction, &self.head) {
            Frame::Message { length, keep } if length >= self.passed => self.known = Some((length, keep)),
            Frame::Partial if self.head.len() < MAX_UNDECIDED => {}
            _ => return None,
        }
        Some(rest)
    }

    /// Takes bytes of a message whose length is known, and hands it over when it is complete.
    fn collect<'a, S: Session>(
        &mut self,
        bytes: &'a [u8],
        length: u64,
        keep: usize,
        chunk: &Chunk<'_>,
        session: &mut S,
        exchanges: &mut Vec<Exchange>,
    ) -> &'a [u8] {
        let missing = usize::try_from(length - self.passed).unwrap_or(usize::MAX);
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        // Bytes behind a gap do not follow those before it.
        if self.head.len() as u64 == self.passed {
            let wanted = keep.saturating_sub(self.head.len()).min(taken.len());
            self.head.extend(taken.iter().take(wanted));
        }
        self.passed += taken.len() as u64;
        if self.passed == length {
            self.complete(length, chunk, session, exchanges);
        }
        rest
    }

    /// Bytes that nobody saw: harmless inside of a message.
    fn gap<S: Session>(
        &mut self,
        bytes: u64,
        chunk: &Chunk<'_>,
        session: &mut S,
        exchanges: &mut Vec<Exchange>,
    ) {
        if self.astray {
            session.turns().doubt();
            return;
        }
        if let Some((length, _)) = self.known {
            let missing = length - self.passed;
            if bytes < missing {
                // Whatever the head lacks is not read behind the gap.
                self.passed += bytes;
                return;
            }
            self.complete(length, chunk, session, exchanges);
            if bytes == missing {
                return;
            }
        }
        self.stray(session);
    }

    fn complete<S: Session>(
        &mut self,
        length: u64,
        chunk: &Chunk<'_>,
        session: &mut S,
        exchanges: &mut Vec<Exchange>,
    ) {
        let head = std::mem::take(&mut self.head);
        self.hand_over(&head, length, chunk, session, exchanges);
        // A buffer that was once needed for a long text is not kept for as long as the connection lives.
        if head.capacity() <= 256 {
            self.head = head;
            self.head.clear();
        }
        self.passed = 0;
        self.known = None;
    }

    fn hand_over<S: Session>(
        &mut self,
        bytes: &[u8],
        length: u64,
        chunk: &Chunk<'_>,
        session: &mut S,
        exchanges: &mut Vec<Exchange>,
    ) {
        self.was_in_place = true;
        let direction = chunk.direction;
        session.message(Message { direction, bytes, length, start: self.start, end: chunk.time }, exchanges);
    }

    fn stray<S: Session>(&mut self, session: &mut S) {
        self.astray = true;
        self.head = Vec::new();
        self.passed = 0;
        self.known = None;
        session.turns().doubt();
    }
}

fn split(bytes: &[u8], length: u64) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(length).ok().filter(|length| *length > 0)?;
    bytes.split_at_checked(length)
}
