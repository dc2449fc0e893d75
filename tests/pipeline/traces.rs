//! Spans: what the collector forwards are the same spans, field by field.

use std::borrow::Cow;

use descry_assemble::span::{Attribute, Span, SpanEvent, SpanId, SpanKind, SpanLink, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_export::otlp::{
    EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, TraceRequest, TraceWriter, check_traces,
};
use descry_process::AttributeValue;
use descry_tests::collector::Collector;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Status as StatusMessage};

use crate::{PATIENCE, by_every_transport, send};

const SPANS: u8 = 50;

fn attribute(name: &'static str, value: Value) -> Attribute {
    (Cow::Borrowed(name), value)
}

/// The n-th span: what it has depends on n.
fn span(number: u8) -> Span {
    let start = 1_700_000_000_000_000_000 + u64::from(number) * 1_000_000;
    let kinds =
        [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    let statuses = [Status::Unset, Status::Ok, Status::Error("no route".into())];
    Span {
        trace: TraceId([number + 1; 16]),
        span: SpanId([number + 101; 8]),
        parent: (number.is_multiple_of(2)).then_some(SpanId([255; 8])),
        trace_state: if number.is_multiple_of(3) { "vendor=1".into() } else { "".into() },
        flags: number % 4,
        parent_is_remote: (number.is_multiple_of(2)).then_some(number.is_multiple_of(4)),
        kind: kinds[usize::from(number % 5)],
        name: format!("GET /{number}").into(),
        start: UnixNanos(start),
        end: UnixNanos(start + 500),
        status: statuses[usize::from(number % 3)].clone(),
        attributes: vec![
            attribute("http.request.method", Value::Static("GET")),
            attribute("http.response.status_code", Value::Int(200 + i64::from(number))),
            attribute("share", Value::Double(0.25)),
            attribute("cached", Value::Bool(number.is_multiple_of(2))),
            attribute("tags", Value::Texts(Box::new(["a".into(), "größe".into()]))),
        ]
        .into(),
        events: vec![
            SpanEvent {
                time: UnixNanos(start + 100),
                name: "exception".into(),
                attributes: vec![attribute("exception.type", Value::Text("IOError".into()))],
            };
            usize::from(number % 3)
        ],
        links: vec![
            SpanLink {
                trace: TraceId([number + 2; 16]),
                span: SpanId([number + 102; 8]),
                attributes: vec![attribute("reason", Value::Static("batch"))],
            };
            usize::from(number % 2)
        ],
    }
}

/// The spans of three processes in requests of at most so many bytes.
fn requests(max_bytes: usize) -> Vec<TraceRequest> {
    let resource = |service: &str| {
        EncodedResource::new(&vec![
            ("service.name".into(), AttributeValue::Text(service.to_owned())),
            ("process.pid".into(), AttributeValue::Int(42)),
            ("process.command_args".into(), AttributeValue::List(vec!["a".to_owned(), "b".to_owned()])),
        ])
    };
    let resources = ["shop", "cart", "stock"].map(resource);
    let mut writer = TraceWriter::new(&OtlpOptions::default(), max_bytes);
    let spans = (0..SPANS).zip(resources.iter().cycle());
    let mut requests: Vec<_> =
        spans.filter_map(|(number, resource)| writer.push(resource, &span(number))).collect();
    requests.extend(writer.finish());
    requests
}

/// The collector writes a status that says nothing, and leaves it to chance which request comes out first.
fn in_order(requests: Vec<ExportTraceServiceRequest>) -> Vec<ResourceSpans> {
    let mut all: Vec<_> = requests.into_iter().flat_map(|request| request.resource_spans).collect();
    for span in
        all.iter_mut().flat_map(|resource| &mut resource.scope_spans).flat_map(|scope| &mut scope.spans)
    {
        span.status = span.status.take().filter(|status| *status != StatusMessage::default());
    }
    all.sort_by_key(|resource| resource.scope_spans[0].spans[0].span_id.clone());
    all
}

fn check(collector: &Collector, url: &str, protocol: &str, compression: &str, max_bytes: usize) {
    let requests = requests(max_bytes);
    let truth: Vec<_> = requests.iter().map(|request| request.decode().unwrap()).collect();
    truth.iter().for_each(|request| assert_eq!(check_traces(request), Ok(())));
    let sent = send(collector, url, protocol, compression, requests);
    let forwarded = (0..sent).map(|_| collector.next_forwarded(PATIENCE).unwrap());
    let forwarded = forwarded.map(|json| serde_json::from_value(json).unwrap()).collect();
    assert_eq!(in_order(forwarded), in_order(truth), "{protocol} {compression} {max_bytes}");
}

/// By every transport, in one request and in several.
pub fn same_spans_come_out(collector: &Collector) {
    by_every_transport(collector, |url, protocol, compression| {
        check(collector, url, protocol, compression, MAX_REQUEST_BYTES);
    });
    check(collector, &collector.grpc_url(), "grpc", "gzip", 3000);
    check(collector, &collector.http_url(), "http/json", "gzip", 3000);
}
