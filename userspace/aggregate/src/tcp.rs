//! What TCP did for processes, by peer: connects, failed ones, round trips, retransmissions.
//!
//! Give [`TcpPeers`] what the kernel side counted since the beginning, as often as it is read; read the [`Row`]s with
//! all of it, or with what is to be told. It is pure, and keeps a bounded number of rows.

use std::hash::Hash;
use std::net::SocketAddr;

use descry_abi::tcp::TcpPeer;
use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::histogram::since;
use crate::request::Temporality;

/// Rows at most (2.7 KiB each, twice that with [`Temporality::Delta`]): those that the kernel side has, and as many of
/// processes that ended.
const MAX_ROWS: usize = 2 * descry_abi::tcp::MAX_TCP_PEERS as usize;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// A server that a process called, or a client that called it (whose port is 0).
    Address(SocketAddr),
    /// All that found no room.
    Others,
}

/// What TCP did for a process `P`; `None` stands for all processes, of peers that found no room.
#[derive(Debug)]
pub struct TcpPeers<P> {
    temporality: Temporality,
    rows: IndexMap<(Option<P>, Peer), Sums, FxBuildHasher>,
    /// Processes that ended: their rows make room.
    ended: FxHashSet<P>,
    over_limit: u64,
}

#[derive(Debug)]
struct Sums {
    now: Box<TcpPeer>,
    /// What was told; none: nothing yet, or all is told each time.
    told: Option<Box<TcpPeer>>,
}

/// What TCP did for a process with a peer.
#[derive(Debug)]
pub struct Row<'a, P> {
    /// The process.
    pub process: Option<&'a P>,
    /// The other end.
    pub peer: Peer,
    /// What it did.
    pub counts: TcpPeer,
}

impl<P: Hash + Eq + Clone> TcpPeers<P> {
    /// Nothing yet.
    pub fn new(temporality: Temporality) -> Self {
        Self { temporality, rows: IndexMap::default(), ended: FxHashSet::default(), over_limit: 0 }
    }

    /// What was counted of a process and a peer since the beginning.
    pub fn update(&mut self, process: Option<P>, peer: Peer, counts: &TcpPeer) {
        if is_empty(counts) {
            return;
        }
        let key = (process, peer);
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&key) {
            self.rows.retain(|(process, _), _| process.as_ref().is_none_or(|it| !self.ended.contains(it)));
            self.ended.clear();
            if self.rows.len() >= MAX_ROWS {
                self.over_limit += 1;
                return;
            }
        }
        let sums = self.rows.entry(key).or_insert_with(|| Sums { now: Box::default(), told: None });
        *sums.now = *counts;
    }

    /// A process ended: its rows stay until there is no room for others.
    pub fn ended(&mut self, process: P) {
        if self.ended.len() < MAX_ROWS {
            self.ended.insert(process);
        }
    }

    /// All that was counted, those with the most connects, failures and retransmissions first.
    pub fn all(&self) -> Vec<Row<'_, P>> {
        let mut rows: Vec<Row<'_, P>> = self.rows(|sums| *sums.now).collect();
        let weight = |row: &Row<'_, P>| {
            let counts = &row.counts;
            counts.connects.count + counts.failed + counts.retransmits + counts.round_trips.count
        };
        rows.sort_by_key(|row| std::cmp::Reverse(weight(row)));
        rows
    }

    /// What is to be told now, by the temporality.
    pub fn since_told(&self) -> impl Iterator<Item = Row<'_, P>> {
        let rows = self.rows(|sums| {
            let told = sums.told.as_deref();
            told.map_or(*sums.now, |told| without(&sums.now, told))
        });
        rows.filter(|row| !is_empty(&row.counts))
    }

    /// It was told.
    pub fn told(&mut self) {
        if self.temporality == Temporality::Delta {
            self.rows.values_mut().for_each(|sums| sums.told = Some(sums.now.clone()));
        }
    }

    /// Times that a row found no room.
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    fn rows(&self, of: impl Fn(&Sums) -> TcpPeer) -> impl Iterator<Item = Row<'_, P>> {
        self.rows.iter().map(move |((process, peer), sums)| Row {
            process: process.as_ref(),
            peer: *peer,
            counts: of(sums),
        })
    }
}

fn is_empty(counts: &TcpPeer) -> bool {
    let TcpPeer { connects, round_trips, failed, retransmits } = counts;
    connects.count == 0 && round_trips.count == 0 && *failed == 0 && *retransmits == 0
}

/// What came since `before`.
fn without(now: &TcpPeer, before: &TcpPeer) -> TcpPeer {
    TcpPeer {
        connects: since(&now.connects, &before.connects),
        round_trips: since(&now.round_trips, &before.round_trips),
        failed: now.failed.saturating_sub(before.failed),
        retransmits: now.retransmits.saturating_sub(before.retransmits),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::histogram::record;

    const PEER: Peer = Peer::Address(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80));

    fn counts(connects: &[u64], failed: u64) -> TcpPeer {
        let mut counts = TcpPeer { failed, ..TcpPeer::default() };
        connects.iter().for_each(|duration| record(&mut counts.connects, *duration));
        counts
    }

    /// (connects, sum, longest, failed) of each row.
    fn seen<'a>(rows: impl IntoIterator<Item = Row<'a, u32>>) -> Vec<(u64, u64, u64, u64)> {
        let line = |counts: TcpPeer| {
            (counts.connects.count, counts.connects.sum, counts.connects.max, counts.failed)
        };
        rows.into_iter().map(|row| line(row.counts)).collect()
    }

    #[test]
    fn deltas_are_what_came_since() {
        for (temporality, second) in
            [(Temporality::Delta, (1, 500, 512, 1)), (Temporality::Cumulative, (2, 5500, 5000, 3))]
        {
            let mut peers = TcpPeers::new(temporality);
            peers.update(Some(1), PEER, &counts(&[], 0));
            assert_eq!(seen(peers.since_told()), []);
            peers.update(Some(1), PEER, &counts(&[5000], 2));
            assert_eq!(seen(peers.since_told()), [(1, 5000, 5000, 2)]);
            peers.told();
            peers.update(Some(1), PEER, &counts(&[5000, 500], 3));
            assert_eq!(seen(peers.since_told()), [second]);
            assert_eq!(seen(peers.all()), [(2, 5500, 5000, 3)]);
        }
    }

    #[test]
    fn processes_that_ended_make_room() {
        let mut peers = TcpPeers::new(Temporality::Cumulative);
        for process in 0..MAX_ROWS as u32 {
            peers.update(Some(process), PEER, &counts(&[1], 0));
        }
        peers.update(Some(u32::MAX), PEER, &counts(&[1], 0));
        assert_eq!((peers.all().len(), peers.over_limit()), (MAX_ROWS, 1));
        (0..100).for_each(|process| peers.ended(process));
        peers.update(Some(u32::MAX), PEER, &counts(&[1], 0));
        assert_eq!((peers.all().len(), peers.over_limit()), (MAX_ROWS - 99, 1));
    }
}
