//! What the recorded sessions of PostgreSQL do not have.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

#[expect(dead_code, reason = "the recorded sessions use the rest")]
mod support;

use descry_assemble::protocol::Direction::{self, ToClient, ToServer};
use descry_assemble::protocol::{Chunk, Lost};
use descry_assemble::span::Status;
use support::{brief, play, talk};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

/// Bind to the unnamed portal, and Execute.
fn execute(name: &str) -> Vec<u8> {
    [message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes()), message(b'E', b"\0\0\0\0\0")].concat()
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Msecret\0\0").as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn done() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

#[track_caller]
fn check(pieces: &[(Direction, Vec<u8>)], expected: &[&str], lost: Lost) {
    let pieces: Vec<(Direction, &[u8])> = pieces.iter().map(|(way, bytes)| (*way, &**bytes)).collect();
    let (exchanges, told) = play("psql", talk(&pieces));
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(told, lost);
}

#[test]
fn tls_is_not_read() {
    let begin = [
        (ToServer, untyped(80_877_103, b"")),
        (ToClient, b"S".to_vec()),
        (ToServer, b"\x16\x03\x01\x02\x00".to_vec()),
        (ToClient, b"\x16\x03\x03\x00\x7a".to_vec()),
    ];
    check(&begin, &[], Lost { unreadable: 1, ..Lost::default() });
    let refused = [
        (ToServer, untyped(80_877_104, b"")),
        (ToClient, b"N".to_vec()),
        (ToServer, untyped(0x3_0000, b"user\0me\0\0")),
        (ToClient, [message(b'R', &[0; 4]), ready()].concat()),
        (ToServer, query("select 1")),
        (ToClient, [done(), ready()].concat()),
    ];
    check(&refused, &["select | select ?"], Lost::default());
}

#[test]
fn a_start_that_fails_is_told() {
    let pieces = [(ToServer, untyped(0x3_0000, b"user\0me\0\0")), (ToClient, error("28P01"))];
    check(&pieces, &["CONNECT | 28P01"], Lost::default());
}

#[test]
fn a_statement_that_was_prepared_apart() {
    let pieces = [
        (ToServer, [parse("a", "select 1 from t"), message(b'H', b"")].concat()),
        (ToClient, message(b'1', b"")),
        (ToServer, [execute("a"), sync()].concat()),
        (ToClient, [message(b'2', b""), done(), ready()].concat()),
    ];
    let pieces: Vec<(Direction, &[u8])> = pieces.iter().map(|(way, bytes)| (*way, &**bytes)).collect();
    let (exchanges, _) = play("psql", talk(&pieces));
    assert_eq!((exchanges.len(), exchanges[0].start.0, exchanges[0].end.0), (1, 3_000_000, 4_000_000));
}

#[test]
fn a_cancel_request_is_no_query() {
    check(&[(ToServer, untyped(80_877_102, &[0; 8]))], &[], Lost::default());
}

#[test]
fn a_name_that_a_failed_parse_gave_is_what_it_was() {
    let pieces = [
        (ToServer, [parse("a", "select 1 from t"), sync()].concat()),
        (ToClient, [message(b'1', b""), ready()].concat()),
        (ToServer, [parse("a", "select 1 from u"), execute("a"), sync()].concat()),
        (ToClient, [error("42P05"), ready()].concat()),
        (ToServer, [execute("a"), sync()].concat()),
        (ToClient, [message(b'2', b""), done(), ready()].concat()),
        (ToServer, [parse("b", "select frm"), sync()].concat()),
        (ToClient, [error("42601"), ready()].concat()),
        (ToServer, query("deallocate a")),
        (ToClient, [done(), ready()].concat()),
        (ToServer, [execute("a"), sync()].concat()),
        (ToClient, [message(b'2', b""), done(), ready()].concat()),
    ];
    let expected = [
        "select u | select ? from u | 42P05",
        "select t | select ? from t",
        "select | select frm | 42601",
        "deallocate | deallocate a",
        "postgresql",
    ];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn pipelines_over_several_syncs() {
    let unit = |table: &str| [parse("", &format!("select a from {table}")), execute("")].concat();
    let pieces = [
        (ToServer, [unit("a"), unit("b"), sync(), unit("c")].concat()),
        (ToServer, [unit("d"), sync(), query("select e from e")].concat()),
        (
            ToClient,
            [message(b'1', b""), message(b'2', b""), done(), message(b'1', b""), error("22012")].concat(),
        ),
        (ToClient, [ready(), error("42P01")].concat()),
        (ToClient, [ready(), message(b'N', b"SNOTICE\0\0"), done(), ready()].concat()),
    ];
    let expected = [
        "select a | select a from a",
        "select b | select a from b | 22012",
        "select c | select a from c | 42P01",
        "select d | select a from d | pipeline_aborted",
        "select e | select e from e",
    ];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn what_is_sent_after_an_error_is_skipped_up_to_sync() {
    let pieces = [
        (ToServer, [parse("", "select a from a"), execute("")].concat()),
        (ToClient, error("42P01")),
        (ToServer, [parse("x", "select b from b"), execute("x"), sync()].concat()),
        (ToClient, ready()),
        (ToServer, [execute("x"), sync()].concat()),
        (ToClient, [error("26000"), ready()].concat()),
    ];
    let expected =
        ["select a | select a from a | 42P01", "postgresql | pipeline_aborted", "postgresql | 26000"];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn a_sync_during_a_copy_is_not_answered() {
    let pieces = [
        (ToServer, [parse("", "copy t from stdin"), execute(""), sync()].concat()),
        (ToClient, [message(b'1', b""), message(b'2', b""), message(b'G', b"\0\0\0")].concat()),
        (ToServer, [message(b'd', b"1\n"), sync(), message(b'c', b""), sync()].concat()),
        (ToClient, [done(), ready()].concat()),
        (ToServer, query("copy t from stdin")),
        (ToClient, message(b'G', b"\0\0\0")),
        (ToServer, message(b'f', b"no\0")),
        (ToClient, [error("57014"), ready()].concat()),
        (ToServer, query("select 1")),
        (ToClient, [done(), ready()].concat()),
    ];
    let expected = ["copy t | copy t from stdin", "copy t | copy t from stdin | 57014", "select | select ?"];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn cursors_and_unknown_statements() {
    let pieces = [
        (ToServer, [execute("before"), sync()].concat()),
        (ToClient, [message(b'2', b""), message(b's', b""), ready()].concat()),
        (ToServer, message(b'F', &[0; 20])),
        (ToClient, [message(b'V', &[0; 4]), ready()].concat()),
        (ToServer, query("")),
        (ToClient, [message(b'I', b""), ready()].concat()),
    ];
    check(&pieces, &["postgresql", "FUNCTION CALL", "postgresql"], Lost::default());
}

#[test]
fn whose_failure_it_is() {
    for (code, server) in
        [("23505", false), ("57014", false), ("53300", true), ("XX000", true), ("57P01", true)]
    {
        let pieces = [query("select 1"), [error(code), ready()].concat()];
        let (exchanges, _) = play("psql", talk(&[(ToServer, &pieces[0]), (ToClient, &pieces[1])]));
        assert!(matches!(exchanges[0].client_status, Status::Error(_)));
        assert_eq!(matches!(exchanges[0].server_status, Status::Error(_)), server, "{code}");
    }
}

#[test]
fn long_messages_are_stepped_over() {
    let text = format!("select a from t where b = '{}'", "secret".repeat(5000));
    let (asked, row) = (query(&text), message(b'D', &[7; 100_000]));
    let answer = [done(), ready()].concat();
    let mut chunks = talk(&[(ToServer, &asked[..100]), (ToClient, &row[..50]), (ToClient, &answer)]);
    chunks[0].cut = asked.len() as u64 - 100;
    chunks[1].cut = 10_000;
    chunks[2].gap_before = row.len() as u64 - 10_050;
    let (exchanges, lost) = play("psql", chunks);
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), ["select t | select a from t where b =…"]);
    assert_eq!((exchanges[0].end.0, lost), (3_000_000, Lost::default()));
}

#[test]
fn an_error_whose_code_was_not_captured() {
    let (asked, answer) = (query("select 1"), [error("42P01"), ready()].concat());
    let mut chunks =
        talk(&[(ToServer, &asked), (ToClient, &answer[..12]), (ToClient, &answer[answer.len() - 6..])]);
    chunks[1].cut = answer.len() as u64 - 18;
    let (exchanges, _) = play("psql", chunks);
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), ["select | select ? | _OTHER"]);
}

#[test]
fn requests_without_answers_are_bounded() {
    let asked = query("select 1");
    let chunk = Chunk { time: descry_decode::ids::BootNanos(5), ..talk(&[(ToServer, &asked)])[0] };
    let (exchanges, lost) = play("psql", std::iter::repeat_n(chunk, 10_000));
    assert_eq!((exchanges.len(), lost.requests_dropped), (10_000, 8192));
    assert!(exchanges.iter().all(|it| !it.answered));
}

#[test]
fn garbage_is_counted() {
    let (exchanges, lost) =
        play("psql", talk(&[(ToServer, b"GET / HTTP/1.1\r\n\r\n"), (ToClient, b"\xff\xfe")]));
    assert_eq!((exchanges.len(), lost.malformed), (0, 2));
}
