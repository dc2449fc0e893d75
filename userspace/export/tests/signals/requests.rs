//! Requests of every kind to the metrics that a receiver gets, against the file that these are to be. `UPDATE_GOLDEN=1`
//! writes it anew: look at the difference.

use std::net::SocketAddr;
use std::path::PathBuf;

use descry_aggregate::request::{Ends, Limits, RequestMetrics, ServiceGraph};
use descry_assemble::span::{Attribute, Span, SpanId, SpanKind, Status, Value};
use descry_decode::ids::UnixNanos;
use descry_export::otlp::json::Json;
use descry_export::otlp::metrics::{Interval, ProcessMetrics, Temporality, metrics_requests};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions, check_metrics};
use descry_export::span::{MetricsByProcess, SpanProcess, edge_metrics, process_metrics, request_metrics};

use crate::support::{attribute, resource, span};

const SECOND: u64 = 1_000_000_000;
const BEGIN: UnixNanos = UnixNanos(1_700_000_000 * SECOND);

/// A request number `n` of so many microseconds.
fn request(n: u8, kind: SpanKind, micros: u64, attributes: Vec<Attribute>) -> Span {
    let is_error = attributes.iter().any(|(name, _)| name == "error.type");
    let status = if is_error { Status::Error("".into()) } else { Status::Unset };
    let end = UnixNanos(BEGIN.0 + micros * 1000);
    Span { span: SpanId([n; 8]), kind, start: BEGIN, end, status, attributes: attributes.into(), ..span() }
}

fn text(name: &'static str, value: &'static str) -> Attribute {
    attribute(name, Value::Static(value))
}

fn number(name: &'static str, value: i64) -> Attribute {
    attribute(name, Value::Int(value))
}

/// Of the shop: what it was asked, and what it asked others for that.
fn of_shop() -> Vec<Span> {
    use SpanKind::{Client, Server};
    let get = |status| {
        let method = text("http.request.method", "GET");
        let route = text("http.route", "/orders/{id}");
        // A path is told by a span only: it may take any value.
        vec![method, route, text("url.path", "/orders/42"), number("http.response.status_code", status)]
    };
    let failed = [get(500), vec![text("error.type", "500")]].concat();
    let select = vec![
        text("db.system.name", "postgresql"),
        text("db.namespace", "orders"),
        text("db.query.summary", "SELECT orders"),
        text("db.query.text", "SELECT * FROM orders WHERE id = ?"),
        text("server.address", "10.0.0.5"),
        number("server.port", 5432),
    ];
    let twice = [select.clone(), vec![text("db.response.status_code", "57014"), text("error.type", "57014")]];
    let call = vec![
        text("rpc.system.name", "grpc"),
        text("rpc.method", "shop.Stock/Take"),
        text("rpc.response.status_code", "OK"),
        text("server.address", "stock"),
    ];
    let question = vec![text("dns.question.name", "stock"), number("server.port", 53)];
    vec![
        request(1, Server, 1_500, get(200)),
        request(2, Server, 1_600, get(200)),
        request(3, Server, 90_000, failed),
        request(4, Client, 700, select),
        request(5, Client, 30_000, twice.concat()),
        request(6, Client, 400, call),
        request(7, Client, 250, question),
        // It is no request, and in no metric.
        request(8, SpanKind::Internal, 10, vec![text("code.function.name", "price")]),
    ]
}

fn made(temporality: Temporality) -> String {
    let (shop, database) = (SpanProcess::new(resource("shop")), SpanProcess::new(resource("database")));
    let mut requests = RequestMetrics::new(Limits::default());
    let mut graph = ServiceGraph::new(temporality);
    let [shop_end, database_end] =
        ["10.0.0.4:40000", "10.0.0.5:5432"].map(|it| it.parse::<SocketAddr>().unwrap());
    graph.met(shop_end, database_end, shop.service().clone());
    graph.met(database_end, shop_end, database.service().clone());
    for span in of_shop() {
        requests.record(&shop, &span, span.span == SpanId([3; 8]));
        let is_of_database = span.attribute("db.system.name").is_some();
        let server = if is_of_database { Some(database_end) } else { None };
        graph.record(&span, shop.service(), Ends { client: Some(shop_end), server });
    }
    let answered = vec![text("db.system.name", "postgresql"), text("db.query.summary", "SELECT orders")];
    requests.record(&database, &request(9, SpanKind::Server, 600, answered), false);

    let mut metrics = MetricsByProcess::default();
    request_metrics(&requests, temporality, &mut metrics);
    let mut metrics = process_metrics(metrics);
    let own = resource("descry");
    metrics.push(ProcessMetrics { resource: &own, metrics: edge_metrics(&graph, temporality) });
    let interval = Interval { start: BEGIN, end: UnixNanos(BEGIN.0 + 10 * SECOND) };
    let options = OtlpOptions { scope_version: "1.2.3".to_owned() };
    let made = metrics_requests(&metrics, interval, &options, MAX_REQUEST_BYTES);
    assert_eq!((made.requests.len(), made.oversized_points), (1, 0));
    assert_eq!(check_metrics(&made.requests[0]), Ok(()));
    serde_json::to_string_pretty(&Json(&made.requests[0])).unwrap() + "\n"
}

fn check(name: &str, actual: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../tests/golden/metrics", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    for (line, (actual, expected)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(actual, expected, "{name}, line {}", line + 1);
    }
    assert_eq!(actual, expected, "{name}");
}

#[test]
fn metrics_of_requests() {
    let (delta, cumulative) = (made(Temporality::Delta), made(Temporality::Cumulative));
    check("requests.json", &delta);
    // What was told once is told with all that followed, or not again: of the first time only the word differs.
    let words = [r#""aggregationTemporality": 1"#, r#""aggregationTemporality": 2"#];
    assert_eq!(delta.replace(words[0], words[1]), cumulative);
}
