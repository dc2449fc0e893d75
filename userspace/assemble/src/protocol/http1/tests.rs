use super::*;
use crate::protocol::tests::{byte_by_byte, gap, play, to_client, to_server};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Attributes of a request for `/a` with this method.
fn known(method: &str) -> String {
    format!(
        "server.address=h network.protocol.version=1.1 http.request.method={method} http.route=/a url.path=/a"
    )
}

fn check(chunks: &[Chunk<'_>], expected: &[String], lost: Lost) {
    assert_eq!(play(&PROTOCOL, chunks, Some(90)), (expected.to_vec(), lost), "{chunks:?}");
}

/// Whole messages: in portions of a byte they are the same.
fn check_whole(chunks: &[Chunk<'_>], expected: &[String]) {
    check(chunks, expected, Lost::default());
    let without_times = |lines: Vec<String>| -> Vec<String> {
        lines.iter().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest.to_owned()).collect()
    };
    let (found, lost) = play(&PROTOCOL, &byte_by_byte(chunks), Some(90));
    assert_eq!((without_times(found), lost), (without_times(expected.to_vec()), Lost::default()));
}

fn get(times: &str, status: &str) -> String {
    format!("{times} GET /a {}{status}", known("GET"))
}

fn ok(times: &str) -> String {
    get(times, " http.response.status_code=200")
}

#[test]
fn a_request_and_its_answer() {
    check_whole(&[to_server(1, GET), to_client(2, OK)], &[ok("1..2")]);
    check_whole(
        &[to_server(1, GET), to_client(2, OK), to_server(3, GET), to_client(5, OK)],
        &[ok("1..2"), ok("3..5")],
    );
    check_whole(&[to_server(1, "\r\n"), to_server(2, GET), to_client(3, OK)], &[ok("2..3")]);
}

#[test]
fn bodies_end_in_four_ways() {
    let parts = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nabc\r\n",
        "a;x=y\r\n0123456789\r\n",
        "0\r\nX: y\r\n\r\n",
    ];
    let chunks: Vec<Chunk<'_>> =
        parts.iter().enumerate().map(|(at, part)| to_client(2 + at as u64, part)).collect();
    check_whole(&[vec![to_server(1, GET)], chunks].concat(), &[ok("1..5")]);
    let until_close = "HTTP/1.1 200 OK\r\n\r\nall of it";
    check_whole(&[to_server(1, GET), to_client(2, until_close), to_client(4, "more")], &[ok("1..4")]);
    let head = GET.replace("GET", "HEAD");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let expected = format!("1..2 HEAD /a {} http.response.status_code=200", known("HEAD"));
    check_whole(
        &[to_server(1, &head), to_client(2, answer), to_server(3, GET), to_client(4, OK)],
        &[expected, ok("3..4")],
    );
    let not_modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n";
    check_whole(
        &[to_server(1, GET), to_client(2, not_modified), to_server(3, GET), to_client(4, OK)],
        &[get("1..2", " http.response.status_code=304"), ok("3..4")],
    );
}

#[test]
fn pipelines_are_answered_in_their_order() {
    let two = GET.repeat(2);
    let answers = format!("{OK}HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    check_whole(
        &[to_server(1, &two), to_client(2, &answers)],
        &[ok("1..2"), get("1..2", " http.response.status_code=500 error.type=500 client:error server:error")],
    );
}

#[test]
fn bodies_of_requests_are_skipped() {
    let post = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 27\r\nExpect: 100-continue\r\n\r\n";
    let expected = format!("1..5 POST /a {} http.response.status_code=200", known("POST"));
    check_whole(
        &[
            to_server(1, post),
            to_client(2, "HTTP/1.1 100 Continue\r\n\r\n"),
            to_server(3, "GET /not-a-request HTTP/1.1"),
            to_client(5, OK),
        ],
        &[expected],
    );
}

#[test]
fn tunnels_are_not_looked_into() {
    let connect = "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n";
    let expected = "1..2 CONNECT server.address=db server.port=5432 network.protocol.version=1.1 \
                    http.request.method=CONNECT http.response.status_code=200";
    check_whole(
        &[
            to_server(1, connect),
            to_client(2, "HTTP/1.1 200 OK\r\n\r\n"),
            to_server(3, GET),
            to_client(4, OK),
        ],
        &[expected.to_owned()],
    );
}

#[test]
fn websockets_are_counted() {
    let upgrade = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let long = format!("\u{1}~\0\u{7f}{}", "x".repeat(127));
    let expected = get(
        "1..6",
        " http.response.status_code=101 network.protocol.name=websocket descry.websocket.to_server.frames=2 \
         descry.websocket.to_server.bytes=3 descry.websocket.to_client.frames=2 \
         descry.websocket.to_client.bytes=129",
    );
    let mut masked = *b"\x81\x83mask123\x88\x80mask";
    masked[0] = 0x81;
    let closed = *b"\x88\x02\x03\xe8";
    let chunks = [
        to_server(1, upgrade),
        to_client(2, switching),
        Chunk { bytes: &masked[..9], ..to_server(3, "") },
        to_client(4, &long),
        Chunk { bytes: &masked[9..], ..to_server(5, "") },
        Chunk { bytes: &closed, ..to_client(6, "") },
    ];
    check_whole(&chunks, &[expected]);
}

#[test]
fn requests_without_answers() {
    check(&[to_server(1, GET)], &[get("1..90", " unanswered")], Lost::default());
    check(
        &[to_server(1, GET), to_client(2, &OK[..OK.len() - 1])],
        &[get("1..2", " http.response.status_code=200 unanswered")],
        Lost::default(),
    );
    check(&[to_server(1, &GET[..20])], &[], Lost::default());
}

#[test]
fn what_was_not_captured_of_bodies_costs_nothing() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n0123";
    let cut = Chunk { cut: 4996, ..to_client(2, answer) };
    check(
        &[to_server(1, GET), cut, to_server(3, GET), to_client(4, OK)],
        &[ok("1..2"), ok("3..4")],
        Lost::default(),
    );
    let rest = gap(4990, to_client(3, "456789"));
    check(
        &[to_server(1, GET), to_client(2, answer), rest, to_server(4, GET), to_client(5, OK)],
        &[ok("1..3"), ok("4..5")],
        Lost::default(),
    );
}

#[test]
fn heads_that_are_cut_say_what_is_there() {
    let long = format!("{}X: yyy", &GET[..GET.len() - 2]);
    let cut = Chunk { cut: 100, ..to_server(1, &long) };
    let lost = Lost { resynchronized: 1, ..Lost::default() };
    check(&[cut, to_client(2, OK), to_server(3, GET), to_client(4, OK)], &[ok("1..2"), ok("3..4")], lost);
}

#[test]
fn lost_answers_are_not_made_up() {
    let other = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    let lost = Lost { resynchronized: 1, ..Lost::default() };
    // The first answer went by unseen: the second is not taken for it.
    check(
        &[to_server(1, GET), gap(40, to_client(2, "")), to_server(3, GET), to_client(4, OK)],
        &[get("1..3", " unanswered"), ok("3..4")],
        Lost::default(),
    );
    // The first request went by unseen.
    check(
        &[
            to_server(1, GET),
            to_client(2, OK),
            gap(28, to_server(3, "")),
            to_client(4, other),
            to_server(5, GET),
            to_client(6, OK),
        ],
        &[ok("1..2"), ok("5..6")],
        Lost { unmatched: 1, ..lost },
    );
    // Of a pipeline nobody can say any more what belongs together.
    check(
        &[to_server(1, &GET.repeat(2)), gap(40, to_client(2, OK)), to_server(3, GET), to_client(4, OK)],
        &[get("1..2", " unanswered"), get("1..2", " unanswered")],
        Lost { requests_dropped: 1, ..Lost::default() },
    );
}

#[test]
fn who_comes_late_finds_the_next_message() {
    let rest = gap(u64::MAX, to_client(1, "the rest of a body"));
    let first = gap(u64::MAX, to_server(2, GET));
    check(&[rest, first, to_client(3, OK)], &[ok("2..3")], Lost::default());
    // An answer to HEAD, which nobody saw: no body follows, whatever it says.
    let head = gap(u64::MAX, to_client(1, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"));
    check(&[head, first, to_client(3, OK)], &[ok("2..3")], Lost { unmatched: 1, ..Lost::default() });
}

#[test]
fn nonsense_is_counted() {
    let lost = Lost { malformed: 1, resynchronized: 1, ..Lost::default() };
    check(
        &[
            to_server(1, GET),
            to_client(2, OK),
            to_server(3, "\x16\x03\x01 what"),
            to_server(4, GET),
            to_client(5, OK),
        ],
        &[ok("1..2"), ok("4..5")],
        lost,
    );
    let head = format!("GET /a HTTP/1.1\r\nHost: h\r\n{}", "X: y\r\n".repeat(200_000));
    let (found, _) = play(&PROTOCOL, &[to_server(1, &head), to_client(2, OK)], None);
    assert!(found.len() <= 1);
}

#[test]
fn what_begins_like_http() {
    fn check(to_server: &str, to_client: &str, expected: Verdict) {
        let (to_server, to_client) = (to_server.as_bytes(), to_client.as_bytes());
        let opening = Opening { to_server, to_client, from_start: false };
        assert_eq!(recognize(Transport::Stream, opening), expected, "{opening:?}");
    }
    check("", "", Verdict::NotYet);
    check("GE", "", Verdict::NotYet);
    check("GET /", "", Verdict::Yes);
    check("PURGE /x", "", Verdict::NotYet);
    check("PURGE /x HTTP/1.1\r\n", "", Verdict::Yes);
    check("GET x\r\n", "", Verdict::No);
    check("GET /a SIP/2.0\r\n", "", Verdict::No);
    check("get / HTTP/1.1\r\n", "", Verdict::No);
    check("", "HTTP/1.1 200 OK", Verdict::Yes);
    check("", "HTTP/1.", Verdict::NotYet);
    check("", "HTTP/2 200", Verdict::No);
    check("*1\r\n$4\r\nPING\r\n", "", Verdict::No);
}
