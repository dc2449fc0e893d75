//! What the recorded sessions of DNS do not have.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

#[expect(dead_code, reason = "the recorded sessions use the rest")]
mod support;

use descry_assemble::protocol::Direction::{ToClient, ToServer};
use descry_assemble::protocol::{Chunk, Lost};
use descry_assemble::span::Status;
use descry_decode::ids::BootNanos;
use support::{attribute, brief, play, talk};

const ANSWER: u16 = 0x8180;

/// A message with one question and this behind it.
fn packet(id: u16, flags: u16, name: &str, kind: u16, records: [u16; 3], behind: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [id, flags, 1, records[0], records[1], records[2]] {
        bytes.extend(number.to_be_bytes());
    }
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(behind);
    bytes
}

fn ask(id: u16, name: &str) -> Vec<u8> {
    packet(id, 0x100, name, 1, [0; 3], b"")
}

/// An answer with an address for the name at the beginning of the question.
fn tell(id: u16, name: &str) -> Vec<u8> {
    packet(id, ANSWER, name, 1, [1, 0, 0], b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x7f\0\0\x01")
}

#[track_caller]
fn check<'a>(chunks: impl IntoIterator<Item = Chunk<'a>>, expected: &[&str], lost: Lost) {
    let (exchanges, told) = play("dns_udp", chunks);
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(told, lost);
}

#[test]
fn ids_come_again_and_answers_in_any_order() {
    let bytes = [
        ask(1, "a.b"),
        ask(1, "c.d"),
        ask(2, "a.b"),
        tell(2, "A.b"),
        tell(1, "c.D"),
        tell(1, "a.b"),
        ask(1, "a.b"),
        tell(1, "a.b"),
        tell(1, "a.b"),
    ];
    let ways = [ToServer, ToServer, ToServer, ToClient, ToClient, ToClient, ToServer, ToClient, ToClient];
    let pieces: Vec<_> = ways.into_iter().zip(bytes.iter().map(Vec::as_slice)).collect();
    let expected = ["DNS A | a.b", "DNS A | c.d", "DNS A | a.b", "DNS A | a.b"];
    check(talk(&pieces), &expected, Lost { unmatched: 1, ..Lost::default() });
}

#[test]
fn a_question_that_is_sent_again_is_the_same() {
    let (asked, told) = (ask(7, "a.b"), tell(7, "a.b"));
    let (exchanges, lost) =
        play("dns_udp", talk(&[(ToServer, &asked), (ToServer, &asked), (ToClient, &told)]));
    assert_eq!((exchanges.len(), exchanges[0].start.0, exchanges[0].end.0), (1, 1_000_000, 3_000_000));
    assert_eq!(lost, Lost::default());
}

#[test]
fn questions_without_answers_end() {
    let asked = [ask(1, "a.b"), ask(2, "c.d")];
    let mut chunks = talk(&[(ToServer, &asked[0]), (ToServer, &asked[1])]);
    chunks[1].time = BootNanos(40_000_000_000);
    check(chunks, &["DNS A | a.b ?", "DNS A | c.d ?"], Lost::default());
    let many: Vec<Vec<u8>> = (0..600).map(|id| ask(id, "a.b")).collect();
    let (exchanges, lost) = play("dns_udp", many.iter().map(|bytes| talk(&[(ToServer, bytes)])[0]));
    assert_eq!((exchanges.len(), lost.requests_dropped), (600, 88));
}

#[test]
fn response_codes() {
    let asked = ask(1, "a.b");
    let opt = |upper: u8| [&[0, 0, 41, 4, 0, upper][..], &[0; 5]].concat();
    for (low, upper, code, server) in [
        (0, 0, "NOERROR", false),
        (2, 0, "SERVFAIL", true),
        (3, 0, "NXDOMAIN", false),
        (0, 1, "BADVERS", false),
        (7, 1, "BADCOOKIE", false),
        (12, 0, "_OTHER", false),
    ] {
        let told = packet(1, ANSWER | low, "a.b", 1, [0, 0, 1], &opt(upper));
        let (exchanges, _) = play("dns_udp", talk(&[(ToServer, &asked), (ToClient, &told)]));
        assert_eq!(attribute(&exchanges[0], "dns.response_code").as_deref(), Some(code));
        assert_eq!(matches!(exchanges[0].client_status, Status::Error(_)), code != "NOERROR", "{code}");
        assert_eq!(matches!(exchanges[0].server_status, Status::Error(_)), server, "{code}");
    }
    // A server that does not understand the question need not repeat it.
    let told = [&[0, 1, 0x81, 0x81][..], &[0; 8]].concat();
    check(talk(&[(ToServer, &asked), (ToClient, &told)]), &["DNS A | a.b | FORMERR"], Lost::default());
}

#[test]
fn answers_that_are_cut_tell_no_addresses() {
    let (asked, told) = (ask(1, "a.b"), tell(1, "a.b"));
    for kept in 21..told.len() {
        let mut chunks = talk(&[(ToServer, &asked), (ToClient, &told[..kept])]);
        chunks[1].cut = (told.len() - kept) as u64;
        let (exchanges, lost) = play("dns_udp", chunks);
        assert_eq!(
            (exchanges.len(), exchanges[0].answered, lost),
            (1, true, Lost::default()),
            "{kept} bytes"
        );
        assert_eq!(attribute(&exchanges[0], "dns.answers"), None);
        assert_eq!(attribute(&exchanges[0], "dns.response_code"), None);
    }
}

#[test]
fn names_are_escaped() {
    let asked = ask(1, "a\"b\\.\u{e9}\n");
    check(talk(&[(ToServer, &asked)]), &["DNS A | a\\\"b\\\\.\\195\\169\\n ?"], Lost::default());
    let root =
        packet(1, 0, "", 2, [0; 3], b"")[..12].iter().copied().chain([0, 0, 2, 0, 1]).collect::<Vec<_>>();
    check(talk(&[(ToServer, &root)]), &["DNS NS | . ?"], Lost::default());
    let notify = packet(1, 4 << 11, "a.b", 6, [0; 3], b"");
    check(talk(&[(ToServer, &notify)]), &["DNS NOTIFY | a.b ?"], Lost::default());
}

#[test]
fn garbage_is_counted() {
    let mut circle = ask(1, "a")[..12].to_vec();
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    let (asked, told) = (ask(1, "a.b"), tell(1, "a.b"));
    let pieces =
        [(ToServer, &*circle), (ToServer, b"\0\x01".as_slice()), (ToServer, &told), (ToClient, &asked)];
    check(talk(&pieces), &[], Lost { malformed: 4, ..Lost::default() });
}

#[test]
fn a_stream_finds_its_place_again() {
    let frame = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let bytes = [frame(ask(1, "a.b")), frame(ask(2, "c.d")), frame(tell(1, "a.b")), frame(tell(2, "c.d"))];
    let mut chunks =
        talk(&[(ToServer, &bytes[0]), (ToServer, &bytes[1]), (ToClient, &bytes[2]), (ToClient, &bytes[3])]);
    chunks.remove(2);
    chunks[2].gap_before = bytes[2].len() as u64;
    let (exchanges, lost) = play("dns_tcp", chunks);
    let told: Vec<String> = exchanges.iter().map(brief).collect();
    assert_eq!(told, ["DNS A | c.d", "DNS A | a.b ?"]);
    assert_eq!(lost, Lost::default());
}
