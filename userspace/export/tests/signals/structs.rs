//! Spans as the messages of opentelemetry-proto: what the writer's bytes have to say, and the way that it avoids.

use descry_assemble::span::{Attribute, Span, Status, Value};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span as Message, Status as StatusMessage};

/// The message of a span.
pub fn span(span: &Span) -> Message {
    let remote = match span.parent_is_remote {
        None => 0,
        Some(false) => 0x100,
        Some(true) => 0x300,
    };
    Message {
        trace_id: span.trace.0.to_vec(),
        span_id: span.span.0.to_vec(),
        trace_state: span.trace_state.to_string(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
        flags: u32::from(span.flags) | remote,
        name: span.name.to_string(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start.0,
        end_time_unix_nano: span.end.0,
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| Event {
                time_unix_nano: event.time.0,
                name: event.name.to_string(),
                attributes: attributes(&event.attributes),
                dropped_attributes_count: 0,
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|link| Link {
                trace_id: link.trace.0.to_vec(),
                span_id: link.span.0.to_vec(),
                attributes: attributes(&link.attributes),
                ..Link::default()
            })
            .collect(),
        status: match &span.status {
            Status::Unset => None,
            Status::Ok => Some(StatusMessage { message: String::new(), code: 1 }),
            Status::Error(message) => Some(StatusMessage { message: message.to_string(), code: 2 }),
        },
        ..Message::default()
    }
}

fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let any = |value| AnyValue { value: Some(value) };
    let attribute = |(key, value): &Attribute| KeyValue {
        key: key.to_string(),
        value: Some(any(match value {
            Value::Static(value) => text(value),
            Value::Text(value) => text(value),
            Value::Shared(value) => text(value),
            Value::Int(number) => any_value::Value::IntValue(*number),
            Value::Double(number) => any_value::Value::DoubleValue(*number),
            Value::Bool(value) => any_value::Value::BoolValue(*value),
            Value::Texts(texts) => {
                let values = texts.iter().map(|value| any(text(value))).collect();
                any_value::Value::ArrayValue(ArrayValue { values })
            }
        })),
        key_strindex: 0,
    };
    attributes.iter().map(attribute).collect()
}
