//! Spans for people and for scripts.
//!
//! Give it [`Span`](descry_assemble::span::Span)s, each with the Resource of its process; get lines of text or of JSON,
//! and, from [`Operations`], a row for each kind of work at the end. It does no I/O and reads no clock. Text from
//! watched programs comes out without characters that could drive a terminal: as escapes, in JSON as JSON's.

mod json;
mod operations;
mod text;

use descry_assemble::span::SpanKind;
use descry_process::{AttributeValue, Attributes};

pub use json::{json_line, summary_line};
pub use operations::{Operation, Operations};
pub use text::{TableStyle, table, text_line};

/// A kind as JSON lines name it.
pub const fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

/// A text of a Resource; "" where it has none of that name.
fn resource_text<'a>(resource: &'a Attributes, name: &str) -> &'a str {
    resource
        .iter()
        .find_map(|(key, value)| match value {
            AttributeValue::Text(text) if key == name => Some(text.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}
