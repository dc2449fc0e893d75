//! Whose turn it is on a connection, and from when on answers can be counted off against requests.
//!
//! Protocols without ids match the first answer to the first request. After bytes that nobody saw the count is off.
//! Most clients send nothing new before they have all their answers: then the beginning of the client's next turn
//! puts the count right. A client that was seen to send earlier than that is only believed after a pause.

use descry_decode::ids::BootNanos;

use super::{Chunk, Direction};

/// Pause after which a client that does not wait for its answers has none outstanding (ns). A guess, and on the safe
/// side: nothing is matched until it is reached.
const PAUSE: u64 = 100_000_000;

/// What became of the requests that could not be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// When the last answer's last bytes went, or when the requests were given up.
    pub end: BootNanos,
    /// Whether the answers came.
    pub answered: bool,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    speaker: Option<Direction>,
    client_seen: bool,
    server_seen: bool,
    fresh: bool,
    doubtful: bool,
    /// The client went on without its answer, as far as is known.
    suspect: bool,
    overlapping: bool,
    last: BootNanos,
}

impl Turns {
    /// Bytes come. `waiting`: a request is without its answer. What is given ends the doubt: the requests so far are
    /// over.
    pub fn chunk(&mut self, chunk: &Chunk<'_>, waiting: bool) -> Option<Settled> {
        let first = self.speaker.is_none();
        let turn = self.speaker != Some(chunk.direction);
        let seen = match chunk.direction {
            Direction::ToServer => &mut self.client_seen,
            Direction::ToClient => &mut self.server_seen,
        };
        // What was lost may have been the beginning of this turn; unless the gap is the time before the capture.
        let whole = chunk.gap_before == 0 || chunk.gap_before == u64::MAX && !*seen;
        *seen = true;
        self.fresh = turn && !first && whole;
        let paused = chunk.time.0.saturating_sub(self.last.0) >= PAUSE;
        let last = std::mem::replace(&mut self.last, chunk.time);
        self.speaker = Some(chunk.direction);
        if chunk.direction == Direction::ToClient {
            // Without a gap it is certain that the answer had not come when the client went on.
            self.overlapping |= std::mem::take(&mut self.suspect) && chunk.gap_before == 0;
            return None;
        }
        if !turn || first {
            return None;
        }
        if !self.doubtful {
            self.suspect |= waiting;
            return None;
        }
        if self.overlapping && !paused {
            return None;
        }
        self.doubtful = false;
        Some(Settled { end: last, answered: !self.overlapping })
    }

    /// A request and its answer went by, of which no bytes were given.
    pub fn passed(&mut self, end: BootNanos) {
        self.last = end;
    }

    /// The connection ends.
    pub fn end(&self, time: BootNanos) -> Settled {
        let answered = self.doubtful && !self.overlapping && self.speaker == Some(Direction::ToClient);
        Settled { end: if answered { self.last } else { time }, answered }
    }

    /// Bytes were lost: nothing can be matched before this is settled.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Whether nothing came yet.
    pub fn is_silent(&self) -> bool {
        self.speaker.is_none()
    }

    /// Whether answers cannot be matched to requests now.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the chunk that came last is the first since the other side spoke.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}
