//! What the recorded sessions of MySQL and MariaDB do not have.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

#[expect(dead_code, reason = "the recorded sessions use the rest")]
mod support;

use descry_assemble::protocol::Direction::{self, ToClient, ToServer};
use descry_assemble::protocol::{Chunk, Lost};
use support::{attribute, brief, play, talk};

const PROTOCOL_41: u32 = 1 << 9;
const SECURE: u32 = 1 << 15;
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
/// The OK packet that stands for an EOF.
const OK_EOF: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
const DEFINITION: &[u8] = b"\x03def\x00\x00\x00\x01a\x00\x0c";

/// Packets, numbered from `first` on.
fn packets(first: u8, payloads: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        bytes.extend(&(payload.len() as u32).to_le_bytes()[..3]);
        bytes.push(first.wrapping_add(index as u8));
        bytes.extend(*payload);
    }
    bytes
}

fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    packets(0, &[&[&[kind], body].concat()])
}

fn query(text: &str) -> Vec<u8> {
    command(3, text.as_bytes())
}

fn greeting(version: &str, capabilities: u32) -> Vec<u8> {
    let flags = capabilities.to_le_bytes();
    let payload = [
        &b"\x0a"[..],
        version.as_bytes(),
        b"\0",
        &[7; 12],
        &[0],
        &flags[..2],
        &[8, 2, 0],
        &flags[2..],
        &[0; 30],
    ];
    packets(0, &[&payload.concat()])
}

fn login(capabilities: u32) -> Vec<u8> {
    let payload = [&(capabilities | PROTOCOL_41 | SECURE).to_le_bytes()[..], &[0; 28], b"me\0\x03abcshop\0"];
    packets(1, &[&payload.concat()])
}

fn error(code: u16) -> Vec<u8> {
    [&[0xff], &code.to_le_bytes()[..], b"#42000secret"].concat()
}

#[track_caller]
fn check(pieces: &[(Direction, Vec<u8>)], expected: &[&str], lost: Lost) {
    let pieces: Vec<(Direction, &[u8])> = pieces.iter().map(|(way, bytes)| (*way, &**bytes)).collect();
    let (exchanges, told) = play("pymysql", talk(&pieces));
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(told, lost);
}

#[test]
fn tls_and_compression_are_not_read() {
    let unreadable = Lost { unreadable: 1, ..Lost::default() };
    for flag in [1_u32 << 11, 1 << 5, 1 << 26] {
        let pieces = [
            (ToClient, greeting("8.0.36", u32::MAX)),
            (ToServer, login(flag)),
            (ToClient, packets(2, &[OK])),
            (ToServer, b"\x16\x03\x01\x02\x00\x00\x00\x00".to_vec()),
        ];
        check(&pieces, &[], unreadable);
    }
}

#[test]
fn a_login_says_what_is_known_later() {
    let pieces = [
        (ToClient, greeting("5.5.5-10.11.6-MariaDB-0", !(1 << 5))),
        (ToServer, login(1 << 3)),
        (ToClient, packets(2, &[b"\xfemysql_native_password\0abc"])),
        (ToServer, packets(3, &[b"secret"])),
        (ToClient, packets(4, &[OK])),
        (ToServer, query("use `stock`")),
        (ToClient, packets(1, &[OK])),
        (ToServer, command(0x11, b"me\0\x00other\0")),
        (ToClient, packets(1, &[OK])),
    ];
    let pieces: Vec<(Direction, &[u8])> = pieces.iter().map(|(way, bytes)| (*way, &**bytes)).collect();
    let (exchanges, lost) = play("pymysql", talk(&pieces));
    assert_eq!(lost, Lost::default());
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), ["use `stock`", "CHANGE_USER"]);
    assert_eq!(attribute(&exchanges[0], "db.system.name").as_deref(), Some("mariadb"));
    assert_eq!(attribute(&exchanges[0], "db.namespace").as_deref(), Some("stock"));
}

#[test]
fn a_login_that_fails_is_told() {
    let pieces = [
        (ToClient, greeting("8.0.36", 0xffff)),
        (ToServer, login(0)),
        (ToClient, packets(2, &[&error(1045)])),
    ];
    check(&pieces, &["CONNECT | 1045"], Lost::default());
}

#[test]
fn prepared_statements_with_and_without_eof() {
    let prepared =
        |id: u8, columns: u8, parameters: u8| vec![0, id, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
    let execute = |id: u8| command(0x17, &[id, 0, 0, 0, 0, 1, 0, 0, 0]);
    let pieces = [
        (ToServer, command(0x16, b"select a from t where b = ?")),
        (ToClient, packets(1, &[&prepared(1, 1, 1), DEFINITION, EOF, DEFINITION, EOF])),
        (ToServer, execute(1)),
        (ToClient, packets(1, &[&[1], DEFINITION, EOF, b"\0\0\x01x", EOF])),
        // The same with DEPRECATE_EOF.
        (ToServer, command(0x16, b"select a, b from u where b = ? and c = ?")),
        (ToClient, packets(1, &[&prepared(2, 1, 2), DEFINITION, DEFINITION, DEFINITION])),
        (ToServer, execute(2)),
        (ToClient, packets(1, &[&[1], DEFINITION, b"\0\0\x01x", OK_EOF])),
        (ToServer, [command(0x19, &[1, 0, 0, 0]), execute(1)].concat()),
        (ToClient, packets(1, &[&error(1243)])),
        (ToServer, command(0x16, b"select frm")),
        (ToClient, packets(1, &[&error(1064)])),
        (ToServer, command(0x16, b"do 1")),
        (ToClient, packets(1, &[&prepared(3, 0, 0)])),
        (ToServer, execute(3)),
        (ToClient, packets(1, &[OK])),
    ];
    let expected = [
        "select t | select a from t where b = ?",
        "select u | select a, b from u where b = ? and c = ?",
        "mysql | 1243",
        "select | select frm | 1064",
        "do | do ?",
    ];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn cursors() {
    let cursor = [0xfe, 0, 0, 0x42, 0];
    let pieces = [
        (ToServer, command(0x17, &[9, 0, 0, 0, 1, 1, 0, 0, 0])),
        (ToClient, packets(1, &[&[1], DEFINITION, &cursor])),
        (ToServer, command(0x1c, &[9, 0, 0, 0, 2, 0, 0, 0])),
        (ToClient, packets(1, &[b"\0\0\x01x", b"\0\0\x01y", &cursor])),
    ];
    check(&pieces, &["mysql", "mysql"], Lost::default());
}

#[test]
fn query_attributes() {
    let pieces = [
        (ToClient, greeting("8.0.36", !(1 << 5 | 1 << 26))),
        (ToServer, login(1 << 27)),
        (ToClient, packets(2, &[OK])),
        (ToServer, query("\0\x01select a from t")),
        (ToClient, packets(1, &[OK])),
        (ToServer, query("\x01\x01\0\x01\x03\0\x01nsecretselect 1")),
        (ToClient, packets(1, &[OK])),
    ];
    check(&pieces, &["select t | select a from t", "mysql"], Lost::default());
}

#[test]
fn packets_of_16_mib() {
    // The query goes on in a second packet; of both only the beginning was captured. So does a row of the answer.
    let begin = [&[0xff, 0xff, 0xff, 0, 3][..], b"insert into t values ('secret"].concat();
    let answer = packets(1, &[&[1], DEFINITION, EOF]);
    let row = [&[0xff, 0xff, 0xff, 4, 0xfd][..], &[b'x'; 20]].concat();
    let last = packets(6, &[EOF]);
    let mut chunks = talk(&[
        (ToServer, &begin),
        (ToServer, b"\x03\0\0\x01'')"),
        (ToClient, &answer),
        (ToClient, &row),
        (ToClient, b"\x02\0\0\x05ab"),
        (ToClient, &last),
    ]);
    chunks[0].cut = 0xff_ffff + 4 - begin.len() as u64;
    chunks[4].gap_before = 0xff_ffff + 4 - row.len() as u64;
    let (exchanges, lost) = play("pymysql", chunks);
    assert_eq!(lost, Lost::default());
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), ["insert t | insert into t values (…"]);
    assert_eq!(exchanges[0].end.0, 6_000_000);
}

#[test]
fn commands_without_a_text() {
    let pieces = [
        (ToServer, command(0x09, b"")),
        (ToClient, packets(1, &[b"Uptime: 5"])),
        (ToServer, command(0x04, b"t\0")),
        (ToClient, packets(1, &[DEFINITION, DEFINITION, EOF])),
        (ToServer, command(0x1b, &[0, 0])),
        (ToClient, packets(1, &[EOF])),
        (ToServer, command(0x1f, b"")),
        (ToClient, packets(1, &[OK])),
        (ToServer, command(0x01, b"")),
    ];
    check(&pieces, &["STATISTICS", "FIELD_LIST", "SET_OPTION", "RESET_CONNECTION"], Lost::default());
}

#[test]
fn backslashes_as_the_server_says() {
    let plain_ok = [0, 0, 0, 2, 2, 0, 0];
    let text = "select 'a\\', 'b' from t";
    let pieces = [
        // Not known yet.
        (ToServer, query(text)),
        (ToClient, packets(1, &[&plain_ok])),
        (ToServer, query(text)),
        (ToClient, packets(1, &[OK])),
        (ToServer, query("select 'a\\' from t', b from u")),
        (ToClient, packets(1, &[OK])),
    ];
    check(
        &pieces,
        &["select | select ?…", "select t | select ?, ? from t", "select u | select ?, b from u"],
        Lost::default(),
    );
}

#[test]
fn replication_and_garbage() {
    let pieces = [(ToServer, command(0x12, &[0; 10])), (ToClient, packets(1, &[&[0; 50]]))];
    check(&pieces, &[], Lost { unreadable: 1, ..Lost::default() });
    let pieces = [(ToServer, command(0x77, &[0; 10])), (ToClient, packets(1, &[&[0; 50]]))];
    check(&pieces, &[], Lost { malformed: 1, unmatched: 1, ..Lost::default() });
    let (_, lost) = play("pymysql", [Chunk { cut: u64::MAX, ..talk(&[(ToServer, b"\x01")])[0] }]);
    assert_eq!(lost, Lost::default());
}
