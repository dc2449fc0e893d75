//! What watched processes send and receive on sockets.
//!
//! A connection is told of once ([`Opened`]), when its first bytes pass after descry came; then each message
//! ([`Message`]), with the head of its bytes and the true number; then its end ([`Closed`]) where the kernel tells it.

use crate::template::Waiting;

/// Bytes that a record holds at most, and that are captured of one message unless more are wanted.
pub const MAX_CAPTURE: usize = 4096;
/// Records that tell of one message at most, where more are wanted. Each is as if a call of its own had moved its bytes.
pub const MAX_RECORDS: u32 = 8;
/// Bytes of one message that are captured at most.
pub const MAX_WIDE_CAPTURE: u32 = MAX_RECORDS * MAX_CAPTURE as u32;
/// Segments of a scattered buffer (`struct iovec`) that are followed at most for one record. nginx writes 64 at once.
pub const MAX_SEGMENTS: u64 = 64;
/// Messages of one call (sendmmsg, recvmmsg) that are looked at where the call is seen at its end only.
pub const MAX_SERIES: u64 = 32;
/// Threads that are within such a call at once.
pub const MAX_THREADS_IN_SERIES: u32 = 4096;
/// Connections known at once. The least recently used one is forgotten for a new one.
pub const MAX_CONNECTIONS: u32 = 65_536;
/// Calls of connect() known at once. The least recently used one is forgotten for a new one.
pub const MAX_CONNECTS: u32 = 8192;
/// Units whose request is known at once.
pub const MAX_UNITS: u32 = 65_536;

/// Value of a verdict on a connection: none of its bytes are wanted any more. Other values but the next: so many bytes of
/// each message are ([`VERDICT_BYTES`]), [`MAX_WIDE_CAPTURE`] at most; above those bits the family of its templates
/// (8 bits, 0: it has none), and what is known of them ([`START_WORDS`](crate::template::START_WORDS)).
pub const VERDICT_IGNORE: u32 = 0;
/// The bits of a verdict that are a number of bytes.
pub const VERDICT_BYTES: u32 = 0xffff;
/// Value of a verdict on a connection: none of its plaintext is wanted any more. What was thought of its ciphertext says
/// nothing of that.
pub const VERDICT_IGNORE_PLAINTEXT: u32 = u32::MAX;

/// Who opened a connection, seen from the watched process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// It cannot be told.
    Unknown = 0,
    /// The process accepted it: it is the server.
    Accepted = 1,
    /// The process connected: it is the client.
    Connected = 2,
}

impl Role {
    /// The role of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Unknown,
            1 => Self::Accepted,
            2 => Self::Connected,
            _ => return None,
        })
    }
}

/// [`Message::flags`]: the process sent it; else it received it.
pub const MESSAGE_SENT: u16 = 1;
/// [`Message::flags`]: its bytes could not be seen (sendfile, splice, io_uring, a buffer that could not be read).
pub const MESSAGE_UNSEEN: u16 = 2;
/// [`Message::flags`]: the plaintext of TLS. Offsets of plaintext count from the first of it.
pub const MESSAGE_PLAINTEXT: u16 = 4;
/// [`Message::flags`]: plaintext of a connection whose first plaintext was seen.
pub const MESSAGE_FROM_START: u16 = 8;
/// [`Message::flags`]: bytes had moved before it that no message tells of (read by splice); `offset` counts them.
pub const MESSAGE_BEHIND_UNTOLD: u16 = 16;

/// A connection's first sight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Opened {
    /// `EventKind::ConnectionOpened`.
    pub kind: u16,
    /// `AF_INET`, `AF_INET6`, `AF_UNIX` (linux/socket.h).
    pub family: u16,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ... (linux/net.h).
    pub socket_type: u16,
    /// A [`Role`].
    pub role: u8,
    /// 1: the message that follows is its first in either direction; 0: it is older, or nobody can tell.
    pub from_start: u8,
    /// When (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The socket's inode number: the N of `socket:[N]` in /proc/PID/fd.
    pub connection: u64,
    /// Local address; the first 4 bytes for `AF_INET`. In network byte order.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Local port, 0 if there is none.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// Zero.
    pub reserved_too: u32,
}
const _: () = assert!(size_of::<Opened>() == 72);

/// One message: what one call moved. `captured` bytes follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    /// `EventKind::Message`.
    pub kind: u16,
    /// `MESSAGE_*` bits.
    pub flags: u16,
    /// Bytes that follow.
    pub captured: u32,
    /// When (ns, `CLOCK_BOOTTIME`): of TCP when the last of it was sent; else when the call was done with it.
    pub time: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// As in [`Opened::connection`].
    pub connection: u64,
    /// Bytes of this direction before this message, since the first sight of the connection: what is missing was lost. Those of
    /// exchanges that were counted without being told are not in it.
    pub offset: u64,
    /// Bytes that the call moved.
    pub len: u64,
    /// Execution unit: the thread id, or the number of the goroutine or task.
    pub unit: u64,
    /// Request that it belongs to, 0: none known.
    pub request: u64,
}
const _: () = assert!(size_of::<Message>() == 64);

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Closer {
    /// It cannot be told.
    Unknown = 0,
    /// The watched process.
    Local = 1,
    /// The other end.
    Remote = 2,
}

impl Closer {
    /// That of this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Unknown,
            1 => Self::Local,
            2 => Self::Remote,
            _ => return None,
        })
    }
}

/// What the kernel side knows of a connection. Found by the address of its `struct sock`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Its socket's inode number.
    pub id: u64,
    /// The request that its bytes belong to.
    pub request: u64,
    /// Bytes since its first sight.
    pub sent: u64,
    /// The same that it received.
    pub received: u64,
    /// TCP's sequence numbers at that: of the byte written next, and of the byte read next.
    pub write_begin: u32,
    /// The same that it reads.
    pub read_begin: u32,
    /// Messages since then.
    pub messages: u32,
    /// Bytes of a message that are captured at most.
    pub capture: u32,
    /// A [`Role`].
    pub role: u8,
    /// 1: the last message was sent.
    pub last_was_sent: u8,
    /// Whether the kernel tells of its end.
    pub is_tcp: u8,
    /// A [`Closer`]: who ended it, once somebody did.
    pub closed_by: u8,
    /// 1: `request` is the one that it was made for, and nothing was sent yet.
    pub is_fresh: u8,
    /// A [`TlsState`].
    pub tls: u8,
    /// Whether its first bytes were seen; once there is plaintext: whether the first of that was.
    pub from_start: u8,
    /// The protocol of its templates ([`TemplateKey::of`](crate::template::TemplateKey)); 0: it has none.
    pub family: u8,
    /// The process that had it first.
    pub tgid: u32,
    /// What is known of its templates: words of a key and more ([`START_WORDS`](crate::template::START_WORDS)).
    pub templates: u32,
    /// The template that its last request equalled: the next one often does too.
    pub last_request: u32,
    /// The same of the last answer.
    pub last_answer: u32,
    /// A request that was not told of yet.
    pub waiting: Waiting,
}
const _: () = assert!(size_of::<Connection>() == 120);

impl Connection {
    /// When the request came that waits for its answer (ns, `CLOCK_BOOTTIME`), where one equals a template; else 0.
    #[inline(always)]
    pub const fn asked(&self) -> u64 {
        if self.waiting.which == 0 { 0 } else { self.waiting.start }
    }
}

/// What is known of TLS on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlsState {
    /// Nothing.
    None = 0,
    /// A message began as a record of TLS does.
    Records = 1,
    /// Its plaintext is seen: what goes over the socket is not wanted.
    Plaintext = 2,
}

/// A connection's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Closed {
    /// `EventKind::ConnectionClosed`.
    pub kind: u16,
    /// A [`Closer`].
    pub by: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// When (ns, `CLOCK_BOOTTIME`).
    pub time: u64,
    /// As in [`Opened::connection`].
    pub connection: u64,
}
const _: () = assert!(size_of::<Closed>() == 24);
