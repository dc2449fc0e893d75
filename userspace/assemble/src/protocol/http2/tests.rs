use super::*;
use crate::protocol::tests::{byte_by_byte, gap, play, to_client, to_server};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const BOTH: u8 = END_STREAM | END_HEADERS;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn client(time: u64, bytes: &[u8]) -> Chunk<'_> {
    Chunk { bytes, ..to_server(time, "") }
}

fn server(time: u64, bytes: &[u8]) -> Chunk<'_> {
    Chunk { bytes, ..to_client(time, "") }
}

/// A field that is added to the table (RFC 7541, section 6.2.1).
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// `GET`, `http`, `/a`, `h`.
fn get() -> Vec<u8> {
    [&[0x82, 0x86][..], &literal(":path", "/a"), &literal(":authority", "h")].concat()
}

/// A call of `/p.S/M`.
fn call() -> Vec<u8> {
    [&[0x83, 0x86][..], &literal(":path", "/p.S/M"), &literal("content-type", "application/grpc")].concat()
}

const KNOWN: &str = "server.address=h network.protocol.version=2 http.request.method=GET url.scheme=http \
                     http.route=/a url.path=/a";
const CALL: &str = "p.S/M network.protocol.version=2 rpc.system.name=grpc rpc.method=p.S/M";
/// `:status: 200`.
const OK: [u8; 1] = [0x88];

fn preface() -> Vec<u8> {
    [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

fn check(chunks: &[Chunk<'_>], expected: &[&str], lost: Lost) {
    let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(play(&PROTOCOL, chunks, Some(90)), (expected.clone(), lost), "{chunks:?}");
}

fn check_whole(chunks: &[Chunk<'_>], expected: &[&str]) {
    check(chunks, expected, Lost::default());
    check(&byte_by_byte(chunks), expected, Lost::default());
}

#[test]
fn a_request_ends_with_its_answers_stream() {
    check_whole(
        &[
            client(1, &preface()),
            client(2, &frame(HEADERS, BOTH, 1, &get())),
            server(3, &frame(SETTINGS, 0, 0, &[])),
            server(4, &frame(HEADERS, END_HEADERS, 1, &OK)),
            server(5, &frame(DATA, 0, 1, b"half")),
            server(6, &frame(DATA, END_STREAM, 1, b"half")),
        ],
        &[&format!("2..6 GET /a {KNOWN} http.response.status_code=200")],
    );
}

#[test]
fn streams_are_open_at_the_same_time() {
    let answers = [
        frame(HEADERS, END_HEADERS, 3, &OK),
        frame(HEADERS, BOTH, 1, &[0x8e]),
        frame(DATA, END_STREAM, 3, b"x"),
    ];
    check_whole(
        &[
            client(1, &preface()),
            client(2, &frame(HEADERS, BOTH, 1, &get())),
            // The same fields by their places in the table.
            client(3, &frame(HEADERS, BOTH, 3, &[0x82, 0x86, 0xbf, 0xbe])),
            server(4, &answers.concat()),
        ],
        &[
            &format!(
                "2..4 GET /a {KNOWN} http.response.status_code=500 error.type=500 client:error server:error"
            ),
            &format!("3..4 GET /a {KNOWN} http.response.status_code=200"),
        ],
    );
}

#[test]
fn header_blocks_may_be_padded_and_in_parts() {
    let block = get();
    let (first, rest) = block.split_at(5);
    // Padding of 3, priority of 5 bytes.
    let padded = [&[3, 0, 0, 0, 0, 16][..], first, &[0; 3]].concat();
    let interim = frame(HEADERS, END_HEADERS, 1, &literal(":status", "103"));
    check_whole(
        &[
            client(1, &preface()),
            client(2, &frame(HEADERS, END_STREAM | 0x28, 1, &padded)),
            client(3, &frame(CONTINUATION, 0, 1, &[])),
            client(4, &frame(CONTINUATION, END_HEADERS, 1, rest)),
            server(5, &interim),
            server(6, &frame(HEADERS, BOTH, 1, &OK)),
        ],
        &[&format!("2..6 GET /a {KNOWN} http.response.status_code=200")],
    );
}

#[test]
fn streams_are_given_up() {
    let request = frame(HEADERS, BOTH, 1, &get());
    check_whole(
        &[client(1, &preface()), client(2, &request), client(3, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]))],
        &[&format!("2..3 GET /a {KNOWN} descry.unanswered=reset error.type=CANCEL unanswered client:error")],
    );
    check_whole(
        &[client(1, &preface()), client(2, &request), server(3, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]))],
        &[&format!(
            "2..3 GET /a {KNOWN} descry.unanswered=reset error.type=INTERNAL_ERROR unanswered client:error server:error"
        )],
    );
    let away = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    check_whole(
        &[
            client(1, &preface()),
            client(2, &request),
            client(3, &frame(HEADERS, BOTH, 3, &[0x82, 0x86, 0xbf, 0xbe])),
            server(4, &away),
            server(5, &frame(HEADERS, BOTH, 1, &OK)),
        ],
        &[
            &format!(
                "3..4 GET /a {KNOWN} descry.unanswered=reset error.type=REFUSED_STREAM unanswered client:error server:error"
            ),
            &format!("2..5 GET /a {KNOWN} http.response.status_code=200"),
        ],
    );
}

#[test]
fn calls_have_their_status_in_trailers() {
    let status = |code: &str| frame(HEADERS, BOTH, 1, &literal("grpc-status", code));
    let calls = |trailers: &[u8], expected: &str| {
        check_whole(
            &[
                client(1, &preface()),
                client(2, &frame(HEADERS, END_HEADERS, 1, &call())),
                client(3, &frame(DATA, 0, 1, b"\0\0\0\0\x01x")),
                server(4, &frame(HEADERS, END_HEADERS, 1, &OK)),
                server(5, &frame(DATA, 0, 1, b"\0\0\0\0\x01x")),
                client(6, &frame(DATA, END_STREAM, 1, &[])),
                server(7, trailers),
            ],
            &[&format!("2..7 {CALL}{expected}")],
        );
    };
    calls(&status("0"), " rpc.response.status_code=OK");
    calls(&status("5"), " rpc.response.status_code=NOT_FOUND error.type=NOT_FOUND client:error");
    calls(
        &status("14"),
        " rpc.response.status_code=UNAVAILABLE error.type=UNAVAILABLE client:error server:error",
    );
    calls(&status("99"), " rpc.response.status_code=UNKNOWN error.type=UNKNOWN client:error server:error");
    // Nothing but trailers.
    let only =
        [&OK[..], &literal("content-type", "application/grpc"), &literal("grpc-status", "12")].concat();
    check_whole(
        &[
            client(1, &preface()),
            client(2, &frame(HEADERS, END_HEADERS, 1, &call())),
            server(4, &frame(HEADERS, BOTH, 1, &only)),
        ],
        &[&format!(
            "2..4 {CALL} rpc.response.status_code=UNIMPLEMENTED error.type=UNIMPLEMENTED client:error server:error"
        )],
    );
}

#[test]
fn an_upgrade_is_answered_on_the_first_stream() {
    let upgrade = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let answer = [switching.as_bytes(), &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, BOTH, 1, &OK)].concat();
    let (preface, request, second) =
        (preface(), frame(HEADERS, BOTH, 3, &get()), frame(HEADERS, BOTH, 3, &OK));
    let chunks = [
        to_server(1, upgrade),
        server(2, &answer),
        client(3, &preface),
        client(4, &request),
        server(5, &second),
    ];
    let expected = [
        "1..2 GET /a server.address=h network.protocol.version=1.1 http.request.method=GET http.route=/a \
         url.path=/a http.response.status_code=200"
            .to_owned(),
        format!("4..5 GET /a {KNOWN} http.response.status_code=200"),
    ];
    assert_eq!(
        play(&crate::protocol::http1::PROTOCOL, &chunks, Some(90)),
        (expected.to_vec(), Lost::default())
    );
}

#[test]
fn who_comes_late_leaves_out_what_it_cannot_know() {
    let request = frame(HEADERS, BOTH, 7, &[0x82, 0x86, 0xbf, 0xbe]);
    let answer = frame(HEADERS, BOTH, 7, &OK);
    check(
        &[gap(u64::MAX, client(1, &request)), gap(u64::MAX, server(2, &answer))],
        &[
            "1..2 GET network.protocol.version=2 http.request.method=GET url.scheme=http http.response.status_code=200",
        ],
        Lost::default(),
    );
    // An answer whose request nobody saw.
    check(&[client(1, &preface()), server(2, &answer)], &[], Lost { unmatched: 1, ..Lost::default() });
}

#[test]
fn a_gap_makes_the_table_unknown() {
    let later = frame(HEADERS, BOTH, 5, &[0x82, 0x86, 0xbf, 0xbe]);
    let answer = frame(HEADERS, BOTH, 5, &OK);
    check(
        &[
            client(1, &preface()),
            client(2, &frame(HEADERS, BOTH, 1, &get())),
            server(3, &frame(HEADERS, BOTH, 1, &OK)),
            gap(30, client(4, &[])),
            client(5, &later),
            server(6, &answer),
        ],
        &[
            &format!("2..3 GET /a {KNOWN} http.response.status_code=200"),
            "5..6 GET network.protocol.version=2 http.request.method=GET url.scheme=http http.response.status_code=200",
        ],
        Lost { resynchronized: 1, ..Lost::default() },
    );
}

#[test]
fn what_was_not_captured_of_data_costs_nothing() {
    let data = frame(DATA, END_STREAM, 1, &[0; 5000]);
    let request = frame(HEADERS, BOTH, 1, &get());
    let headers = frame(HEADERS, END_HEADERS, 1, &OK);
    let expected = format!("2..4 GET /a {KNOWN} http.response.status_code=200");
    let cut = Chunk { cut: 4990, ..server(4, &data[..19]) };
    check(
        &[client(1, &preface()), client(2, &request), server(3, &headers), cut],
        &[&expected],
        Lost::default(),
    );
    let rest = gap(4990, server(4, &data[5009 - 10..]));
    check(
        &[client(1, &preface()), client(2, &request), server(3, &headers), server(4, &data[..9]), rest],
        &[&expected],
        Lost::default(),
    );
}

#[test]
fn floods_are_bounded() {
    let mut flood = [preface(), frame(HEADERS, 0, 1, &get())].concat();
    for _ in 0..10_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &[0x82; 1000]));
    }
    let (found, _) = play(&PROTOCOL, &[client(1, &flood)], Some(90));
    assert_eq!(found, [""; 0]);
    // Open streams without end.
    let mut streams = preface();
    for stream in 0..3 * MAX_STREAMS as u32 {
        streams.extend(frame(HEADERS, BOTH, 2 * stream + 1, &get()));
    }
    let (found, lost) = play(&PROTOCOL, &[client(1, &streams)], Some(90));
    assert_eq!((found.len(), lost.requests_dropped), (3 * MAX_STREAMS, 2 * MAX_STREAMS as u64));
}

#[test]
fn what_begins_like_http2() {
    fn check(to_server: &[u8], to_client: &[u8], from_start: bool, expected: Verdict) {
        let opening = Opening { to_server, to_client, from_start };
        assert_eq!(recognize(Transport::Stream, opening), expected, "{opening:?}");
    }
    check(&preface(), &[], true, Verdict::Yes);
    check(&PREFACE[..10], &[], true, Verdict::NotYet);
    check(&frame(HEADERS, BOTH, 1, &get()), &[], true, Verdict::No);
    check(&frame(HEADERS, BOTH, 1, &get()), &[], false, Verdict::Yes);
    let two = [frame(HEADERS, END_HEADERS, 1, &get()), frame(DATA, END_STREAM, 1, b"x")].concat();
    check(&two, &[], false, Verdict::Yes);
    check(&two[..40], &[], false, Verdict::NotYet);
    check(&[], &two, false, Verdict::Yes);
    check(b"GET / HTTP/1.1\r\n", &[], false, Verdict::No);
    check(b"Q\0\0\0\x0dselect 1\0", &[], false, Verdict::No);
    check(b"\x16\x03\x01\x02\0\x01\0\x01\xfc", &[], false, Verdict::No);
}
