//! What TCP did, by process and peer.

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use descry_abi::tcp::{TcpPeer, TcpPeerKey};

use super::{Session, take};
use crate::ProbeError;

/// A [`TcpPeerKey`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(TcpPeerKey);

// SAFETY: repr(C), u32, two u16 and bytes without padding.
unsafe impl aya::Pod for Key {}

/// A [`TcpPeer`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(TcpPeer);

// SAFETY: repr(C), words without padding.
unsafe impl aya::Pod for Value {}

/// What userspace reads.
pub(super) struct TcpMaps {
    peers: HashMap<MapData, Key, Value>,
    others: Array<MapData, Value>,
}

/// What TCP did for a process with a peer since the programs were attached.
#[derive(Clone, Copy, Debug)]
pub struct TcpCount {
    /// The process and its peer; none: all that found no room.
    pub key: Option<TcpPeerKey>,
    /// What was added up.
    pub counts: TcpPeer,
}

impl TcpMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let (peers, others) = (take(ebpf, "TCP_PEERS")?, take(ebpf, "TCP_OTHERS")?);
        Ok(Self {
            peers: peers.try_into().map_err(ProbeError::map("TCP_PEERS"))?,
            others: others.try_into().map_err(ProbeError::map("TCP_OTHERS"))?,
        })
    }
}

impl Session {
    /// What TCP did so far; nothing where sockets are not watched.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tcp_counts(&self) -> Result<Vec<TcpCount>, ProbeError> {
        let Some(net) = &self.net else { return Ok(Vec::new()) };
        let others = net.tcp.others.get(&0, 0).map_err(ProbeError::map("TCP_OTHERS"))?;
        let mut counts = vec![TcpCount { key: None, counts: others.0 }];
        for row in net.tcp.peers.iter() {
            let (key, value) = row.map_err(ProbeError::map("TCP_PEERS"))?;
            counts.push(TcpCount { key: Some(key.0), counts: value.0 });
        }
        Ok(counts)
    }

    /// Forgets these rows, of processes that ended.
    pub fn forget_tcp_counts(&mut self, keys: &[TcpPeerKey]) {
        let Some(net) = &mut self.net else { return };
        for key in keys {
            // One that is gone already is no error.
            let _ = net.tcp.peers.remove(&Key(*key));
        }
    }
}
