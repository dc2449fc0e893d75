//! Reading a `struct sock`: who it is, and who is at its ends.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use descry_abi::net::{Closer, Opened, Role};
use descry_abi::offcpu::FileKind;
use descry_abi::tcp::TcpPeerKey;

use crate::config::{
    BOOT_BEFORE_MONOTONIC, FILE_PRIVATE_DATA, ICSK_BIND_HASH, INODE_INO, SK_DADDR, SK_DPORT, SK_ERR,
    SK_FAMILY, SK_NUM, SK_PROTOCOL, SK_RCV_SADDR, SK_SOCKET, SK_STATE, SK_V6_DADDR, SK_V6_RCV_SADDR,
    SOCKET_ALLOC_INODE, SOCKET_SK, SOCKET_TYPE, TB_FASTREUSE, TCP_BYTES_ACKED, TCP_BYTES_RECEIVED,
    TCP_COPIED_SEQ, TCP_RCV_NXT, TCP_SND_NXT, TCP_SND_UNA, TCP_SRTT_US, TCP_WRITE_SEQ, TCP_WSTAMP_NS,
    UNIX_ADDR,
};
use crate::task::{Task, direct, member};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `SOCK_STREAM` (linux/net.h).
pub const SOCK_STREAM: u16 = 1;
/// `IPPROTO_TCP` (linux/in.h).
const IPPROTO_TCP: u16 = 6;
/// `TCP_ESTABLISHED`, which connected UDP has too (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;

/// What was sent longer ago than this (ns) was not sent by the call that just ended.
const LONG: u64 = 1_000_000_000;

/// A `struct sock` of the kernel.
#[derive(Clone, Copy)]
pub struct Socket(pub u64);

/// Where TCP is in what a program sends and receives.
#[derive(Clone, Copy)]
pub struct Progress {
    /// Whether it is TCP; if not, the rest is zero. An [`Option`] would leave it undefined, which the compiler may copy and
    /// the verifier does not let pass.
    pub is_tcp: bool,
    /// Number of the byte that the program writes next.
    pub written: u32,
    /// Number of the byte that the program reads next.
    pub read: u32,
    /// Number of the byte that is sent next.
    sent: u32,
    /// When the last ones were sent (ns, `CLOCK_MONOTONIC`); 0 where the kernel does not say.
    stamp: u64,
}

impl Progress {
    /// That of others.
    pub const NONE: Self = Self { is_tcp: false, written: 0, read: 0, sent: 0, stamp: 0 };

    /// Of the socket that a tracepoint hands over, whose type the verifier knows: its members are loaded for a tenth of what a
    /// helper that copies them costs.
    #[inline(always)]
    pub fn of_argument(socket: *const c_void) -> Self {
        // SAFETY: the helper takes any socket, and gives null for others than TCP's.
        let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut()) };
        if tcp.is_null() {
            return Self::NONE;
        }
        let stamp = if TCP_WSTAMP_NS.load() == 0 { 0 } else { direct(tcp, TCP_WSTAMP_NS.load()) };
        Self {
            is_tcp: true,
            written: direct(tcp, TCP_WRITE_SEQ.load()),
            read: direct(tcp, TCP_COPIED_SEQ.load()),
            sent: direct(tcp, TCP_SND_NXT.load()),
            stamp,
        }
    }

    /// When TCP sent the last of what was written (ns, `CLOCK_BOOTTIME`), if it was all sent by `now`. On its way down a call
    /// may wake up who waits for the bytes, and come back only when that has answered. After a suspension the clocks differ
    /// by more than was known: then nothing is said.
    #[inline(always)]
    pub fn sent_at(self, now: u64) -> Option<u64> {
        let at = self.all_sent_at()?;
        (now.wrapping_sub(at) < LONG).then_some(at)
    }

    /// The same of an answer, given when its request came: whoever answers soon need not read a clock.
    #[inline(always)]
    pub fn sent_since(self, asked: u64) -> Option<u64> {
        let at = self.all_sent_at()?;
        (at.wrapping_sub(asked) < LONG).then_some(at)
    }

    #[inline(always)]
    fn all_sent_at(self) -> Option<u64> {
        let at = self.stamp.wrapping_add(BOOT_BEFORE_MONOTONIC.load());
        (self.stamp != 0 && self.sent == self.written).then_some(at)
    }
}

impl Socket {
    /// That behind a descriptor of the running task; none: it is no socket.
    #[inline(always)]
    pub fn of_descriptor(descriptor: u32) -> Option<Self> {
        let file = Task::current().file(descriptor)?;
        if file.kind()? != FileKind::Socket as u8 {
            return None;
        }
        let socket: u64 = member(file.0, FILE_PRIVATE_DATA.load())?;
        member(socket, SOCKET_SK.load()).filter(|sk| *sk != 0).map(Self)
    }

    /// The inode number of its `struct socket`: inode and socket lie side by side in a `struct socket_alloc`.
    #[inline(always)]
    pub fn inode_number(self) -> Option<u64> {
        let socket: u64 = member(self.0, SK_SOCKET.load())?;
        if socket == 0 {
            return None;
        }
        member(socket + u64::from(SOCKET_ALLOC_INODE.load()), INODE_INO.load())
    }

    #[inline(always)]
    pub fn is_tcp_family(family: u16) -> bool {
        family == AF_INET || family == AF_INET6
    }

    /// Fills in what is at its ends and who opened it.
    #[inline(always)]
    pub fn describe(self, opened: &mut Opened) -> Option<()> {
        let socket: u64 = member(self.0, SK_SOCKET.load())?;
        opened.family = member(self.0, SK_FAMILY.load())?;
        opened.socket_type = member(socket, SOCKET_TYPE.load())?;
        let role = match opened.family {
            AF_UNIX => self.unix_role(),
            AF_INET => {
                let local: [u8; 4] = member(self.0, SK_RCV_SADDR.load())?;
                let remote: [u8; 4] = member(self.0, SK_DADDR.load())?;
                let (Some(to_local), Some(to_remote)) =
                    (opened.local.first_chunk_mut::<4>(), opened.remote.first_chunk_mut::<4>())
                else {
                    return None;
                };
                (*to_local, *to_remote) = (local, remote);
                self.inet_role(opened)
            }
            AF_INET6 => {
                opened.local = member(self.0, SK_V6_RCV_SADDR.load())?;
                opened.remote = member(self.0, SK_V6_DADDR.load())?;
                self.inet_role(opened)
            }
            _ => Role::Unknown,
        };
        if Self::is_tcp_family(opened.family) {
            opened.local_port = member(self.0, SK_NUM.load())?;
            opened.remote_port = u16::from_be(member(self.0, SK_DPORT.load())?);
        }
        opened.role = role as u8;
        Some(())
    }

    /// Whether it speaks TCP.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        member::<u16>(self.0, SK_PROTOCOL.load()) == Some(IPPROTO_TCP)
    }

    /// Who is at the other end, for a process.
    #[inline(always)]
    pub fn peer(self, tgid: u32) -> Option<TcpPeerKey> {
        let mut key = TcpPeerKey { tgid, family: member(self.0, SK_FAMILY.load())?, ..TcpPeerKey::default() };
        match key.family {
            AF_INET => {
                let address: [u8; 4] = member(self.0, SK_DADDR.load())?;
                *key.address.first_chunk_mut::<4>()? = address;
            }
            AF_INET6 => key.address = member(self.0, SK_V6_DADDR.load())?,
            _ => return None,
        }
        key.port = u16::from_be(member(self.0, SK_DPORT.load())?);
        Some(key)
    }

    /// The error that ended it; 0: none did.
    #[inline(always)]
    pub fn error(self) -> u16 {
        member::<i32>(self.0, SK_ERR.load()).unwrap_or_default().unsigned_abs() as u16
    }

    /// The smoothed round trip time (ns) of TCP, once there is one. The kernel keeps eighths of microseconds.
    #[inline(always)]
    pub fn round_trip(self) -> Option<u64> {
        let eighths: u32 = member(self.0, TCP_SRTT_US.load())?;
        (eighths != 0).then_some(u64::from(eighths) * 125)
    }

    /// Whether the message of `len` bytes that just moved is the first on this TCP socket.
    ///
    /// ```text
    /// read by the program     bytes_received - (rcv_nxt - copied_seq)
    /// written by the program  bytes_acked + (write_seq - snd_una), and one more where the SYN was counted
    /// ```
    #[inline(always)]
    pub fn is_at_start(self, len: u64, is_sent: bool) -> bool {
        let counts = || {
            let received: u64 = member(self.0, TCP_BYTES_RECEIVED.load())?;
            let (next, copied): (u32, u32) =
                (member(self.0, TCP_RCV_NXT.load())?, member(self.0, TCP_COPIED_SEQ.load())?);
            let acknowledged: u64 = member(self.0, TCP_BYTES_ACKED.load())?;
            let (write, first): (u32, u32) =
                (member(self.0, TCP_WRITE_SEQ.load())?, member(self.0, TCP_SND_UNA.load())?);
            let read = received.wrapping_sub(next.wrapping_sub(copied).into());
            Some((read, acknowledged.wrapping_add(write.wrapping_sub(first).into())))
        };
        let Some((read, written)) = counts() else { return false };
        let (read_now, written_now) = if is_sent { (0, len) } else { (len, 0) };
        read == read_now && written.wrapping_sub(written_now) <= 1
    }

    /// Who ended a connection that is closed at once: a reset leaves its error in the socket (tcp_reset), a loss of the
    /// other end another one, and who closes here none.
    #[inline(always)]
    pub fn closer(self) -> Closer {
        const EPIPE: i32 = 32;
        const ECONNRESET: i32 = 104;
        match member::<i32>(self.0, SK_ERR.load()) {
            Some(0) => Closer::Local,
            Some(EPIPE | ECONNRESET) => Closer::Remote,
            _ => Closer::Unknown,
        }
    }

    /// Whether the other end of a TCP connection has said that it sends no more, and the program knows.
    #[inline(always)]
    pub fn has_ended(self) -> bool {
        const TIME_WAIT: u8 = 6;
        const CLOSING: u8 = 11;
        // With CLOSE, CLOSE_WAIT and LAST_ACK between them.
        member::<u8>(self.0, SK_STATE.load()).is_some_and(|state| (TIME_WAIT..=CLOSING).contains(&state))
    }

    /// Where TCP is.
    #[inline(always)]
    pub fn progress(self) -> Progress {
        if !self.is_tcp() {
            return Progress::NONE;
        }
        let word = |offset| member::<u32>(self.0, offset).unwrap_or_default();
        let stamp = match TCP_WSTAMP_NS.load() {
            0 => 0,
            offset => member(self.0, offset).unwrap_or_default(),
        };
        Progress {
            is_tcp: true,
            written: word(TCP_WRITE_SEQ.load()),
            read: word(TCP_COPIED_SEQ.load()),
            sent: word(TCP_SND_NXT.load()),
            stamp,
        }
    }

    /// An accepted socket has its listener's address; a client has none unless it bound one.
    #[inline(always)]
    fn unix_role(self) -> Role {
        match member::<u64>(self.0, UNIX_ADDR.load()) {
            None => Role::Unknown,
            Some(0) => Role::Connected,
            Some(_) => Role::Accepted,
        }
    }

    /// connect() without bind() takes its port from a bucket with fastreuse -1 (inet_hash_connect); an accepted socket
    /// shares its listener's. A socket of datagrams that has a peer called connect().
    #[inline(always)]
    fn inet_role(self, opened: &Opened) -> Role {
        if member::<u8>(self.0, SK_STATE.load()) != Some(ESTABLISHED) {
            return Role::Unknown;
        }
        if opened.socket_type != SOCK_STREAM {
            return Role::Connected;
        }
        let bucket: Option<u64> = member(self.0, ICSK_BIND_HASH.load());
        match bucket.and_then(|bucket| member::<i8>(bucket, TB_FASTREUSE.load())) {
            None => Role::Unknown,
            Some(-1) => Role::Connected,
            Some(_) => Role::Accepted,
        }
    }
}
