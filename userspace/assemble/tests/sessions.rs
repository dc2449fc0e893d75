//! Sessions of real clients with real servers: what comes out, in whatever portions the bytes come, and with gaps.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

#[expect(dead_code, reason = "the tests by hand use the rest")]
mod support;

use std::fmt::Write as _;
use std::fs;

use descry_assemble::protocol::{Chunk, Direction, Exchange, Lost};
use support::{Piece, SESSIONS, attribute, chunk, path, play, read, written};

/// Compares with the golden file; `UPDATE_GOLDEN=1` writes it anew.
#[track_caller]
fn check(name: &str) {
    let mut text = String::new();
    for (connection, pieces) in read(name) {
        let (exchanges, lost) = play(name, pieces.iter().map(chunk));
        assert_eq!(lost, Lost::default(), "{name}, connection {connection}");
        writeln!(text, "== connection {connection}: {} exchanges", exchanges.len()).unwrap();
        for exchange in &exchanges {
            writeln!(text, "{}", written(exchange)).unwrap();
        }
    }
    let golden = path(&format!("{name}.expected"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden).unwrap(), "{name}");
    assert!(!text.contains("secret"), "{name} tells a secret");
}

#[test]
fn postgresql() {
    for name in ["pgbench_simple", "pgbench_extended", "pgbench_prepared", "psql", "psycopg"] {
        check(name);
    }
}

#[test]
fn mysql() {
    for name in ["pymysql", "mariadb_client", "sysbench"] {
        check(name);
    }
}

#[test]
fn redis() {
    for name in ["redis_benchmark", "redis_inline", "redis_pubsub", "redis_py_resp2", "redis_py_resp3"] {
        check(name);
    }
}

#[test]
fn dns() {
    for name in ["dns_udp", "dns_tcp"] {
        check(name);
    }
}

/// The pieces cut at every byte, or once at `at` each.
fn portions(pieces: &[Piece], size: usize) -> impl Iterator<Item = Chunk<'_>> {
    pieces
        .iter()
        .flat_map(move |piece| piece.bytes.chunks(size).map(move |bytes| Chunk { bytes, ..chunk(piece) }))
}

#[test]
fn portions_do_not_matter() {
    for name in SESSIONS.iter().filter(|name| **name != "dns_udp") {
        for pieces in read(name).values() {
            let whole = play(name, pieces.iter().map(chunk));
            for size in [1, 2, 3, 5, 7, 64] {
                assert_eq!(play(name, portions(pieces, size)), whole, "{name}, {size} bytes");
            }
            for index in 0..pieces.len() {
                for at in 1..pieces[index].bytes.len() {
                    let mut split = pieces.clone();
                    let behind = split[index].bytes.split_off(at);
                    split.insert(index + 1, Piece { bytes: behind, ..split[index].clone() });
                    let played = play(name, split.iter().map(chunk));
                    assert_eq!(played, whole, "{name}, piece {index} at {at}");
                }
            }
        }
    }
}

/// Whether all that one exchange tells is true by the other.
fn tells_nothing_else(told: &Exchange, truth: &Exchange) -> bool {
    told.attributes.iter().all(|it| {
        let text = attribute(truth, &it.0).unwrap_or_default();
        let own = attribute(told, &it.0).unwrap_or_default();
        let is_beginning = own.strip_suffix('…').is_some_and(|own| text.starts_with(own));
        truth.attributes.contains(it)
            // Without its greeting a server is not known for MariaDB.
            || it.0 == "db.system.name"
            || it.0 == "db.query.text" && is_beginning
            // Of a text that is cut the summary may be shorter, and one operation of several seen.
            || it.0 == "db.query.summary" && text.starts_with(&own)
            || matches!(&*it.0, "db.operation.name" | "db.collection.name") && told.name != truth.name
    })
}

/// Whether one exchange may be what is left of the other: its beginning may be among what was lost.
fn may_be(told: &Exchange, truth: &Exchange) -> bool {
    let is_during = truth.start <= told.start && told.start <= truth.end;
    is_during && (!told.answered || tells_nothing_else(told, truth))
}

/// Without the piece `missing`: its bytes are a gap before the next piece of its direction.
fn without(pieces: &[Piece], missing: usize) -> Vec<Chunk<'_>> {
    let mut gap = 0;
    let mut chunks = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if index == missing {
            gap = piece.bytes.len() as u64;
            continue;
        }
        let after = index > missing && piece.direction == pieces[missing].direction;
        chunks.push(Chunk { gap_before: if after { std::mem::take(&mut gap) } else { 0 }, ..chunk(piece) });
    }
    chunks
}

/// When the client's turn begins from which on nothing may be amiss: the second one after the loss is known.
fn recovered(pieces: &[Piece], missing: usize) -> u64 {
    let known = pieces.iter().enumerate().skip(missing + 1);
    let mut turns = known
        .clone()
        .find(|(_, piece)| piece.direction == pieces[missing].direction)
        .map(|(index, _)| pieces.iter().enumerate().skip(index + 1))
        .into_iter()
        .flatten()
        .filter(|(index, piece)| {
            piece.direction == Direction::ToServer && pieces[index - 1].direction == Direction::ToClient
        });
    turns.next().map_or(u64::MAX, |(_, piece)| piece.time.0)
}

#[test]
fn a_lost_piece_makes_nothing_wrong() {
    // Without its first pieces a session is another one: the database, the server's kind and modes are not known.
    const LOGIN: usize = 8;
    for name in SESSIONS.iter().filter(|name| !name.starts_with("dns")) {
        for pieces in read(name).values() {
            let (whole, _) = play(name, pieces.iter().map(chunk));
            for missing in LOGIN..pieces.len() {
                let (some, _) = play(name, without(pieces, missing));
                let from = recovered(pieces, missing);
                let later = |exchanges: &[Exchange]| -> Vec<Exchange> {
                    exchanges.iter().filter(|it| it.start.0 >= from).cloned().collect()
                };
                let (truth, told) = (later(&whole), later(&some));
                assert_eq!(told.len(), truth.len(), "{name} without {missing}");
                for (told, truth) in told.iter().zip(&truth) {
                    assert_eq!((told.start, told.end), (truth.start, truth.end), "{name} without {missing}");
                    assert_eq!(told.client_status, truth.client_status, "{name} without {missing}");
                    assert!(
                        tells_nothing_else(told, truth),
                        "{name} without {missing}: {told:?}, not {truth:?}"
                    );
                }
                // Before that: nothing that did not happen.
                for told in &some {
                    assert!(
                        whole.iter().any(|truth| may_be(told, truth)),
                        "{name} without {missing}: {told:?}"
                    );
                }
                assert!(some.len() <= whole.len(), "{name} without {missing}");
            }
        }
    }
}

#[test]
fn heads_are_enough() {
    for name in SESSIONS {
        for pieces in read(name).values() {
            let (whole, _) = play(name, pieces.iter().map(chunk));
            for kept in [48, 100, 300] {
                let heads = pieces.iter().map(|piece| {
                    let (bytes, cut) = piece.bytes.split_at(kept.min(piece.bytes.len()));
                    Chunk { bytes, cut: cut.len() as u64, ..chunk(piece) }
                });
                let (some, _) = play(name, heads);
                for told in &some {
                    let mut truths = whole.iter().filter(|truth| truth.start == told.start);
                    // A subscriber is sent more than answers, and where those end was not captured.
                    let ends = |truth: &Exchange| told.end <= truth.end || *name == "redis_pubsub";
                    let is_true = truths.any(|truth| ends(truth) && tells_nothing_else(told, truth));
                    assert!(is_true, "{name}, {kept} bytes: {told:?}");
                }
                assert!(some.len() <= whole.len());
                let all_asked =
                    |piece: &Piece| piece.direction == Direction::ToClient || piece.bytes.len() <= kept;
                if pieces.iter().all(all_asked) {
                    assert_eq!(some.len(), whole.len(), "{name}, {kept} bytes");
                }
            }
        }
    }
}

#[test]
fn joined_in_the_middle() {
    for name in SESSIONS.iter().filter(|name| !name.starts_with("dns")) {
        for pieces in read(name).values() {
            let (whole, _) = play(name, pieces.iter().map(chunk));
            for first in 1..pieces.len() {
                let mut seen = [false; 2];
                let chunks = pieces.iter().skip(first).map(|piece| {
                    let seen = &mut seen[usize::from(piece.direction == Direction::ToServer)];
                    let gap_before = if std::mem::replace(seen, true) { 0 } else { u64::MAX };
                    Chunk { gap_before, ..chunk(piece) }
                });
                let (some, _) = play(name, chunks.collect::<Vec<_>>());
                for told in &some {
                    let is_true = whole.iter().any(|truth| may_be(told, truth));
                    assert!(is_true, "{name} from {first}: {told:?}");
                }
                // From the second turn that was seen on, all are there.
                let turn = |(index, piece): &(usize, &Piece)| {
                    piece.direction == Direction::ToServer
                        && pieces[index - 1].direction == Direction::ToClient
                };
                let second = pieces.iter().enumerate().skip(first.max(1)).filter(turn).nth(1);
                let from = second.map_or(u64::MAX, |(_, piece)| piece.time.0);
                let starts = |exchanges: &[Exchange]| -> Vec<u64> {
                    exchanges.iter().map(|it| it.start.0).filter(|start| *start >= from).collect()
                };
                assert_eq!(starts(&some), starts(&whole), "{name} from {first}");
            }
        }
    }
}
