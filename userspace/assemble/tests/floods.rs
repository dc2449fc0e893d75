//! Peers that send without end, and what they cost: bounded memory, bounded time, nothing made up.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use descry_assemble::connection::{Connection, End, Origin, Role, Settings};
use descry_assemble::infer::{PROTOCOLS, Transport};
use descry_assemble::protocol::{Chunk, Direction, Options};
use descry_assemble::span::{Span, Value};
use descry_decode::ids::BootNanos;

/// What one call moves.
const CHUNK: usize = 4096;
/// A flood: 400 times of what is kept of any message.
const FLOOD: usize = 20 << 20;
/// What a connection may cost (bytes), whatever it says: a table of streams, and room for what runs beside this test.
const MAX_GROWTH: usize = 24 << 20;
/// What a flood may cost on a machine that does other things too.
const MAX_TIME: Duration = Duration::from_secs(60);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One at a time: memory is that of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of this process (bytes).
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there is /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("statm has numbers") * 4096
}

/// A connection, and what came of it.
struct Watched {
    connection: Connection,
    settings: Settings,
    time: u64,
    /// The last of them.
    last: Option<Span>,
    count: usize,
    before: usize,
    begun: Instant,
}

impl Watched {
    fn new() -> Self {
        let address: Option<SocketAddr> = "127.0.0.1:1".parse().ok();
        let origin = Origin {
            id: 1,
            transport: Transport::Stream,
            role: Role::Server,
            role_turns: false,
            client: address,
            server: address,
            is_oriented: true,
            from_start: true,
            is_encrypted: false,
        };
        Self {
            connection: Connection::new(origin),
            settings: Settings { options: Options::default(), protocols: PROTOCOLS.to_vec(), unix_offset: 0 },
            time: 0,
            last: None,
            count: 0,
            before: memory(),
            begun: Instant::now(),
        }
    }

    fn says(&mut self, direction: Direction, bytes: &[u8]) {
        for bytes in bytes.chunks(CHUNK) {
            self.time += 1000;
            let chunk = Chunk { direction, time: BootNanos(self.time), gap_before: 0, bytes, cut: 0 };
            let mut spans = Vec::new();
            self.connection.data(chunk, &self.settings, None, &mut spans);
            self.count += spans.len();
            self.last = spans.pop().or(self.last.take());
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        self.says(Direction::ToServer, bytes);
    }

    /// The same again and again.
    fn floods(&mut self, direction: Direction, bytes: &[u8], total: usize) {
        let several = bytes.repeat((CHUNK / bytes.len()).max(1));
        for _ in 0..total / several.len() {
            self.says(direction, &several);
        }
    }

    /// The end, and all spans' number.
    fn end(&mut self) -> usize {
        let grown = memory().saturating_sub(self.before);
        assert!(grown < MAX_GROWTH, "{} MiB for one connection", grown >> 20);
        assert!(self.begun.elapsed() < MAX_TIME, "{:?}", self.begun.elapsed());
        let mut spans = Vec::new();
        self.connection.end(BootNanos(self.time + 1), End::Unknown, &self.settings, &mut spans);
        self.count += spans.len();
        self.last = spans.pop().or(self.last.take());
        self.count
    }

    fn status(&self) -> Option<i64> {
        let attributes = &self.last.as_ref()?.attributes;
        attributes.iter().find_map(|(name, value)| match value {
            Value::Int(status) if name == "http.response.status_code" => Some(*status),
            _ => None,
        })
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// GET / by the static table.
const GET: &[u8] = b"\x82\x84\x86";

#[test]
fn headers_without_end() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(b"GET /slow HTTP/1.1\r\nHost: a\r\n");
    watched.floods(
        Direction::ToServer,
        b"X-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        FLOOD,
    );
    watched.says(Direction::ToClient, b"HTTP/1.1 431 Too large\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(watched.end(), 1);
    assert_eq!(watched.last.as_ref().map(|span| &*span.name), Some("GET /slow"));
    assert_eq!(watched.status(), Some(431));
}

#[test]
fn a_target_without_end() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(b"GET /");
    watched.floods(Direction::ToServer, b"A", FLOOD);
    watched.client(b" HTTP/1.1\r\n\r\n");
    watched.says(Direction::ToClient, b"HTTP/1.1 414 Too long\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(watched.end(), 0);
}

#[test]
fn answers_without_end() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(b"GET /a HTTP/1.1\r\n\r\n");
    watched.says(Direction::ToClient, b"HTTP/1.1 200 OK\r\n");
    watched.floods(
        Direction::ToClient,
        b"Set-Cookie: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        FLOOD,
    );
    assert_eq!(watched.end(), 1);
    assert_eq!(watched.status(), Some(200));
}

#[test]
fn requests_that_nobody_answers() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.floods(Direction::ToServer, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", FLOOD / 10);
    // Those beyond the limit are counted; of which the answers would be is not known then.
    let spans = watched.end();
    let dropped = watched.connection.lost().requests_dropped;
    assert!(spans <= 256 && dropped > 0, "{spans} spans, {dropped} dropped");
}

#[test]
fn byte_by_byte() {
    let _alone = alone();
    let mut watched = Watched::new();
    for byte in b"GET /slow HTTP/1.1\r\nX: ".iter().chain([b'a'; 60_000].iter()) {
        watched.client(&[*byte]);
    }
    watched.client(b"\r\n\r\n");
    assert_eq!(watched.end(), 1);
}

#[test]
fn continuations_without_end() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(PREFACE);
    watched.client(&frame(SETTINGS, 0, 0, &[]));
    watched.client(&frame(HEADERS, END_STREAM, 1, GET));
    // A field that nobody reads.
    let part = frame(CONTINUATION, 0, 1, &[b"\x00\x01x\x7f\x00".as_slice(), &[b'a'; 127]].concat());
    watched.floods(Direction::ToServer, &part, FLOOD);
    watched.floods(Direction::ToServer, &frame(CONTINUATION, 0, 1, &[]), FLOOD / 10);
    watched.client(&frame(CONTINUATION, END_HEADERS, 1, &[]));
    assert_eq!(watched.end(), 1);
    assert_eq!(watched.last.as_ref().map(|span| &*span.name), Some("GET /"));
}

#[test]
fn references_to_one_long_entry() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(PREFACE);
    // `tracestate` with 4,000 bytes is entered into the table, and then named 16,000 times in each block.
    let mut entry = GET.to_vec();
    entry.extend(b"\x40\x0atracestate\x7f\xa1\x1e");
    entry.extend([b'a'; 4000]);
    watched.client(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &entry));
    let mut bomb = GET.to_vec();
    bomb.resize(16_000, 0xbe);
    for stream in 1..500 {
        watched.client(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &bomb));
    }
    assert_eq!(watched.end(), 500);
}

#[test]
fn streams_that_are_reset_at_once() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(PREFACE);
    let count = 100_000;
    for stream in 0..count {
        let mut both = frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, GET);
        both.extend(frame(RST_STREAM, 0, 2 * stream + 1, &8_u32.to_be_bytes()));
        watched.client(&both);
    }
    // Each was a request, whatever was meant by it.
    assert_eq!(watched.end(), count as usize);
    assert_eq!(watched.status(), None);
}

#[test]
fn streams_that_stay_open() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(PREFACE);
    for stream in 0..100_000 {
        let mut path = GET.to_vec();
        path.extend(b"\x04\x7f\xe9\x06/");
        path.extend([b'p'; 999]);
        watched.client(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &path));
    }
    watched.end();
    assert!(watched.connection.lost().requests_dropped > 90_000);
}

#[test]
fn settings_without_end() {
    let _alone = alone();
    let mut watched = Watched::new();
    watched.client(PREFACE);
    watched.floods(Direction::ToServer, &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), FLOOD);
    watched.client(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET));
    watched.says(Direction::ToClient, &frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x88"));
    assert_eq!(watched.end(), 1);
    assert_eq!(watched.status(), Some(200));
}

/// Always the same, so that a failure comes again.
fn garbage() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.take(1 << 20).collect()
}

/// How connections of each protocol begin.
const OPENINGS: [&[u8]; 7] = [
    b"GET / HTTP/1.1\r\n\r\n",
    PREFACE,
    // PostgreSQL's StartupMessage: length, version 3.0, user.
    b"\x00\x00\x00\x10\x00\x03\x00\x00user\x00me\x00\x00",
    // MySQL's greeting comes from the server; this is a COM_QUERY.
    b"\x09\x00\x00\x00\x03SELECT 1",
    b"*1\r\n$4\r\nPING\r\n",
    // DNS over TCP: length, one question.
    b"\x00\x11\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01",
    b"",
];

#[test]
fn garbage_in_every_protocol() {
    let _alone = alone();
    let garbage = garbage();
    for opening in OPENINGS {
        for direction in [Direction::ToServer, Direction::ToClient] {
            for portion in [1, 7, 1460] {
                let mut watched = Watched::new();
                watched.client(opening);
                let most = if portion == 1 { 100_000 } else { garbage.len() };
                for bytes in garbage[..most].chunks(portion) {
                    watched.says(direction, bytes);
                }
                // Nothing but the request that was asked, without an answer.
                let spans = watched.end();
                let opening = String::from_utf8_lossy(opening);
                assert!(spans <= 1, "{spans} spans after {opening:?}: {:?}", watched.last);
                assert_eq!(watched.status(), None, "after {opening:?}");
            }
        }
    }
}

#[test]
fn connections_that_say_nothing_whole() {
    let _alone = alone();
    // What each of ten thousand keeps while nobody knows what it speaks.
    let before = memory();
    let mut open = Vec::new();
    for _ in 0..10_000 {
        let mut watched = Watched::new();
        watched.client(b"GET /half");
        open.push(watched);
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}
