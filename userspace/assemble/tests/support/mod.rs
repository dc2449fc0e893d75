//! Recorded sessions: how they are read and played to a parser, and how exchanges are written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use descry_assemble::protocol::dns::{DnsDatagrams, DnsStream};
use descry_assemble::protocol::mysql::Mysql;
use descry_assemble::protocol::postgres::Postgres;
use descry_assemble::protocol::redis::Redis;
use descry_assemble::protocol::{Chunk, Direction, Exchange, Lost, Parser};
use descry_assemble::span::{Status, Value};
use descry_decode::ids::BootNanos;

/// What was read at once.
#[derive(Clone, Debug)]
pub struct Piece {
    pub direction: Direction,
    pub time: BootNanos,
    pub bytes: Vec<u8>,
}

/// The pieces of each connection of a recording.
pub type Connections = BTreeMap<u32, Vec<Piece>>;

/// All recordings, by name.
pub const SESSIONS: &[&str] = &[
    "dns_tcp",
    "dns_udp",
    "mariadb_client",
    "pgbench_extended",
    "pgbench_prepared",
    "pgbench_simple",
    "psql",
    "psycopg",
    "pymysql",
    "redis_benchmark",
    "redis_inline",
    "redis_pubsub",
    "redis_py_resp2",
    "redis_py_resp3",
    "sysbench",
];

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

/// Reads a recording (see `record.py` beside it).
pub fn read(name: &str) -> Connections {
    let text = fs::read_to_string(path(&format!("{name}.session"))).unwrap();
    let mut connections = Connections::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let direction = if fields[1] == "C" { Direction::ToServer } else { Direction::ToClient };
        let time = BootNanos(fields[2].parse::<u64>().unwrap() * 1000);
        let bytes = (0..fields[3].len() / 2)
            .map(|index| u8::from_str_radix(&fields[3][2 * index..2 * index + 2], 16).unwrap())
            .collect();
        connections.entry(fields[0].parse().unwrap()).or_default().push(Piece { direction, time, bytes });
    }
    connections
}

pub fn parser(name: &str) -> Box<dyn Parser> {
    match name.split('_').next().unwrap() {
        "pgbench" | "psql" | "psycopg" => Box::<Postgres>::default(),
        "pymysql" | "mariadb" | "sysbench" => Box::<Mysql>::default(),
        "redis" => Box::<Redis>::default(),
        _ if name.ends_with("udp") => Box::<DnsDatagrams>::default(),
        _ => Box::<DnsStream>::default(),
    }
}

pub fn chunk(piece: &Piece) -> Chunk<'_> {
    Chunk { direction: piece.direction, time: piece.time, gap_before: 0, bytes: &piece.bytes, cut: 0 }
}

/// Plays chunks to a parser, to the connection's end.
pub fn play<'a>(name: &str, chunks: impl IntoIterator<Item = Chunk<'a>>) -> (Vec<Exchange>, Lost) {
    let mut parser = parser(name);
    let mut exchanges = Vec::new();
    let mut last = BootNanos(0);
    for chunk in chunks {
        parser.data(chunk, &mut exchanges);
        last = chunk.time;
    }
    parser.end(last, &mut exchanges);
    (exchanges, parser.lost())
}

/// The value of an attribute, as text.
pub fn attribute(exchange: &Exchange, name: &str) -> Option<String> {
    let (_, value) = exchange.attributes.iter().find(|(it, _)| it == name)?;
    Some(match value {
        Value::Static(text) => (*text).to_owned(),
        Value::Text(text) => text.to_string(),
        Value::Shared(text) => text.to_string(),
        other => format!("{other:?}"),
    })
}

/// An exchange on some lines.
pub fn written(exchange: &Exchange) -> String {
    let mut text = format!("{} [{} us]", exchange.name, (exchange.end.0 - exchange.start.0) / 1000);
    let sides = [("client", &exchange.client_status), ("server", &exchange.server_status)];
    for (side, status) in sides {
        if matches!(status, Status::Error(_)) {
            write!(text, " {side}'s error").unwrap();
        }
    }
    if !exchange.answered {
        text.push_str(" without an answer");
    }
    for (name, _) in &exchange.attributes {
        write!(text, "\n    {name} = {}", attribute(exchange, name).unwrap()).unwrap();
    }
    text
}

/// An exchange in one line: name, text or type, code; `?` for one without an answer.
pub fn brief(exchange: &Exchange) -> String {
    let told = ["db.query.text", "dns.question.name", "db.response.status_code", "error.type"];
    let mut words: Vec<String> = vec![exchange.name.to_string()];
    words.extend(told.iter().filter_map(|name| attribute(exchange, name)));
    words.dedup();
    let answer = if exchange.answered { "" } else { " ?" };
    format!("{}{answer}", words.join(" | "))
}

/// Bytes of one direction after the other, a millisecond apart.
pub fn talk<'a>(pieces: &[(Direction, &'a [u8])]) -> Vec<Chunk<'a>> {
    let chunk = |(index, (direction, bytes)): (usize, &(Direction, &'a [u8]))| Chunk {
        direction: *direction,
        time: BootNanos((index as u64 + 1) * 1_000_000),
        gap_before: 0,
        bytes,
        cut: 0,
    };
    pieces.iter().enumerate().map(chunk).collect()
}
