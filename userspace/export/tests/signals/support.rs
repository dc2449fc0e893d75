//! Spans to test with.

use std::borrow::Cow;

use descry_assemble::span::{Attribute, Span, SpanEvent, SpanId, SpanKind, SpanLink, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_process::{AttributeValue, Attributes};

pub fn attribute(name: &'static str, value: Value) -> Attribute {
    (Cow::Borrowed(name), value)
}

pub fn resource(service: &str) -> Attributes {
    vec![
        ("service.name".into(), AttributeValue::Text(service.to_owned())),
        ("process.pid".into(), AttributeValue::Int(42)),
        ("process.command_args".into(), AttributeValue::List(vec!["a".to_owned(), "b".to_owned()])),
    ]
}

/// A span that keeps all rules.
pub fn span() -> Span {
    Span {
        trace: TraceId([1; 16]),
        span: SpanId([2; 8]),
        parent: Some(SpanId([3; 8])),
        trace_state: "vendor=1".into(),
        flags: 1,
        parent_is_remote: Some(true),
        kind: SpanKind::Server,
        name: "GET /".into(),
        start: UnixNanos(1_700_000_000_000_000_000),
        end: UnixNanos(1_700_000_000_000_000_100),
        status: Status::Error("no".into()),
        attributes: vec![
            attribute("http.request.method", Value::Static("GET")),
            attribute("http.response.status_code", Value::Int(500)),
        ]
        .into(),
        events: vec![SpanEvent {
            time: UnixNanos(1_700_000_000_000_000_050),
            name: "exception".into(),
            attributes: vec![attribute("exception.escaped", Value::Bool(false))],
        }],
        links: vec![SpanLink {
            trace: TraceId([4; 16]),
            span: SpanId([5; 8]),
            attributes: vec![attribute("share", Value::Double(0.5))],
        }],
    }
}
