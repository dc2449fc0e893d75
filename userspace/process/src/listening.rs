//! The ports on which a process listens, now.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use descry_decode::ids::Tgid;
use lru::LruCache;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries};
use procfs::{FromBufReadSI, current_system_info};

use crate::proc_file;

/// Network namespaces and processes that are remembered.
const MAX_NAMESPACES: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
const MAX_PROCESSES: NonZeroUsize = NonZeroUsize::new(1 << 12).expect("not zero");
/// Descriptors of a process that are looked at. Servers open what they listen on before they accept; one that does not is
/// found by whoever sees it accept.
const MAX_DESCRIPTORS: usize = 1 << 12;
/// Of each of the kernel's tables of sockets (some 150 B a socket).
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// A line of them at most.
const MAX_LINE_BYTES: u64 = 1 << 10;

/// The ports of the listening sockets of a network namespace, by the socket's inode number.
type Ports = HashMap<u64, u16>;

/// Looks up who listens where, and remembers it until told to forget it.
pub struct Listening {
    namespaces: LruCache<u64, Ports>,
    processes: LruCache<Tgid, Vec<u16>>,
}

impl Default for Listening {
    fn default() -> Self {
        Self { namespaces: LruCache::new(MAX_NAMESPACES), processes: LruCache::new(MAX_PROCESSES) }
    }
}

impl Listening {
    /// The ports of TCP and UDP on which a process listens; none where it is gone or may not be looked at.
    pub fn ports(&mut self, tgid: Tgid) -> &[u16] {
        if !self.processes.contains(&tgid) {
            let ports = self.look(tgid).unwrap_or_default();
            self.processes.put(tgid, ports);
        }
        self.processes.get(&tgid).map_or(&[], Vec::as_slice)
    }

    /// Everything is to be looked up anew.
    pub fn forget(&mut self) {
        self.namespaces.clear();
        self.processes.clear();
    }

    fn look(&mut self, tgid: Tgid) -> Option<Vec<u16>> {
        let sockets: Vec<u64> = fs::read_dir(proc_file::path(tgid, "fd"))
            .ok()?
            .take(MAX_DESCRIPTORS)
            .filter_map(|entry| {
                let link = fs::read_link(entry.ok()?.path()).ok()?;
                link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            })
            .collect();
        if sockets.is_empty() {
            return None;
        }
        let namespace = fs::metadata(proc_file::path(tgid, "ns/net")).ok()?.st_ino();
        let of_namespace =
            self.namespaces.get_or_insert(namespace, || listening(&proc_file::path(tgid, "net")));
        Some(sockets.iter().filter_map(|socket| of_namespace.get(socket).copied()).collect())
    }
}

/// The listening sockets of the tables in a directory `/proc/PID/net`. A table that is missing or cannot be read has none.
fn listening(directory: &Path) -> Ports {
    let mut ports = Ports::new();
    for name in ["tcp", "tcp6"] {
        let table = head(&directory.join(name));
        let entries = TcpNetEntries::from_buf_read(&*table, current_system_info());
        let entries = entries.map(|entries| entries.0).unwrap_or_default();
        let listening = entries.iter().filter(|entry| entry.state == TcpState::Listen);
        ports.extend(listening.map(|entry| (entry.inode, entry.local_address.port())));
    }
    for name in ["udp", "udp6"] {
        let table = proc_file::read_lines(&directory.join(name), MAX_TABLE_BYTES).unwrap_or_default();
        let entries = UdpNetEntries::from_buf_read(&*table, current_system_info());
        let entries = entries.map(|entries| entries.0).unwrap_or_default();
        // One that was connected is a client's.
        let unconnected = entries.iter().filter(|entry| is_nowhere(&entry.remote_address));
        ports.extend(unconnected.map(|entry| (entry.inode, entry.local_address.port())));
    }
    ports
}

fn is_nowhere(address: &SocketAddr) -> bool {
    address.port() == 0
}

/// The heading and the listening sockets of a table of TCP, which the kernel lists first (`tcp_seq_start`): to read on would
/// have it go through every connection.
fn head(table: &Path) -> Vec<u8> {
    /// The column of the state, and that of one that listens (include/net/tcp_states.h).
    const STATE: usize = 3;
    const LISTENS: &[u8] = b"0A";
    let mut bytes = Vec::new();
    let Ok(file) = File::open(table) else { return bytes };
    let mut reader = BufReader::new(file.take(MAX_TABLE_BYTES));
    loop {
        let begin = bytes.len();
        let read = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes);
        let line = bytes.get(begin..).unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let is_wanted = begin == 0 || words.nth(STATE) == Some(LISTENS);
        if read.is_err() || !line.ends_with(b"\n") || !is_wanted {
            bytes.truncate(begin);
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn ports_of_this_process() {
        let own = Tgid(std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let server = listener.local_addr().expect("its address");
        let other = TcpListener::bind("[::1]:0").expect("a listener");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let stream = TcpStream::connect(server).expect("a connection");
        let client = stream.local_addr().expect("its address");
        let mut listening = Listening::default();
        let ports = listening.ports(own).to_vec();
        for address in [server, other.local_addr().expect("one"), receiver.local_addr().expect("one")] {
            assert!(ports.contains(&address.port()), "{address} is not among {ports:?}");
        }
        assert!(!ports.contains(&client.port()), "{client} does not listen");

        drop(listener);
        assert_eq!(listening.ports(own), ports, "remembered");
        listening.forget();
        assert!(!listening.ports(own).contains(&server.port()));
        assert!(listening.ports(Tgid(u32::MAX)).is_empty());
    }

    #[test]
    fn a_table_is_read_up_to_its_first_connection() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tcp");
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
        let line = |state: &str| format!("   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000\n");
        let wanted = [heading, &line("0A"), &line("0A")].concat();
        let connection = [line("01"), line("0A")].concat();
        let cut = line("0A").trim_end().to_owned();
        for rest in ["", &connection, &cut, &"x".repeat(1 << 20)] {
            fs::write(&path, [&wanted, rest].concat()).expect("a table");
            let read = head(&path);
            assert_eq!(String::from_utf8_lossy(&read), wanted, "before {rest:.80}");
        }
        assert!(head(&directory.path().join("none")).is_empty());
    }
}
