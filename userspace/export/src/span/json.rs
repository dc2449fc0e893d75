//! Spans and their summary as JSON lines: one object a line, names of fields as the command line's users know them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use descry_assemble::span::{Span, SpanEvent, SpanLink, Status, Value};
use descry_process::{AttributeValue, Attributes};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{EdgeRow, Operation, Summary, TcpRow, kind_name};
use crate::format::line;
use crate::otlp::json::hex;

/// A span as one line of JSON, without the line's end.
///
/// `{"type":"span","trace_id","span_id","parent_span_id","kind","name","start_unix_nano","end_unix_nano","status",
/// "flags","attributes":{},"events":[],"links":[],"resource":{}}`: ids in hex, a parent of `null` for a root, times as
/// numbers, `status` one of `unset`, `ok` and `error`. Only where there is something to say follow
/// `parent_is_remote`, `trace_state` and `status_message`. A number that JSON does not know (infinite, not a number)
/// is `null`.
pub fn json_line(span: &Span, resource: &Attributes) -> String {
    line(&SpanLine {
        r#type: "span",
        trace_id: hex(&span.trace.0),
        span_id: hex(&span.span.0),
        parent_span_id: span.parent.map(|parent| hex(&parent.0)),
        parent_is_remote: span.parent_is_remote,
        trace_state: &span.trace_state,
        kind: kind_name(span.kind),
        name: &span.name,
        start_unix_nano: span.start.0,
        end_unix_nano: span.end.0,
        status: match span.status {
            Status::Unset => "unset",
            Status::Ok => "ok",
            Status::Error(_) => "error",
        },
        status_message: match &span.status {
            Status::Error(message) => message,
            Status::Unset | Status::Ok => "",
        },
        flags: span.flags,
        attributes: Object(&span.attributes),
        events: span.events.iter().map(EventObject::new).collect(),
        links: span.links.iter().map(LinkObject::new).collect(),
        resource: Object(resource),
    })
}

/// The last line of a measurement: a row for each kind of work, one for each edge of the service graph and one for what TCP
/// did with a peer where these are known, how many spans were seen, and what was lost, by reason.
pub fn summary_line(operations: &[Operation], summary: &Summary<'_>) -> String {
    let &Summary { edges, tcp, lost, .. } = summary;
    line(&SummaryLine { r#type: "summary", operations, edges, tcp, seen: summary.operations.seen(), lost })
}

#[derive(serde::Serialize)]
struct SpanLine<'a> {
    r#type: &'static str,
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_is_remote: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    kind: &'static str,
    name: &'a str,
    start_unix_nano: u64,
    end_unix_nano: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    status_message: &'a str,
    flags: u8,
    attributes: Object<'a, Value>,
    events: Vec<EventObject<'a>>,
    links: Vec<LinkObject<'a>>,
    resource: Object<'a, AttributeValue>,
}

#[derive(serde::Serialize)]
struct EventObject<'a> {
    name: &'a str,
    time_unix_nano: u64,
    attributes: Object<'a, Value>,
}

impl<'a> EventObject<'a> {
    fn new(event: &'a SpanEvent) -> Self {
        Self { name: &event.name, time_unix_nano: event.time.0, attributes: Object(&event.attributes) }
    }
}

#[derive(serde::Serialize)]
struct LinkObject<'a> {
    trace_id: String,
    span_id: String,
    attributes: Object<'a, Value>,
}

impl<'a> LinkObject<'a> {
    fn new(link: &'a SpanLink) -> Self {
        Self {
            trace_id: hex(&link.trace.0),
            span_id: hex(&link.span.0),
            attributes: Object(&link.attributes),
        }
    }
}

#[derive(serde::Serialize)]
struct SummaryLine<'a> {
    r#type: &'static str,
    operations: &'a [Operation],
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<&'a [EdgeRow]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<&'a [TcpRow]>,
    seen: u64,
    lost: &'a BTreeMap<&'static str, u64>,
}

/// Names with values, as an object.
struct Object<'a, V>(&'a [(Cow<'static, str>, V)]);

impl<V> Serialize for Object<'_, V>
where
    for<'a> Plain<'a, V>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, &Plain(value))?;
        }
        map.end()
    }
}

/// A value without a word about its type.
struct Plain<'a, V>(&'a V);

impl Serialize for Plain<'_, Value> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Static(text) => serializer.serialize_str(text),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Shared(text) => serializer.serialize_str(text),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Double(number) => serializer.serialize_f64(*number),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Texts(texts) => serializer.collect_seq(texts),
        }
    }
}

impl Serialize for Plain<'_, AttributeValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            AttributeValue::Text(text) => serializer.serialize_str(text),
            AttributeValue::Int(number) => serializer.serialize_i64(*number),
            AttributeValue::List(texts) => serializer.collect_seq(texts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::operations::tests::{attribute, resource, span};

    /// The line of a span that was changed, as far as `expected` says.
    fn check(change: impl FnOnce(&mut Span), expected: &str) {
        let mut changed = span();
        change(&mut changed);
        let line = json_line(&changed, &resource());
        assert!(line.contains(expected), "{expected}\nis not in\n{line}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).map(|json| json.is_object()).ok(),
            Some(true)
        );
    }

    #[test]
    fn a_span_is_a_line() {
        let expected = concat!(
            r#"{"type":"span","trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"a1a2a3a4a5a6a7a8","#,
            r#""parent_span_id":null,"kind":"server","name":"GET /users/{id}","#,
            r#""start_unix_nano":1700000000000000000,"end_unix_nano":1700000000002500000,"status":"unset","flags":1,"#,
            r#""attributes":{"http.request.method":"GET","http.response.status_code":200},"events":[],"links":[],"#,
            r#""resource":{"service.name":"shop","process.pid":42,"process.command_args":["a","b"]}}"#,
        );
        assert_eq!(json_line(&span(), &resource()), expected);
    }

    #[test]
    fn what_is_there_is_told() {
        check(
            |span| span.parent = Some(descry_assemble::span::SpanId([1; 8])),
            r#""parent_span_id":"0101010101010101""#,
        );
        check(|span| span.parent_is_remote = Some(true), r#""parent_is_remote":true"#);
        check(|span| span.trace_state = "a=1".into(), r#""trace_state":"a=1""#);
        check(|span| span.status = Status::Ok, r#""status":"ok","flags""#);
        check(|span| span.status = Status::Error("".into()), r#""status":"error","flags""#);
        check(|span| span.status = Status::Error("no".into()), r#""status":"error","status_message":"no""#);
        check(
            |span| span.attributes = vec![attribute("a", Value::Double(1.5))].into(),
            r#""attributes":{"a":1.5}"#,
        );
        check(
            |span| span.attributes = vec![attribute("a", Value::Double(f64::NAN))].into(),
            r#""attributes":{"a":null}"#,
        );
        check(
            |span| span.attributes = vec![attribute("a", Value::Bool(true))].into(),
            r#""attributes":{"a":true}"#,
        );
        let texts = Value::Texts(Box::new(["x".into(), "y".into()]));
        check(|span| span.attributes = vec![attribute("a", texts)].into(), r#""attributes":{"a":["x","y"]}"#);
        let event = SpanEvent { time: span().start, name: "e".into(), attributes: Vec::new() };
        let json = r#""events":[{"name":"e","time_unix_nano":1700000000000000000,"attributes":{}}]"#;
        check(|span| span.events = vec![event], json);
        let link = SpanLink { trace: span().trace, span: span().span, attributes: Vec::new() };
        let json = r#""links":[{"trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"a1a2a3a4a5a6a7a8","attributes":{}}]"#;
        check(|span| span.links = vec![link], json);
    }

    #[test]
    fn the_summary_is_a_line() {
        let operation = Operation {
            service: "shop".to_owned(),
            name: "GET /".to_owned(),
            kind: "server",
            count: 3,
            errors: 1,
            p50_ns: 1,
            p95_ns: 2,
            p99_ns: 3,
            max_ns: 4,
        };
        let expected = concat!(
            r#"{"type":"summary","operations":[{"service":"shop","name":"GET /","kind":"server","count":3,"errors":1,"#,
            r#""p50_ns":1,"p95_ns":2,"p99_ns":3,"max_ns":4}],"seen":0,"lost":{"ring_full":2}}"#,
        );
        let (operations, lost) = (crate::span::Operations::default(), BTreeMap::from([("ring_full", 2)]));
        let summary = Summary { operations: &operations, edges: None, tcp: None, lost: &lost };
        assert_eq!(summary_line(&[operation], &summary), expected);
    }

    #[test]
    fn no_text_drives_a_terminal() {
        check(
            |span| span.name = "a\u{1b}[31m\n\u{9b}2J\u{7f}\u{202e}ü\"".into(),
            r#""name":"a\u001b[31m\n\u009b2J\u007f\u202eü\"","#,
        );
    }
}
