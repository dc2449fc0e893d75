use super::held::{MAX_PIECES, MAX_TRIES};
use super::*;
use crate::infer::PROTOCOLS;
use crate::protocol::tests::{gap, to_client, to_server};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

fn settings() -> Settings {
    Settings { options: Options::default(), protocols: PROTOCOLS.to_vec(), unix_offset: 1000 }
}

fn origin(role: Role) -> Origin {
    Origin {
        id: 7,
        transport: Transport::Stream,
        role,
        role_turns: false,
        client: "10.0.0.1:50000".parse().ok(),
        server: "10.0.0.2:80".parse().ok(),
        is_oriented: true,
        from_start: true,
        is_encrypted: false,
    }
}

fn play(origin: Origin, chunks: &[Chunk<'_>], end: Option<End>) -> Vec<Span> {
    let (mut connection, mut spans) = (Connection::new(origin), Vec::new());
    let mut turned = false;
    for chunk in chunks {
        let direction = if turned { chunk.direction.reversed() } else { chunk.direction };
        turned ^= connection.data(Chunk { direction, ..*chunk }, &settings(), None, &mut spans);
    }
    if let Some(end) = end {
        connection.end(BootNanos(90), end, &settings(), &mut spans);
    }
    spans
}

/// Spans as `KIND START..END NAME STATUS ATTRIBUTE=VALUE...`, without the attributes of the request.
fn check(origin: Origin, chunks: &[Chunk<'_>], end: Option<End>, expected: &[&str]) {
    let spans = play(origin, chunks, end);
    let lines: Vec<String> = spans.iter().map(line).collect();
    assert_eq!(lines, expected);
}

fn line(span: &Span) -> String {
    let failed = if matches!(span.status, Status::Error(_)) { "error" } else { "unset" };
    let mut line = format!("{:?} {}..{} {} {failed}", span.kind, span.start, span.end, span.name);
    for (name, value) in &span.attributes {
        if !["http.request.method", "network.protocol.version", "url.path"].contains(&name.as_ref()) {
            line += &match value {
                Value::Text(text) => format!(" {name}={text}"),
                Value::Shared(text) => format!(" {name}={text}"),
                Value::Static(text) => format!(" {name}={text}"),
                Value::Int(number) => format!(" {name}={number}"),
                other => format!(" {name}={other:?}"),
            };
        }
    }
    line
}

const SERVER: &str = "server.port=80 client.address=10.0.0.1 client.port=50000 network.peer.address=10.0.0.1 \
                      network.peer.port=50000";
const CLIENT: &str = "server.port=80 network.peer.address=10.0.0.2 network.peer.port=80";

#[test]
fn sides_see_the_same_request_differently() {
    let chunks = [to_server(1, GET), to_client(2, MISSING)];
    check(
        origin(Role::Server),
        &chunks,
        None,
        &[&format!(
            "Server 1001..1002 GET /a unset server.address=shop http.route=/a http.response.status_code=404 {SERVER}"
        )],
    );
    check(
        origin(Role::Client),
        &chunks,
        None,
        &[&format!(
            "Client 1001..1002 GET /a error server.address=shop url.template=/a http.response.status_code=404 \
             error.type=404 {CLIENT}"
        )],
    );
}

#[test]
fn requests_without_answers_say_why() {
    let chunks = [to_server(1, GET)];
    let known = "Server 1001..1090 GET /a";
    let route = "server.address=shop http.route=/a";
    let by_client = Some(End::Closed(Direction::ToServer));
    check(
        origin(Role::Server),
        &chunks,
        by_client,
        &[&format!("{known} unset {route} descry.unanswered=closed_by_client {SERVER}")],
    );
    check(
        origin(Role::Server),
        &chunks,
        Some(End::Closed(Direction::ToClient)),
        &[&format!(
            "{known} error {route} descry.unanswered=closed_by_server error.type=connection_closed {SERVER}"
        )],
    );
    check(
        origin(Role::Server),
        &chunks,
        Some(End::Unknown),
        &[&format!("{known} unset {route} descry.unanswered=unknown {SERVER}")],
    );
    check(
        origin(Role::Server),
        &[to_server(1, GET), gap(9, to_client(2, "")), to_server(3, GET)],
        None,
        &[&format!("Server 1001..1003 GET /a unset {route} descry.unanswered=lost {SERVER}")],
    );
}

#[test]
fn the_callers_trace_goes_on() {
    let traced = GET.replace(
        "\r\n\r\n",
        "\r\ntracestate: a=b\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    );
    let spans = play(
        origin(Role::Server),
        &[to_server(1, &traced), to_client(2, MISSING), to_server(3, GET), to_client(4, MISSING)],
        None,
    );
    let [first, second] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(first.trace.0[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(first.parent, Some(SpanId([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31])));
    assert_eq!((first.flags, &*first.trace_state, first.parent_is_remote), (1, "a=b", Some(true)));
    assert_eq!((second.parent, second.flags, second.parent_is_remote), (None, NEW_TRACE, None));
    assert!(
        second.trace != TraceId::default() && first.span != second.span && first.span != SpanId::default()
    );
}

#[test]
fn bytes_say_who_is_the_client() {
    let reversed = Origin {
        client: origin(Role::Server).server,
        server: origin(Role::Server).client,
        is_oriented: false,
        from_start: false,
        ..origin(Role::Server)
    };
    let chunks = [gap(u64::MAX, to_client(1, GET)), gap(u64::MAX, to_server(2, MISSING))];
    check(
        reversed,
        &chunks,
        None,
        &[&format!(
            "Server 1001..1002 GET /a unset server.address=shop http.route=/a http.response.status_code=404 {SERVER}"
        )],
    );
}

#[test]
fn other_protocols_are_left_alone() {
    let mut connection = Connection::new(origin(Role::Server));
    connection.data(to_server(1, "SSH-2.0-OpenSSH_9.2\r\n"), &settings(), None, &mut Vec::new());
    assert!(connection.is_unknown());
    // Older than the capture: every turn may be a beginning, but not for ever; and neither is one direction waited for.
    let nothing = "\u{1}\u{2}nothing that is known";
    for (turns, limit) in [(true, MAX_TRIES), (false, MAX_PIECES)] {
        let mut late = Connection::new(Origin { from_start: false, ..origin(Role::Server) });
        for time in 0..4 * u64::from(limit) {
            assert!(time >= u64::from(limit) || !late.is_unknown(), "turns {turns}, {time}");
            let chunk =
                if turns && time % 2 == 1 { to_client(time, nothing) } else { to_server(time, nothing) };
            late.data(chunk, &settings(), None, &mut Vec::new());
        }
        assert!(late.is_unknown());
    }
}

/// A client that was seen from the middle on, whose answers come in small pieces.
#[test]
fn answers_in_pieces_belong_to_their_requests() {
    let request = b"GET /missing HTTP/1.1\r\nhost: a\r\n\r\n".as_slice();
    let pieces: [&[u8]; 4] = [
        b"HTTP/1.1 ",
        b"404",
        b" Not Found\r\ncontent-type: text/plain\r\ncontent-length: ",
        b"13\r\n\r\nno such page\n",
    ];
    let mut chunks = Vec::new();
    let mut time = 0;
    let mut say = |direction, bytes| {
        time += 10;
        chunks.push(Chunk { direction, time: BootNanos(time), gap_before: 0, bytes, cut: 0 });
    };
    for _ in 0..20 {
        say(Direction::ToServer, request);
        pieces.iter().for_each(|piece| say(Direction::ToClient, *piece));
    }
    let spans = play(Origin { from_start: false, ..origin(Role::Client) }, &chunks, None);
    for span in &spans {
        assert!(span.end.0 - span.start.0 <= 40, "{} to {} of {}", span.start.0, span.end.0, spans.len());
    }
    assert!(spans.len() >= 18, "{} spans", spans.len());
}
