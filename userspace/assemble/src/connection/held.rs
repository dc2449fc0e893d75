//! What a connection said before its protocol is known.

use descry_decode::ids::BootNanos;

use super::{Origin, Settings};
use crate::infer::{Inference, Opening, Transport, infer};
use crate::protocol::{Chunk, Direction};

/// Chunks that are kept until the protocol is known.
const MAX_HELD: usize = 128;
/// Bytes that are kept until then.
const MAX_HELD_BYTES: usize = 16 << 10;
/// Bytes of each direction that are looked at for the protocol.
const MAX_OPENING: usize = 4096;
/// Times that a connection that is older than the capture, or carries datagrams, is looked at.
pub(super) const MAX_TRIES: u32 = 16;
/// Chunks of a stream, met in its middle, that go on in one direction and are waited out.
pub(super) const MAX_PIECES: u32 = 1024;

/// What was said before the protocol is known.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) chunks: Vec<HeldChunk>,
    /// Bytes of all of them.
    bytes: usize,
    tries: u32,
    /// Whether chunks were dropped.
    dropped: bool,
    /// Which way the last chunk went.
    last: Option<Direction>,
    /// Chunks that could not be looked at.
    pieces: u32,
}

#[derive(Debug)]
pub(super) struct HeldChunk {
    direction: Direction,
    time: BootNanos,
    gap_before: u64,
    bytes: Box<[u8]>,
    cut: u64,
}

impl HeldChunk {
    fn new(chunk: Chunk<'_>) -> Self {
        let Chunk { direction, time, gap_before, bytes, cut } = chunk;
        Self { direction, time, gap_before, bytes: bytes.into(), cut }
    }

    /// Whether it follows what was said before, and something of it is there.
    fn is_seen(&self) -> bool {
        self.gap_before == 0 && (self.cut == 0 || !self.bytes.is_empty())
    }

    pub(super) fn chunk(&self) -> Chunk<'_> {
        let Self { direction, time, gap_before, ref bytes, cut } = *self;
        Chunk { direction, time, gap_before, bytes, cut }
    }
}

impl Held {
    /// Takes a chunk. Says what the protocol is, and whether client and server are the other way round; then the held
    /// chunks are as the parser has to see them.
    pub(super) fn look(
        &mut self,
        origin: &Origin,
        chunk: Chunk<'_>,
        settings: &Settings,
    ) -> (Inference, bool) {
        let in_the_middle = origin.transport == Transport::Stream && !origin.from_start;
        if in_the_middle && !self.may_begin(origin, chunk.direction) {
            self.drop_all();
            self.pieces += 1;
            let known = if self.pieces < MAX_PIECES { Inference::NotYet } else { Inference::Unknown };
            return (known, false);
        }
        self.bytes += chunk.bytes.len();
        self.chunks.push(HeldChunk::new(chunk));
        let complete = self.chunks.iter().all(HeldChunk::is_seen);
        let whole = origin.from_start && origin.transport == Transport::Stream && complete;
        let (to_server, to_client) =
            (self.said(Direction::ToServer, whole), self.said(Direction::ToClient, whole));
        let opening = Opening { to_server: &to_server, to_client: &to_client, from_start: whole };
        let mut inference = infer(&settings.protocols, origin.transport, opening);
        let mut turned = false;
        if !origin.is_oriented
            && !matches!(inference, Inference::Known(_))
            && let known @ Inference::Known(_) =
                infer(&settings.protocols, origin.transport, opening.swapped())
        {
            inference = known;
            turned = true;
        }
        match inference {
            Inference::Known(_) => {
                self.begin(whole, turned);
                (inference, turned)
            }
            Inference::NotYet if self.chunks.len() < MAX_HELD && self.bytes < MAX_HELD_BYTES => {
                (inference, false)
            }
            // Another chunk may be the beginning of a message.
            Inference::NotYet | Inference::Unknown if !whole && self.tries < MAX_TRIES => {
                self.tries += 1;
                self.drop_all();
                (Inference::NotYet, false)
            }
            Inference::NotYet | Inference::Unknown => (Inference::Unknown, false),
        }
    }

    fn drop_all(&mut self) {
        self.dropped = true;
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Whether a message may begin with the next chunk of a stream that was met in its middle: there one begins where the
    /// direction turns. What follows in the same one is a piece, which may look like another protocol; so may the end of
    /// an answer that is met first.
    fn may_begin(&mut self, origin: &Origin, direction: Direction) -> bool {
        let last = self.last.replace(direction);
        last.map_or(direction == Direction::ToServer || !origin.is_oriented, |last| last != direction)
    }

    /// What was said in a direction: all of it, or the last chunk.
    fn said(&self, direction: Direction, whole: bool) -> Vec<u8> {
        let mut of_direction = self.chunks.iter().filter(|chunk| chunk.direction == direction);
        if !whole {
            return of_direction.next_back().map_or_else(Vec::new, |chunk| head(&chunk.bytes).to_vec());
        }
        let mut said = Vec::new();
        for chunk in of_direction {
            said.extend_from_slice(head(&chunk.bytes));
            if said.len() > MAX_OPENING || chunk.cut > 0 {
                break;
            }
        }
        said
    }

    /// The protocol is known: the held chunks are its first.
    fn begin(&mut self, whole: bool, turned: bool) {
        if turned {
            self.chunks.iter_mut().for_each(|chunk| chunk.direction = chunk.direction.reversed());
        }
        if !whole && self.dropped {
            for direction in [Direction::ToServer, Direction::ToClient] {
                let first = self.chunks.iter_mut().find(|chunk| chunk.direction == direction);
                if let Some(first) = first {
                    first.gap_before = u64::MAX;
                }
            }
        }
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_OPENING).unwrap_or(bytes)
}
