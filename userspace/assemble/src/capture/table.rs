//! All connections of a capture.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use descry_decode::ids::BootNanos;
use lru::LruCache;
use sha2::{Digest, Sha256};

use super::file::Packet;
use super::flow::{Ended, Flow};
use super::packet::{Ignored, Segment, parse};
use crate::connection::Settings;
use crate::protocol::Lost;
use crate::span::Span;

/// Connections that are known at the same time, those that were closed among them: the longest idle is forgotten.
const MAX_FLOWS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Bytes of all connections together that may wait for a missing segment.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// A connection's addresses, the lesser first, and whether it is TCP.
type Key = (SocketAddr, SocketAddr, bool);

/// All connections.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    flows: LruCache<Key, Flow>,
    waiting: usize,
    counters: Counters,
    spans: Vec<Span>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Packets that are neither TCP nor UDP over IP.
    pub other_packets: u64,
    /// Parts of larger IP packets: they are not put together.
    pub fragments: u64,
    /// Packets whose headers make no sense, or were not captured.
    pub malformed_packets: u64,
    /// Packets of a link type that is not read.
    pub unknown_links: u64,
    /// Connections (of UDP: pairs of addresses and ports that talk).
    pub connections: u64,
    /// Connections that said something, none of it in a protocol that is wanted.
    pub unknown_connections: u64,
    /// Connections that were forgotten while they were open because there were too many.
    pub connections_dropped: u64,
    /// TCP segments whose bytes had come before.
    pub duplicates: u64,
    /// Times that bytes were missing.
    pub gaps: u64,
    /// Bytes that were missing, as far as it is known.
    pub gap_bytes: u64,
    /// What parsers lost.
    pub lost: Lost,
}

/// A span, and the address of the server that it belongs to.
pub type Observed<'a> = &'a mut dyn FnMut(Span, Option<SocketAddr>);

impl Table {
    /// No connection is known.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            flows: LruCache::new(MAX_FLOWS),
            waiting: 0,
            counters: Counters::default(),
            spans: Vec::new(),
        }
    }

    /// Takes a packet, and gives the spans that end with it.
    pub fn packet(&mut self, packet: &Packet<'_>, observed: Observed<'_>) {
        self.counters.packets += 1;
        let segment = match parse(packet) {
            Ok(segment) => segment,
            Err(ignored) => {
                match ignored {
                    Ignored::Other => self.counters.other_packets += 1,
                    Ignored::Fragment => self.counters.fragments += 1,
                    Ignored::Malformed => self.counters.malformed_packets += 1,
                    Ignored::Link => self.counters.unknown_links += 1,
                }
                return;
            }
        };
        let (source, destination) = (segment.source, segment.destination);
        let key = (source.min(destination), source.max(destination), segment.tcp.is_some());
        let time = BootNanos(packet.time.0);
        if self.flows.get(&key).is_none_or(|flow| flow.is_replaced_by(&segment)) {
            if let Some(old) = self.flows.pop(&key) {
                self.finish(old, observed);
            }
            // Of a connection that nobody knows only its end may be left.
            let opens = segment.tcp.is_some_and(|numbers| numbers.syn);
            if segment.length == 0 && !opens {
                return;
            }
            self.open(key, &segment, time, observed);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let (waited, duplicates, gaps) = (flow.waiting_bytes(), flow.duplicates(), flow.gaps());
        let closed = flow.take(&segment, time, &self.settings, &mut self.spans);
        if self.waiting + flow.waiting_bytes() > waited + MAX_WAITING_BYTES {
            flow.flush(&self.settings, &mut self.spans);
        }
        let server = flow.server();
        // What comes late is no new connection: the closed one stays until it is forgotten.
        let ended = if closed { flow.end(&self.settings, &mut self.spans) } else { None };
        self.waiting = (self.waiting + flow.waiting_bytes()).saturating_sub(waited);
        self.counters.duplicates += flow.duplicates() - duplicates;
        self.counters.gaps += flow.gaps().count - gaps.count;
        self.counters.gap_bytes += flow.gaps().bytes - gaps.bytes;
        self.counters.end(ended);
        self.give(server, observed);
    }

    /// No packet comes any more: gives what is still open.
    pub fn end_all(&mut self, observed: Observed<'_>) {
        while let Some((_, flow)) = self.flows.pop_lru() {
            self.finish(flow, observed);
        }
    }

    /// What was counted so far; what parsers of open connections lost is not among it.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn open(&mut self, key: Key, segment: &Segment<'_>, time: BootNanos, observed: Observed<'_>) {
        self.counters.connections += 1;
        let mut hash = Sha256::new();
        for address in [segment.source, segment.destination] {
            hash.update(address.to_string());
        }
        hash.update(time.0.to_le_bytes());
        hash.update(self.counters.connections.to_le_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let id = hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        if let Some((_, old)) = self.flows.push(key, Flow::new(segment, id)) {
            self.counters.connections_dropped += u64::from(!old.is_closed());
            self.finish(old, observed);
        }
    }

    /// Ends a connection that has been taken out.
    fn finish(&mut self, mut flow: Flow, observed: Observed<'_>) {
        let (waited, server) = (flow.waiting_bytes(), flow.server());
        let gaps = flow.gaps();
        let ended = flow.end(&self.settings, &mut self.spans);
        self.waiting = self.waiting.saturating_sub(waited);
        self.counters.gaps += flow.gaps().count - gaps.count;
        self.counters.gap_bytes += flow.gaps().bytes - gaps.bytes;
        self.counters.end(ended);
        self.give(server, observed);
    }

    fn give(&mut self, server: Option<SocketAddr>, observed: Observed<'_>) {
        for span in self.spans.drain(..) {
            observed(span, server);
        }
    }
}

impl Counters {
    fn end(&mut self, ended: Option<Ended>) {
        if let Some(ended) = ended {
            self.unknown_connections += u64::from(ended.is_unknown);
            self.lost = self.lost + ended.lost;
        }
    }
}
