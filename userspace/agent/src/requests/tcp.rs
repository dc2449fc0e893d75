//! What TCP did: read from the kernel side, each process's rows under its Resource.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use descry_abi::tcp::TcpPeerKey;
use descry_aggregate::tcp::{Peer, TcpPeers};
use descry_decode::ids::Tgid;
use descry_export::span::SpanProcess;
use descry_probe::{ProbeError, Session};
use rustc_hash::{FxHashMap, FxHashSet};

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same where processes ended whose numbers may come again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Processes that ended whose rows are read yet, at most; those of more count for nobody.
const MAX_ENDED: usize = 4096;

/// Reads what TCP did.
pub struct Tcp {
    /// Processes that ended since the last reading, or run another program.
    ended: FxHashMap<Tgid, SpanProcess>,
    /// Rows of dead processes that were not known at the last reading: what made them known may be in the ring since.
    strangers: FxHashSet<TcpPeerKey>,
    last: Instant,
}

impl Tcp {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self { ended: FxHashMap::default(), strangers: FxHashSet::default(), last: Instant::now() }
    }

    /// A process ended. Its rows are taken out of the kernel with the next reading.
    pub fn ended(&mut self, tgid: Tgid, process: SpanProcess) {
        if self.ended.len() < MAX_ENDED {
            self.ended.insert(tgid, process);
        }
    }

    /// Whether it is time to read.
    pub fn is_due(&self) -> bool {
        let is_calm = self.ended.is_empty() && self.strangers.is_empty();
        self.last.elapsed() >= if is_calm { INTERVAL } else { PATIENCE }
    }

    /// Reads what was counted of `processes`, and of those that ended since the last reading.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn read(
        &mut self,
        session: &mut Session,
        processes: &FxHashMap<Tgid, SpanProcess>,
        peers: &mut TcpPeers<SpanProcess>,
    ) -> Result<(), ProbeError> {
        self.last = Instant::now();
        let mut gone: Vec<TcpPeerKey> = Vec::new();
        let met = std::mem::take(&mut self.strangers);
        for row in session.tcp_counts()? {
            let Some(key) = row.key else {
                peers.update(None, Peer::Others, &row.counts);
                continue;
            };
            let Some(address) = address(&key) else { continue };
            let tgid = Tgid(key.tgid);
            let ended = self.ended.get(&tgid);
            if let Some(owner) = ended.or_else(|| processes.get(&tgid)) {
                peers.update(Some(owner.clone()), Peer::Address(address), &row.counts);
            }
            // The process may have ended before it was known, and sockets outlive it.
            let is_stranger = || !processes.contains_key(&tgid) && !is_alive(tgid);
            if ended.is_some() || met.contains(&key) && is_stranger() {
                gone.push(key);
            } else if is_stranger() {
                self.strangers.insert(key);
            }
        }
        session.forget_tcp_counts(&gone);
        self.ended.drain().for_each(|(_, process)| peers.ended(process));
        Ok(())
    }
}

/// The kernel side tells no families but these two.
fn address(key: &TcpPeerKey) -> Option<SocketAddr> {
    let ip: IpAddr = match i32::from(key.family) {
        libc::AF_INET => IpAddr::from(*key.address.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(key.address),
        _ => return None,
    };
    Some(SocketAddr::new(ip, key.port))
}

fn is_alive(tgid: Tgid) -> bool {
    Path::new(&format!("/proc/{tgid}")).exists()
}
