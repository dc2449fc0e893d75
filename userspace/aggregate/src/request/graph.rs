//! Who asked whom: the edges of the service graph.
//!
//! An edge is between two services where both ends of a connection are watched; they are paired by its addresses. Else
//! one end is an address. A request counts once: where its client is watched by the client's span, else by the server's.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use descry_abi::histogram::Histogram;
use descry_assemble::span::{Span, SpanKind, Status};
use indexmap::{Equivalent, IndexMap};
use lru::LruCache;
use rustc_hash::FxBuildHasher;

use super::Temporality;
use crate::histogram::{add, record};

/// Edges that are kept apart; requests of more are in [`Edge::is_overflow`]. One takes about 2.7 KiB, twice that with
/// [`Temporality::Delta`].
const MAX_EDGES: usize = 1024;
/// Ends of connections that are remembered; about 150 B each. The least recently used one goes for a new one.
const MAX_ENDS: NonZeroUsize = NonZeroUsize::new(32_768).expect("not zero");

/// The addresses of a connection, as far as it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub client: Option<SocketAddr>,
    /// The server's.
    pub server: Option<SocketAddr>,
}

/// An end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A watched process, by `service.name`.
    Service(Arc<str>),
    /// A server that is not watched.
    Server(SocketAddr),
    /// A client that is not watched. Its port is another one each time.
    Client(IpAddr),
    /// Nobody that has an address.
    Unknown,
}

/// What an edge is, in the words of the Collector's service graph connector (`connection_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connected {
    /// Two services that are both watched.
    Services,
    /// A client and its database.
    Database,
    /// One end is not watched.
    VirtualNode,
}

impl Connected {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "",
            Self::Database => "database",
            Self::VirtualNode => "virtual_node",
        }
    }
}

/// An edge with what was added up.
#[derive(Debug)]
pub struct Edge<'a> {
    /// Who asked.
    pub client: &'a Node,
    /// Who was asked.
    pub server: &'a Node,
    /// What kind of edge it is.
    pub connected: Connected,
    /// The protocol; empty: it is not known.
    pub protocol: &'a str,
    /// Whether it stands for all edges that found no room; then the others mean nothing.
    pub is_overflow: bool,
    /// Requests.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// How long they took for the client (ns).
    pub client_durations: &'a Histogram,
    /// How long they took for the server (ns).
    pub server_durations: &'a Histogram,
}

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Requests whose edge is that of all others.
    pub overflow: u64,
}

/// Adds up who asked whom.
#[derive(Debug)]
pub struct ServiceGraph {
    temporality: Temporality,
    /// Services by the addresses of a connection of theirs: own, other.
    ends: LruCache<(SocketAddr, SocketAddr), Arc<str>>,
    edges: IndexMap<Key, Box<Sums>, FxBuildHasher>,
    others: Option<Box<Sums>>,
    counters: EdgeCounters,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Node,
    server: Node,
    connected: Connected,
    protocol: Box<str>,
}

#[derive(Hash)]
struct BorrowedKey<'a> {
    client: &'a Node,
    server: &'a Node,
    connected: Connected,
    protocol: &'a str,
}

impl Equivalent<Key> for BorrowedKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.client == key.client
            && *self.server == key.server
            && self.connected == key.connected
            && *self.protocol == *key.protocol
    }
}

/// What was added up at all, and since it was told where that is wanted.
#[derive(Debug, Default)]
struct Sums {
    all: Sum,
    new: Option<Box<Sum>>,
}

#[derive(Clone, Debug, Default)]
struct Sum {
    requests: u64,
    failed: u64,
    client: Histogram,
    server: Histogram,
}

impl ServiceGraph {
    /// Nothing yet. With [`Temporality::Delta`], [`ServiceGraph::since_told`] begins anew each time that it is told.
    pub fn new(temporality: Temporality) -> Self {
        Self {
            temporality,
            ends: LruCache::new(MAX_ENDS),
            edges: IndexMap::default(),
            others: None,
            counters: EdgeCounters::default(),
        }
    }

    /// A service has this end of a connection.
    pub fn met(&mut self, own: SocketAddr, other: SocketAddr, service: Arc<str>) {
        self.ends.put((canonical(own), canonical(other)), service);
    }

    /// Adds a request: a span of `service` on a connection between `ends`.
    pub fn record(&mut self, span: &Span, service: &Arc<str>, ends: Ends) {
        let duration = span.end.0.saturating_sub(span.start.0);
        self.add(span, service, ends, 1, |durations| record(durations, duration));
    }

    /// Adds requests that differ from a span in their times only.
    pub fn record_many(&mut self, span: &Span, service: &Arc<str>, ends: Ends, durations: &Histogram) {
        self.add(span, service, ends, durations.count, |to| add(to, durations));
    }

    /// Adds so many requests, whose durations `add` adds.
    fn add(
        &mut self,
        span: &Span,
        service: &Arc<str>,
        ends: Ends,
        number: u64,
        add: impl Fn(&mut Histogram),
    ) {
        let is_client = match span.kind {
            SpanKind::Client | SpanKind::Producer => true,
            SpanKind::Server | SpanKind::Consumer => false,
            SpanKind::Internal => return,
        };
        let (client, server) = (ends.client.map(canonical), ends.server.map(canonical));
        let (own, other) = if is_client { (client, server) } else { (server, client) };
        let others = own.zip(other).and_then(|(own, other)| self.ends.get(&(other, own)));
        let is_paired = others.is_some();
        let other = match (others, other) {
            (Some(service), _) => Node::Service(Arc::clone(service)),
            (None, Some(address)) if is_client => Node::Server(address),
            (None, Some(address)) => Node::Client(address.ip()),
            (None, None) => Node::Unknown,
        };
        let own = Node::Service(Arc::clone(service));
        let (client, server) = if is_client { (&own, &other) } else { (&other, &own) };
        let connected = match (span.attribute("db.system.name").is_some(), is_paired) {
            (true, _) => Connected::Database,
            (false, true) => Connected::Services,
            (false, false) => Connected::VirtualNode,
        };
        let protocol = span.protocol().unwrap_or_default();
        let sums = self.sums(&BorrowedKey { client, server, connected, protocol });
        let counts = is_client || !is_paired;
        let has_failed = matches!(span.status, Status::Error(_));
        for sum in std::iter::once(&mut sums.all).chain(sums.new.as_deref_mut()) {
            sum.requests += if counts { number } else { 0 };
            sum.failed += if counts && has_failed { number } else { 0 };
            add(if is_client { &mut sum.client } else { &mut sum.server });
        }
    }

    fn sums(&mut self, key: &BorrowedKey<'_>) -> &mut Sums {
        let place = match self.edges.get_index_of(key) {
            Some(place) => Some(place),
            None if self.edges.len() < MAX_EDGES => {
                let key = Key {
                    client: key.client.clone(),
                    server: key.server.clone(),
                    connected: key.connected,
                    protocol: key.protocol.into(),
                };
                Some(self.edges.insert_full(key, Box::default()).0)
            }
            None => None,
        };
        let sums = match place.and_then(|place| self.edges.get_index_mut(place)) {
            Some((_, sums)) => sums,
            None => {
                self.counters.overflow += 1;
                self.others.get_or_insert_default()
            }
        };
        if self.temporality == Temporality::Delta {
            sums.new.get_or_insert_default();
        }
        sums
    }

    /// The edges with all that was added up, those with the most requests first.
    pub fn all(&self) -> Vec<Edge<'_>> {
        let mut edges: Vec<Edge<'_>> = self.edges(|sums| Some(&sums.all)).collect();
        edges.sort_by_key(|edge| std::cmp::Reverse(edge.requests));
        edges
    }

    /// The edges with what is to be told now, by the temporality.
    pub fn since_told(&self) -> impl Iterator<Item = Edge<'_>> {
        let temporality = self.temporality;
        self.edges(move |sums| match temporality {
            Temporality::Cumulative => Some(&sums.all),
            Temporality::Delta => sums.new.as_deref(),
        })
    }

    /// They were told.
    pub fn told(&mut self) {
        let sums = self.edges.values_mut().chain(self.others.as_mut());
        sums.for_each(|sums| sums.new = None);
    }

    /// What found no room.
    pub fn counters(&self) -> EdgeCounters {
        self.counters
    }

    fn edges<'a>(&'a self, of: impl Fn(&'a Sums) -> Option<&'a Sum>) -> impl Iterator<Item = Edge<'a>> {
        let own = self
            .edges
            .iter()
            .map(|(key, sums)| (&key.client, &key.server, key.connected, &*key.protocol, false, &**sums));
        let unknown = &Node::Unknown;
        let others =
            self.others.as_ref().map(|sums| (unknown, unknown, Connected::VirtualNode, "", true, &**sums));
        own.chain(others).filter_map(move |(client, server, connected, protocol, is_overflow, sums)| {
            let sum = of(sums)?;
            Some(Edge {
                client,
                server,
                connected,
                protocol,
                is_overflow,
                requests: sum.requests,
                failed: sum.failed,
                client_durations: &sum.client,
                server_durations: &sum.server,
            })
        })
    }
}

/// An IPv4 address that came as one of IPv6 is that of IPv4, since the other end may have it so.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
