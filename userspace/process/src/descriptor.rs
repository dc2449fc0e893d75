//! What a descriptor of a process stands for, now: a path, or a socket with its addresses.
//!
//! A descriptor can be closed or used anew at any moment, so the answer is right only as long as nobody did so since the
//! call that is asked about.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use descry_decode::ids::Tgid;
use lru::LruCache;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UnixNetEntries};
use procfs::{FromBufRead, FromBufReadSI, current_system_info};

use crate::proc_file;

/// Network namespaces whose sockets are remembered.
const MAX_NAMESPACES: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// For how long: a socket that is made meanwhile is shown without addresses.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Of each of the kernel's tables of sockets (some 150 B a socket); those beyond are shown without addresses.
const MAX_TABLE_BYTES: u64 = 8 << 20;

/// The sockets of a network namespace by inode number.
type Sockets = HashMap<u64, String>;

/// Looks descriptors up.
pub struct Descriptors {
    namespaces: LruCache<u64, (Instant, Sockets)>,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self { namespaces: LruCache::new(MAX_NAMESPACES) }
    }
}

impl Descriptors {
    /// What the descriptor stands for, in the words of `strace -yy`: a path, `pipe:[N]`, `anon_inode:[eventpoll]`,
    /// `TCP:[LOCAL->REMOTE]`, `UNIX:[PATH]`; none: it is closed, or its process is gone.
    pub fn describe(&mut self, tgid: Tgid, descriptor: i32) -> Option<String> {
        if descriptor < 0 {
            return None;
        }
        let link = proc_file::read_link(tgid, &format!("fd/{descriptor}")).ok()?;
        let text = link.to_string_lossy().into_owned();
        let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        let Some(inode) = inode.and_then(|inode| inode.parse().ok()) else { return Some(text) };
        Some(self.socket(tgid, inode).unwrap_or(text))
    }

    fn socket(&mut self, tgid: Tgid, inode: u64) -> Option<String> {
        let namespace = std::fs::metadata(proc_file::path(tgid, "ns/net")).ok()?.st_ino();
        let is_fresh = |(read, _): &(Instant, Sockets)| read.elapsed() < REMEMBERED;
        if !self.namespaces.get(&namespace).is_some_and(is_fresh) {
            self.namespaces.put(namespace, (Instant::now(), sockets(&proc_file::path(tgid, "net"))));
        }
        self.namespaces.get(&namespace).and_then(|(_, sockets)| sockets.get(&inode).cloned())
    }
}

/// All sockets of the tables in a directory `/proc/PID/net`. A table that is missing or cannot be read has none.
fn sockets(directory: &Path) -> Sockets {
    let table =
        |name: &str| proc_file::read_lines(&directory.join(name), MAX_TABLE_BYTES).unwrap_or_default();
    let mut sockets = Sockets::new();
    for (name, protocol) in [("tcp", "TCP"), ("tcp6", "TCPv6")] {
        let entries = TcpNetEntries::from_buf_read(&*table(name), current_system_info());
        for entry in entries.map(|entries| entries.0).unwrap_or_default() {
            let is_connected = entry.state != TcpState::Listen && entry.state != TcpState::Close;
            let remote = is_connected.then_some(entry.remote_address);
            sockets.insert(entry.inode, addresses(protocol, entry.local_address, remote));
        }
    }
    for (name, protocol) in [("udp", "UDP"), ("udp6", "UDPv6")] {
        let entries = UdpNetEntries::from_buf_read(&*table(name), current_system_info());
        for entry in entries.map(|entries| entries.0).unwrap_or_default() {
            let remote = (entry.remote_address.port() != 0).then_some(entry.remote_address);
            sockets.insert(entry.inode, addresses(protocol, entry.local_address, remote));
        }
    }
    let entries = UnixNetEntries::from_buf_read(&*table("unix"));
    for entry in entries.map(|entries| entries.0).unwrap_or_default() {
        let name =
            entry.path.map_or_else(|| entry.inode.to_string(), |path| path.to_string_lossy().into_owned());
        sockets.insert(entry.inode, format!("UNIX:[{name}]"));
    }
    sockets
}

fn addresses(protocol: &str, local: SocketAddr, remote: Option<SocketAddr>) -> String {
    match remote {
        Some(remote) => format!("{protocol}:[{local}->{remote}]"),
        None => format!("{protocol}:[{local}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Of this process: each is looked up anew, since the tables are remembered.
    fn check(file: &impl AsRawFd, expected: &str) {
        let text = Descriptors::default().describe(Tgid(std::process::id()), file.as_raw_fd());
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn files_and_sockets() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a file");
        let file = std::fs::File::create(&path).expect("a file");
        check(&file, &path.to_string_lossy());

        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let server = listener.local_addr().expect("its address");
        check(&listener, &format!("TCP:[{server}]"));
        let stream = TcpStream::connect(server).expect("a connection");
        let client = stream.local_addr().expect("its address");
        check(&stream, &format!("TCP:[{client}->{server}]"));

        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let local = socket.local_addr().expect("its address");
        check(&socket, &format!("UDP:[{local}]"));
        socket.connect(server).expect("an address to send to");
        check(&socket, &format!("UDP:[{local}->{server}]"));

        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a listener");
        check(&listener, &format!("UNIX:[{}]", path.display()));
    }

    #[test]
    fn what_is_closed_or_gone_is_nothing() {
        let mut descriptors = Descriptors::default();
        assert_eq!(descriptors.describe(Tgid(std::process::id()), -1), None);
        assert_eq!(descriptors.describe(Tgid(std::process::id()), 1_000_000), None);
        assert_eq!(descriptors.describe(Tgid(u32::MAX), 0), None);
    }
}
