//! One connection of a capture: its two directions put in order, given to [`Connection`].

use std::net::SocketAddr;

use descry_decode::ids::BootNanos;

use super::packet::{Numbers, Segment};
use super::tcp::{Half, Piece};
use crate::connection::{Connection, End, Origin, Role, Settings};
use crate::infer::Transport;
use crate::protocol::{Chunk, Direction, Lost};
use crate::span::Span;

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    /// None: it was closed.
    connection: Option<Connection>,
    /// The directions, by who sends: first the address that is less.
    halves: [Half; 2],
    /// Who closed first.
    closed_by: Option<Direction>,
    gaps: Gaps,
    /// Whether there were bytes.
    spoke: bool,
    last: BootNanos,
}

/// What was missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps {
    /// How often.
    pub(super) count: u64,
    /// How much, as far as it is known (bytes).
    pub(super) bytes: u64,
}

impl Gaps {
    fn add(&mut self, bytes: u64) {
        // What was before the capture is not missing from it.
        if bytes > 0 && bytes < u64::MAX {
            self.count += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }
}

/// What is left of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Whether it said something, but nothing in a wanted protocol.
    pub(super) is_unknown: bool,
    /// What its parser lost.
    pub(super) lost: Lost,
}

impl Flow {
    /// A connection that a segment belongs to, which has not been taken yet.
    pub(super) fn new(segment: &Segment<'_>, id: u64) -> Self {
        let opens = segment.tcp.is_some_and(|numbers| numbers.syn);
        // Who answers an opening is the server. Without one, servers have the lower ports.
        let answers = opens && segment.tcp.is_some_and(|numbers| numbers.acknowledged.is_some());
        let lower = segment.source.port() < segment.destination.port();
        let is_server = if opens { answers } else { lower };
        let (client, server) = if is_server {
            (segment.destination, segment.source)
        } else {
            (segment.source, segment.destination)
        };
        let connection = Connection::new(Origin {
            id,
            transport: if segment.tcp.is_some() { Transport::Stream } else { Transport::Datagram },
            role: Role::Server,
            role_turns: false,
            client: Some(client),
            server: Some(server),
            is_oriented: opens,
            from_start: opens,
            is_encrypted: false,
        });
        Self {
            connection: Some(connection),
            halves: Default::default(),
            closed_by: None,
            gaps: Gaps::default(),
            spoke: false,
            last: BootNanos(0),
        }
    }

    /// Whether a segment opens another connection between the same ports.
    pub(super) fn is_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let opens = segment.tcp.filter(|numbers| numbers.syn && numbers.acknowledged.is_none());
        opens.is_some_and(|numbers| {
            !self.halves.get(sender(segment)).is_some_and(|half| half.is_opened_by(numbers.sequence))
        })
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_none()
    }

    /// The server's address.
    pub(super) fn server(&self) -> Option<SocketAddr> {
        self.connection.as_ref().and_then(|connection| connection.origin().server)
    }

    /// Bytes that wait for others.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.halves.iter().map(Half::waiting_bytes).sum()
    }

    /// Segments that had come before.
    pub(super) fn duplicates(&self) -> u64 {
        self.halves.iter().map(Half::duplicates).sum()
    }

    /// What was missing.
    pub(super) fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// Takes a segment. Says whether the connection is closed with it: then it has to be ended.
    pub(super) fn take(
        &mut self,
        segment: &Segment<'_>,
        time: BootNanos,
        settings: &Settings,
        spans: &mut Vec<Span>,
    ) -> bool {
        self.last = time;
        self.spoke |= segment.length > 0;
        let Some(connection) = &mut self.connection else { return false };
        let Some(numbers) = segment.tcp else {
            let cut = u64::from(segment.length) - segment.payload.len() as u64;
            let direction = direction(connection, segment.source);
            connection.data(
                Chunk { direction, time, gap_before: 0, bytes: segment.payload, cut },
                settings,
                None,
                spans,
            );
            return false;
        };
        let direction = direction(connection, segment.source);
        if numbers.syn || !connection.is_unknown() {
            self.stream(segment, numbers, time, settings, spans);
        }
        if numbers.fin || numbers.rst {
            self.closed_by.get_or_insert(direction);
        }
        if numbers.fin
            && let Some(half) = self.halves.get_mut(sender(segment))
        {
            half.end(numbers.sequence.wrapping_add(segment.length));
        }
        numbers.rst || self.halves.iter().all(Half::is_ended)
    }

    /// A segment with its place in the stream.
    fn stream(
        &mut self,
        segment: &Segment<'_>,
        numbers: Numbers,
        time: BootNanos,
        settings: &Settings,
        spans: &mut Vec<Span>,
    ) {
        let Self { connection: Some(connection), halves: [low, high], gaps, .. } = self else { return };
        let (own, other) = if sender(segment) == 0 { (low, high) } else { (high, low) };
        let mut deliver = |from: SocketAddr, piece: Piece<'_>| {
            let Piece { time, gap_before, bytes, cut } = piece;
            gaps.add(gap_before);
            let direction = direction(connection, from);
            connection.data(Chunk { direction, time, gap_before, bytes, cut }, settings, None, spans);
        };
        if numbers.syn {
            own.open(numbers.sequence);
        }
        if segment.length == 0 {
            return;
        }
        // Who says something new has what it answers.
        if let Some(acknowledged) = numbers.acknowledged {
            other.acknowledged(acknowledged, time, &mut |piece| deliver(segment.destination, piece));
        }
        let first = numbers.sequence.wrapping_add(u32::from(numbers.syn));
        own.push(first, time, segment.payload, segment.length, &mut |piece| deliver(segment.source, piece));
    }

    /// Waits for nothing any more.
    pub(super) fn flush(&mut self, settings: &Settings, spans: &mut Vec<Span>) {
        let Self { connection: Some(connection), halves, gaps, .. } = self else { return };
        let (Some(client), Some(server)) = (connection.origin().client, connection.origin().server) else {
            return;
        };
        let (low, high) = if client < server { (client, server) } else { (server, client) };
        for (half, from) in halves.iter_mut().zip([low, high]) {
            half.flush(&mut |piece| {
                let Piece { time, gap_before, bytes, cut } = piece;
                gaps.add(gap_before);
                let direction = direction(connection, from);
                connection.data(Chunk { direction, time, gap_before, bytes, cut }, settings, None, spans);
            });
        }
    }

    /// Nothing comes any more. None: it had ended.
    pub(super) fn end(&mut self, settings: &Settings, spans: &mut Vec<Span>) -> Option<Ended> {
        self.flush(settings, spans);
        let mut connection = self.connection.take()?;
        let end = self.closed_by.map_or(End::Unknown, End::Closed);
        connection.end(self.last, end, settings, spans);
        let is_unknown = self.spoke && connection.protocol().is_none();
        Some(Ended { is_unknown, lost: connection.lost() })
    }
}

/// Whose segment it is: 0 of the address that is less.
pub(super) fn sender(segment: &Segment<'_>) -> usize {
    usize::from(segment.source > segment.destination)
}

fn direction(connection: &Connection, from: SocketAddr) -> Direction {
    if connection.origin().client == Some(from) { Direction::ToServer } else { Direction::ToClient }
}
