//! Makes OTLP requests of spans in one of two ways and tells what it cost: `encode_spans direct|structs SPANS`.
//!
//! `direct` is descry's writer; `structs` builds opentelemetry-proto's messages and has prost encode them. A span has ten
//! attributes, as a request of HTTP has; four processes take turns. One line comes out: spans, bytes, nanoseconds of CPU.

#[path = "../tests/signals/structs.rs"]
mod structs;

use std::borrow::Cow;
use std::hint::black_box;

use descry_assemble::span::{Span, SpanId, SpanKind, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_export::otlp::{EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, TraceWriter};
use descry_process::{AttributeValue, Attributes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;

const PROCESSES: usize = 4;
/// Different spans, which come again and again.
const SPANS: usize = 1024;
/// Spans of a request that is made of structs: about as many as fit into 4 MiB.
const BATCH: usize = 8192;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, count] = arguments.as_slice() else {
        return Err("usage: encode_spans direct|structs SPANS".into());
    };
    let count: usize = count.parse()?;
    let spans: Vec<Span> = (0..SPANS).map(|number| span(number as u64)).collect();
    let resources: Vec<Attributes> = (0..PROCESSES).map(resource).collect();
    let before = cpu_nanos()?;
    let bytes = match way.as_str() {
        "direct" => direct(&spans, &resources, count),
        "structs" => built(&spans, &resources, count),
        _ => return Err(format!("there is no way {way:?}").into()),
    };
    println!("{count} {bytes} {}", cpu_nanos()? - before);
    Ok(())
}

/// Time that this thread ran (ns): the first number of `schedstat` (Documentation/scheduler/sched-stats.rst).
fn cpu_nanos() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?)
}

fn direct(spans: &[Span], resources: &[Attributes], count: usize) -> usize {
    let resources: Vec<_> = resources.iter().map(EncodedResource::new).collect();
    let mut writer = TraceWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    let work = spans.iter().cycle().zip(resources.iter().cycle()).take(count);
    let full = work.filter_map(|(span, resource)| writer.push(resource, span));
    let bytes: usize = full.map(|request| black_box(request).bytes().len()).sum();
    bytes + writer.finish().map_or(0, |request| request.bytes().len())
}

fn built(spans: &[Span], resources: &[Attributes], count: usize) -> usize {
    let mut work = spans.iter().cycle().take(count).peekable();
    let mut bytes = 0;
    while work.peek().is_some() {
        let mut request = ExportTraceServiceRequest {
            resource_spans: resources
                .iter()
                .map(|attributes| ResourceSpans {
                    resource: Some(Resource { attributes: key_values(attributes), ..Resource::default() }),
                    scope_spans: vec![ScopeSpans::default()],
                    schema_url: String::new(),
                })
                .collect(),
        };
        for (number, span) in work.by_ref().take(BATCH).enumerate() {
            if let Some(resource) = request.resource_spans.get_mut(number % PROCESSES)
                && let Some(scope) = resource.scope_spans.first_mut()
            {
                scope.spans.push(structs::span(span));
            }
        }
        bytes += black_box(request.encode_to_vec()).len();
    }
    bytes
}

fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let attribute = |(key, value): &(Cow<'static, str>, AttributeValue)| {
        let value = match value {
            AttributeValue::Int(number) => any_value::Value::IntValue(*number),
            AttributeValue::Text(text) => any_value::Value::StringValue(text.clone()),
            AttributeValue::List(texts) => any_value::Value::StringValue(texts.join(" ")),
        };
        KeyValue { key: key.to_string(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
    };
    attributes.iter().map(attribute).collect()
}

fn resource(number: usize) -> Attributes {
    let text = |text: String| AttributeValue::Text(text);
    vec![
        ("service.name".into(), text(format!("service-{number}"))),
        ("service.instance.id".into(), text("6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned())),
        ("process.pid".into(), AttributeValue::Int(1000 + number as i64)),
        ("process.executable.path".into(), text("/usr/local/bin/service".to_owned())),
        ("host.name".into(), text("node-17.example.com".to_owned())),
    ]
}

fn span(number: u64) -> Span {
    let start = 1_700_000_000_000_000_000 + number * 1_000_003;
    let hash = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let attribute = |name: &'static str, value| (Cow::Borrowed(name), value);
    let text = |text: String| Value::Text(text.into());
    Span {
        trace: TraceId(u128::from(hash).wrapping_mul(0x1234_5678_9abc_def1_2345_6789).to_be_bytes()),
        span: SpanId(hash.to_be_bytes()),
        parent: Some(SpanId((hash ^ u64::MAX).to_be_bytes())),
        trace_state: "".into(),
        flags: 1,
        parent_is_remote: Some(true),
        kind: SpanKind::Server,
        name: "GET /api/v1/orders/{id}".into(),
        start: UnixNanos(start),
        end: UnixNanos(start + 1_500_000),
        status: Status::Unset,
        attributes: vec![
            attribute("http.request.method", Value::Static("GET")),
            attribute("url.scheme", Value::Static("http")),
            attribute("url.path", text(format!("/api/v1/orders/{number}"))),
            attribute("http.route", Value::Shared("/api/v1/orders/{id}".into())),
            attribute("http.response.status_code", Value::Int(200)),
            attribute("network.protocol.version", Value::Static("1.1")),
            attribute("server.address", Value::Shared("orders.example.com".into())),
            attribute("server.port", Value::Int(8080)),
            attribute("client.address", text(format!("10.0.{}.{}", number % 256, number % 250))),
            attribute("client.port", Value::Int(30_000 + (number % 30_000) as i64)),
        ]
        .into(),
        events: Vec::new(),
        links: Vec::new(),
    }
}
