//! Which connections are the agent's own: what it sends is no request of the programs that it watches.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use descry_decode::ids::Tgid;
use descry_decode::{Opened, Role};
use lru::LruCache;

/// Connections of the agent that are remembered, those that were opened last.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The agent's own connections.
pub struct Own {
    tgid: Tgid,
    /// By both ends, the agent's first: another client of this machine may have the agent's port towards another server.
    connections: LruCache<(SocketAddr, SocketAddr), ()>,
}

impl Own {
    /// Those of this process, as its own pid namespace numbers it.
    pub fn new() -> Self {
        Self { tgid: Tgid(std::process::id()), connections: LruCache::new(MAX_CONNECTIONS) }
    }

    /// Whether a process is the agent.
    pub fn is(&self, tgid: Tgid) -> bool {
        tgid == self.tgid
    }

    /// Whether one end of a connection is the agent.
    pub fn has(&mut self, opened: &Opened) -> bool {
        let (Some(local), Some(remote)) = (opened.local, opened.remote) else { return self.is(opened.tgid) };
        if self.is(opened.tgid) {
            if opened.role == Role::Connected {
                self.connections.push((local, remote), ());
            }
            return true;
        }
        self.connections.contains(&(remote, local))
    }
}

#[cfg(test)]
mod tests {
    use descry_decode::Transport;
    use descry_decode::ids::{BootNanos, ConnectionId, Tid};

    use super::*;

    fn opened(tgid: u32, role: Role, local: u16, remote: u16) -> Opened {
        let address = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Opened {
            time: BootNanos(0),
            tgid: Tgid(tgid),
            tid: Tid(tgid),
            connection: ConnectionId(0),
            transport: Transport::Tcp,
            role,
            from_start: true,
            local: address(local),
            remote: address(remote),
        }
    }

    #[test]
    fn both_ends_tell_whose_connection_it_is() {
        let me = std::process::id();
        let mut own = Own::new();
        assert!(own.has(&opened(me, Role::Connected, 40_000, 4317)), "the agent sends");
        assert!(own.has(&opened(1, Role::Accepted, 4317, 40_000)), "the collector receives");
        assert!(
            !own.has(&opened(1, Role::Accepted, 80, 40_000)),
            "another server, a client with the same port"
        );
        assert!(!own.has(&opened(2, Role::Connected, 40_000, 80)), "that client");
        assert!(!own.has(&opened(1, Role::Accepted, 4317, 40_002)), "another client of the collector");
        assert!(own.has(&opened(me, Role::Accepted, 9464, 40_004)), "who scrapes the agent");
    }
}
