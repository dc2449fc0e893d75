//! TCP as watched processes meet it: how long connecting takes and why it fails, round trips, retransmissions.
//!
//! What happens often is added up in the kernel by process and peer ([`TcpPeer`]); a connect that failed is told of
//! ([`ConnectFailed`]).

use crate::histogram::Histogram;

/// Peers of processes that are added up apart; what comes of more is added up as one.
pub const MAX_TCP_PEERS: u32 = 2048;
/// A process and who is at the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TcpPeerKey {
    /// Process.
    pub tgid: u32,
    /// The peer's port; 0 where the peer called: it takes another one each time.
    pub port: u16,
    /// `AF_INET` or `AF_INET6` (linux/socket.h).
    pub family: u16,
    /// The peer's address, in network byte order; the first 4 bytes for `AF_INET`.
    pub address: [u8; 16],
}
const _: () = assert!(size_of::<TcpPeerKey>() == 24);

/// What was added up of a process and a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TcpPeer {
    /// From the SYN to the connection (ns).
    pub connects: Histogram,
    /// Smoothed round trip times (ns), as the kernel had them at the 1st, 2nd, 4th, 8th ... message of a connection and at
    /// its end.
    pub round_trips: Histogram,
    /// Connects that failed.
    pub failed: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}
const _: () = assert!(size_of::<TcpPeer>() == 2 * size_of::<Histogram>() + 16);

/// A connect that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectFailed {
    /// `EventKind::ConnectFailed`.
    pub kind: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// The error's number; 0: the process gave up.
    pub error: u16,
    /// The port that it wanted.
    pub remote_port: u16,
    /// When it began (ns, `CLOCK_BOOTTIME`).
    pub start: u64,
    /// When it failed.
    pub end: u64,
    /// Process.
    pub tgid: u32,
    /// Thread that began it.
    pub tid: u32,
    /// Request that it was made for, 0: none known.
    pub request: u64,
    /// Execution unit.
    pub unit: u64,
    /// The address that it wanted.
    pub remote: [u8; 16],
}
const _: () = assert!(size_of::<ConnectFailed>() == 64);
