//! What the recorded sessions of Redis do not have.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

#[expect(dead_code, reason = "the recorded sessions use the rest")]
mod support;

use descry_assemble::protocol::Direction::{self, ToClient, ToServer};
use descry_assemble::protocol::{Chunk, Lost};
use descry_decode::ids::BootNanos;
use support::{brief, play, talk};

/// A command.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

#[track_caller]
fn check(pieces: &[(Direction, Vec<u8>)], expected: &[&str], lost: Lost) {
    let pieces: Vec<(Direction, &[u8])> = pieces.iter().map(|(way, bytes)| (*way, &**bytes)).collect();
    let (exchanges, told) = play("redis", talk(&pieces));
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(told, lost);
}

/// One command and its answer.
#[track_caller]
fn check_one(words: &[&str], answer: &str, expected: &str) {
    let pieces = [(ToServer, command(words)), (ToClient, answer.as_bytes().to_vec())];
    check(&pieces, &[expected], Lost::default());
}

#[test]
fn answers_of_all_kinds() {
    for answer in [
        "+OK\r\n",
        ":1\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$5\r\na\r\nbc\r\n",
        "*-1\r\n",
        "*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        "(12345678901234567890\r\n",
        "=7\r\ntxt:abc\r\n",
        "%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n",
        "~2\r\n:1\r\n$1\r\na\r\n",
        "*2\r\n*1\r\n*0\r\n%0\r\n",
        "|1\r\n+ttl\r\n:5\r\n$1\r\na\r\n",
        "*2\r\n|1\r\n+ttl\r\n*1\r\n:5\r\n:1\r\n:2\r\n",
        "|0\r\n:1\r\n",
        ">2\r\n+invalidate\r\n*1\r\n+k\r\n:1\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    ] {
        check_one(&["GET", "secret"], answer, "GET");
    }
}

#[test]
fn errors_by_their_first_word() {
    check_one(&["GET", "k"], "-WRONGTYPE Operation against a key\r\n", "GET | WRONGTYPE");
    check_one(&["GET", "k"], "-MOVED 3999 127.0.0.1:6381\r\n", "GET | MOVED");
    check_one(&["GET", "k"], "!21\r\nSYNTAX invalid syntax\r\n", "GET | SYNTAX");
    check_one(&["EVAL", "x", "0"], "-secret words of a script\r\n", "EVAL | _OTHER");
    check_one(&["pa$$word"], "-ERR unknown command 'pa$$word'\r\n", "_OTHER | ERR");
    check_one(&["secret"], "-ERR unknown command 'secret'\r\n", "_OTHER | ERR");
    check_one(&["FCALL", "my_function", "0"], "-NOSCRIPT no such\r\n", "FCALL | NOSCRIPT");
    check_one(&["config", "GET", "save"], "*0\r\n", "config GET");
}

#[test]
fn a_transaction_that_was_given_up() {
    let pieces = [
        (
            ToServer,
            [command(&["MULTI"]), command(&["GET", "k"]), command(&["NOPE"]), command(&["EXEC"])].concat(),
        ),
        (
            ToClient,
            b"+OK\r\n+QUEUED\r\n-ERR unknown command 'NOPE'\r\n-EXECABORT Transaction discarded\r\n".to_vec(),
        ),
        (ToServer, command(&["EXEC"])),
        (ToClient, b"*-1\r\n".to_vec()),
    ];
    check(&pieces, &["MULTI", "GET", "_OTHER | ERR", "EXEC | EXECABORT", "EXEC"], Lost::default());
}

#[test]
fn client_reply() {
    let pieces = [
        (
            ToServer,
            [command(&["CLIENT", "REPLY", "SKIP"]), command(&["SET", "k", "v"]), command(&["GET", "k"])]
                .concat(),
        ),
        (ToClient, b"$1\r\nv\r\n".to_vec()),
        (ToServer, [command(&["CLIENT", "REPLY", "OFF"]), command(&["SET", "k", "v"])].concat()),
        (ToServer, [command(&["CLIENT", "REPLY", "ON"]), command(&["PING"])].concat()),
        (ToClient, b"+OK\r\n+PONG\r\n".to_vec()),
    ];
    let expected = ["CLIENT REPLY ?", "SET ?", "GET", "CLIENT REPLY ?", "SET ?", "CLIENT REPLY", "PING"];
    check(&pieces, &expected, Lost::default());
}

#[test]
fn subscribers_and_monitors() {
    let confirmed =
        |kind: &str, left: u8| format!("*3\r\n${}\r\n{kind}\r\n$1\r\na\r\n:{left}\r\n", kind.len());
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$6\r\nsecret\r\n";
    let answer = |parts: &[&str]| (ToClient, parts.concat().into_bytes());
    let pieces = [
        (ToServer, command(&["subscribe", "a", "b"])),
        answer(&[&confirmed("subscribe", 1), message]),
        answer(&[&confirmed("subscribe", 2), message]),
        (ToServer, command(&["PING"])),
        answer(&[message, "*2\r\n$4\r\npong\r\n$0\r\n\r\n"]),
        (ToServer, command(&["unsubscribe"])),
        answer(&[&confirmed("unsubscribe", 1), &confirmed("unsubscribe", 0)]),
        (ToServer, command(&["LRANGE", "k", "0", "-1"])),
        answer(&["*1\r\n$7\r\nmessage\r\n"]),
        (ToServer, command(&["MONITOR"])),
        answer(&["+OK\r\n", "+1.5 [0 127.0.0.1:1] \"GET\" \"secret\"\r\n", "+1.6 x\r\n"]),
    ];
    check(&pieces, &["subscribe", "PING", "unsubscribe", "LRANGE", "MONITOR"], Lost::default());
}

#[test]
fn other_protocols_are_not_read() {
    let unreadable = Lost { unreadable: 1, ..Lost::default() };
    check(&[(ToServer, b"\x16\x03\x01\x02".to_vec()), (ToClient, b"\x16\x03".to_vec())], &[], unreadable);
    check(
        &[(ToServer, command(&["PSYNC", "?", "-1"])), (ToClient, b"+FULLRESYNC x 0\r\n$9\r\nREDIS".to_vec())],
        &[],
        unreadable,
    );
    let malformed = Lost { malformed: 2, ..Lost::default() };
    check(
        &[(ToServer, b"*1\r\n:5\r\n".to_vec()), (ToClient, b"HTTP/1.1 200 OK\r\n".to_vec())],
        &[],
        malformed,
    );
    let deep = "*1\r\n".repeat(1000).into_bytes();
    check(
        &[(ToServer, command(&["GET", "k"])), (ToClient, deep)],
        &["GET"],
        Lost { malformed: 1, ..Lost::default() },
    );
}

#[test]
fn strings_that_are_cut() {
    let value = "secret".repeat(10_000);
    let asked = command(&["SET", "k", &value]);
    let answer = format!("${}\r\n{value}\r\n", value.len()).into_bytes();
    let get = command(&["GET", "k"]);
    let mut chunks = talk(&[
        (ToServer, &asked[..60]),
        (ToClient, b"+OK\r\n"),
        (ToServer, &get),
        (ToClient, &answer[..20]),
        (ToClient, b"et\r\n"),
    ]);
    chunks[0].cut = asked.len() as u64 - 60;
    chunks[4].gap_before = answer.len() as u64 - 24;
    let (exchanges, lost) = play("redis", chunks);
    assert_eq!(exchanges.iter().map(brief).collect::<Vec<_>>(), ["SET", "GET"]);
    assert_eq!((exchanges[1].end.0, lost), (5_000_000, Lost::default()));
}

#[test]
fn a_client_that_does_not_wait_is_believed_after_a_pause() {
    let (get, ping, many) = (command(&["GET", "k"]), command(&["PING"]), b"+A\r\n+B\r\n".as_slice());
    let chunk = |millis: u64, direction, bytes, gap_before| Chunk {
        direction,
        time: BootNanos(millis * 1_000_000),
        gap_before,
        bytes,
        cut: 0,
    };
    let chunks = [
        // Two in flight: the second is sent while the first is open.
        chunk(1, ToServer, &get, 0),
        chunk(2, ToServer, &get, 0),
        chunk(3, ToClient, b"+A\r\n", 0),
        chunk(4, ToServer, &get, 0),
        chunk(5, ToClient, b"+B\r\n", 0),
        // Answers are lost: nothing can be said of those in flight, nor of the next.
        chunk(6, ToServer, &ping, 0),
        chunk(7, ToClient, many, 4),
        chunk(8, ToServer, &ping, 0),
        chunk(9, ToClient, many, 0),
        // A pause.
        chunk(300, ToServer, &ping, 0),
        chunk(301, ToClient, b"-LOADING\r\n", 0),
    ];
    let (exchanges, _) = play("redis", chunks);
    let told: Vec<String> = exchanges.iter().map(brief).collect();
    assert_eq!(told, ["GET", "GET", "GET ?", "PING ?", "PING ?", "PING | LOADING"]);
}
