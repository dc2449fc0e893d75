use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use descry_assemble::span::{Attribute, SpanId, SpanKind, Status, TraceId};
use descry_decode::ids::UnixNanos;

use super::*;

const SERVER: SpanKind = SpanKind::Server;
const CLIENT: SpanKind = SpanKind::Client;

fn text(name: &'static str, value: &'static str) -> Attribute {
    (Cow::Borrowed(name), Value::Static(value))
}

/// A span that took `duration` ns.
fn span(kind: SpanKind, duration: u64, attributes: Vec<Attribute>) -> Span {
    Span {
        trace: TraceId([1; 16]),
        span: SpanId([2; 8]),
        parent: None,
        trace_state: "".into(),
        flags: 1,
        parent_is_remote: None,
        kind,
        name: "".into(),
        start: UnixNanos(1000),
        end: UnixNanos(1000 + duration),
        status: Status::Unset,
        attributes: attributes.into(),
        events: Vec::new(),
        links: Vec::new(),
    }
}

fn get(duration: u64, route: &'static str) -> Span {
    span(SERVER, duration, vec![text("http.request.method", "GET"), text("http.route", route)])
}

/// Each row as (process, metric, values that are there, count, longest, exemplars).
type Found = (u32, &'static str, String, u64, u64, usize);

fn found(metrics: &RequestMetrics<u32>) -> Vec<Found> {
    let text = |row: &Row<'_>| match row.attributes {
        None => "overflow".to_owned(),
        Some(values) => {
            let text = |value: &Value| value.as_text().map_or_else(|| format!("{value:?}"), str::to_owned);
            values.iter().flatten().map(text).collect::<Vec<_>>().join(" ")
        }
    };
    let of = |process: u32, row: &Row<'_>| {
        (
            process,
            row.instrument.name(),
            text(row),
            row.durations.count,
            row.durations.max,
            row.exemplars.len(),
        )
    };
    metrics
        .rows()
        .flat_map(|(process, rows)| rows.iter().map(|row| of(*process, row)).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_a_span_is_measured_as() {
    let http = || vec![text("http.request.method", "GET"), text("network.protocol.version", "1.1")];
    let rpc = || vec![text("network.protocol.version", "2"), text("rpc.system.name", "grpc")];
    let database = || vec![text("db.system.name", "redis")];
    let dns = || vec![text("dns.question.name", "a.example")];
    for (kind, attributes, expected) in [
        (SERVER, http(), Some("http.server.request.duration")),
        (CLIENT, http(), Some("http.client.request.duration")),
        (SERVER, vec![text("network.protocol.version", "2")], Some("http.server.request.duration")),
        (SERVER, rpc(), Some("rpc.server.call.duration")),
        (CLIENT, rpc(), Some("rpc.client.call.duration")),
        (CLIENT, database(), Some("db.client.operation.duration")),
        (SpanKind::Producer, database(), Some("db.client.operation.duration")),
        (SERVER, database(), Some("descry.db.server.operation.duration")),
        (CLIENT, dns(), Some("dns.lookup.duration")),
        (SERVER, dns(), Some("descry.dns.server.lookup.duration")),
        (CLIENT, vec![text("error.type", "ECONNREFUSED")], None),
        (SpanKind::Internal, http(), None),
    ] {
        let instrument = Instrument::of(&span(kind, 1, attributes));
        assert_eq!(instrument.map(Instrument::name), expected);
    }
}

#[test]
fn requests_are_told_apart_by_what_the_conventions_name() {
    let mut metrics = RequestMetrics::new(Limits::default());
    metrics.record(&1, &get(10, "/a"), true);
    // The same in another form, and with what does not matter.
    let text = |name: &'static str, value: &str| (Cow::Borrowed(name), Value::Text(value.into()));
    let same = vec![
        text("url.path", "/a"),
        (Cow::Borrowed("http.route"), Value::Shared("/a".into())),
        text("http.request.method", "GET"),
    ];
    metrics.record(&1, &span(SERVER, 30, same), false);
    metrics.record(&1, &get(20, "/b"), true);
    metrics.record(&2, &get(40, "/a"), true);
    let code = (Cow::Borrowed("http.response.status_code"), Value::Int(500));
    metrics.record(&1, &span(SERVER, 5, vec![code]), true);
    let name = "http.server.request.duration";
    let expected: Vec<Found> = vec![
        (1, name, "GET /a".into(), 2, 30, 1),
        (1, name, "GET /b".into(), 1, 20, 1),
        (1, name, "_OTHER Int(500)".into(), 1, 5, 1),
        (2, name, "GET /a".into(), 1, 40, 1),
    ];
    assert_eq!(found(&metrics), expected);
    assert_eq!(metrics.counters(), Counters::default());
}

#[test]
fn what_is_beyond_the_limits_is_one_row_and_counted() {
    let mut metrics = RequestMetrics::new(Limits { processes: 2, rows: 2, all_rows: 3 });
    for route in ["/a", "/b", "/c", "/d", "/a"] {
        metrics.record(&1, &get(1, route), true);
    }
    metrics.record(&2, &get(1, "/a"), true);
    metrics.record(&2, &get(1, "/b"), true);
    metrics.record(&3, &get(1, "/a"), true);
    let name = "http.server.request.duration";
    let expected: Vec<Found> = vec![
        (1, name, "GET /a".into(), 2, 1, 2),
        (1, name, "GET /b".into(), 1, 1, 1),
        (1, name, "overflow".into(), 2, 1, 2),
        (2, name, "GET /a".into(), 1, 1, 1),
        (2, name, "overflow".into(), 1, 1, 1),
    ];
    assert_eq!(found(&metrics), expected);
    assert_eq!(metrics.counters(), Counters { overflow: 3, process_dropped: 1 });
}

#[test]
fn deltas_begin_anew_and_sums_go_on() {
    for (temporality, count) in [(Temporality::Delta, 1), (Temporality::Cumulative, 2)] {
        let mut metrics = RequestMetrics::new(Limits { rows: 1, ..Limits::default() });
        metrics.record(&1, &get(1, "/a"), true);
        metrics.told(temporality);
        let rest = found(&metrics);
        assert_eq!(rest.len(), usize::from(temporality == Temporality::Cumulative));
        assert!(rest.iter().all(|row| row.5 == 0), "exemplars are told once");
        metrics.record(&1, &get(1, "/a"), true);
        let row = (1, "http.server.request.duration", "GET /a".to_owned(), count, 1, 1);
        assert_eq!(found(&metrics), [row]);
        assert_eq!(metrics.counters(), Counters::default());
    }
}

#[test]
fn processes_that_ended_go_once_their_last_spans_came() {
    let mut metrics = RequestMetrics::new(Limits::default());
    metrics.record(&1, &get(1, "/a"), true);
    metrics.ended(&1);
    metrics.told(Temporality::Cumulative);
    metrics.record(&1, &get(1, "/a"), true);
    assert_eq!(found(&metrics).first().map(|row| row.3), Some(2));
    metrics.told(Temporality::Cumulative);
    assert_eq!(found(&metrics), []);
}

const CART: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);
const SHOP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 80);

/// Each edge as `CLIENT -> SERVER TYPE PROTOCOL REQUESTS FAILED CLIENT'S SERVER'S`.
fn edges<'a>(edges: impl IntoIterator<Item = Edge<'a>>) -> Vec<String> {
    let name = |node: &Node| match node {
        Node::Service(name) => name.to_string(),
        other => format!("{other:?}"),
    };
    let line = |edge: Edge<'_>| {
        format!(
            "{} -> {} {:?} {} {} {} {} {}",
            name(edge.client),
            name(edge.server),
            edge.connected,
            edge.protocol,
            edge.requests,
            edge.failed,
            edge.client_durations.count,
            edge.server_durations.count,
        )
    };
    edges.into_iter().map(line).collect()
}

#[test]
fn both_ends_of_a_connection_are_one_edge() {
    let (cart, shop): (Arc<str>, Arc<str>) = ("cart".into(), "shop".into());
    let mapped = match SHOP {
        SocketAddr::V4(address) => SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port()),
        other => other,
    };
    let mut graph = ServiceGraph::new(Temporality::Cumulative);
    graph.met(CART, SHOP, Arc::clone(&cart));
    graph.met(mapped, CART, Arc::clone(&shop));
    let ends = Ends { client: Some(CART), server: Some(SHOP) };
    let mut failed = get(7, "/a");
    failed.status = Status::Error("".into());
    for span in [get(5, "/a"), failed] {
        graph.record(&span, &shop, Ends { server: Some(mapped), ..ends });
        graph.record(&Span { kind: CLIENT, ..span }, &cart, ends);
    }
    assert_eq!(edges(graph.all()), ["cart -> shop Services http 2 1 2 2"]);
}

#[test]
fn an_end_that_nobody_watches_is_an_address() {
    let (cart, shop): (Arc<str>, Arc<str>) = ("cart".into(), "shop".into());
    let mut graph = ServiceGraph::new(Temporality::Cumulative);
    let ends = Ends { client: Some(CART), server: Some(SHOP) };
    let query = vec![text("db.system.name", "redis")];
    graph.record(&span(CLIENT, 1, query), &cart, ends);
    for port in [1, 2] {
        let client = Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port));
        graph.record(&get(1, "/a"), &shop, Ends { client, ..ends });
    }
    graph.record(&get(1, "/a"), &shop, Ends::default());
    let expected = [
        "Client(::1) -> shop VirtualNode http 2 0 0 2",
        "cart -> Server(10.0.0.2:80) Database redis 1 0 1 0",
        "Unknown -> shop VirtualNode http 1 0 0 1",
    ];
    assert_eq!(edges(graph.all()), expected);
}

#[test]
fn edges_are_told_by_temporality_and_kept_for_the_end() {
    let shop: Arc<str> = "shop".into();
    for (temporality, second) in [(Temporality::Delta, 1), (Temporality::Cumulative, 2)] {
        let mut graph = ServiceGraph::new(temporality);
        let line = |count| vec![format!("Unknown -> shop VirtualNode http {count} 0 0 {count}")];
        graph.record(&get(1, "/a"), &shop, Ends::default());
        assert_eq!(edges(graph.since_told()), line(1));
        graph.told();
        graph.record(&get(1, "/a"), &shop, Ends::default());
        assert_eq!(edges(graph.since_told()), line(second));
        assert_eq!(edges(graph.all()), line(2));
    }
}

#[test]
fn too_many_edges_become_one() {
    let shop: Arc<str> = "shop".into();
    let mut graph = ServiceGraph::new(Temporality::Cumulative);
    for number in 0..1030 {
        let client = Some(SocketAddr::new(Ipv4Addr::from_bits(number).into(), 1));
        graph.record(&get(1, "/a"), &shop, Ends { client, server: Some(SHOP) });
    }
    let all = graph.all();
    assert_eq!(all.len(), 1025);
    assert_eq!(all.iter().filter(|edge| edge.is_overflow).map(|edge| edge.requests).collect::<Vec<_>>(), [6]);
    assert_eq!(graph.counters(), EdgeCounters { overflow: 6 });
}
