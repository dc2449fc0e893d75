//! Spans for people and for scripts.
//!
//! Give it [`Span`](descry_assemble::span::Span)s, each with the Resource of its process; get lines of text or of JSON,
//! and, from [`Operations`], a row for each kind of work at the end. That is pure; a [`TraceSink`] writes and sends.
//! Text from watched programs comes out without characters that could drive a terminal: as escapes, in JSON as JSON's.

mod format;
mod function;
mod graph;
mod json;
mod metrics;
mod operations;
mod process;
mod sink;
mod tcp;
mod text;
mod wait;

use std::collections::BTreeMap;
use std::io::{self, Write};

use descry_assemble::span::SpanKind;
use descry_process::{AttributeValue, Attributes};

pub use format::{SpanFormat, UnknownSpanFormat};
pub use function::{FunctionRow, call_line, function_summary_line, function_table};
pub use graph::{EdgeRow, edge_rows, edge_table};
pub use json::{json_line, summary_line};
pub use metrics::{MetricsByProcess, edge_metrics, process_metrics, request_metrics};
pub use operations::{Operation, Operations};
pub use process::SpanProcess;
pub use sink::{Delivered, TraceSink};
pub use tcp::{TcpRow, tcp_metrics, tcp_rows, tcp_table};
pub use text::{TableStyle, table, text_line};
pub use wait::wait_span;

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

/// What the spans of a measurement add up to.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// By kind of work.
    pub operations: &'a Operations,
    /// By who asked whom; none: nobody knows.
    pub edges: Option<&'a [EdgeRow]>,
    /// What TCP did; none: nobody knows.
    pub tcp: Option<&'a [TcpRow]>,
    /// What was lost, by reason.
    pub lost: &'a BTreeMap<&'static str, u64>,
}

/// Writes what comes behind the spans: tables, or the last line of JSON. The OTLP formats have nothing there.
///
/// # Errors
///
/// When `out` fails.
pub fn write_summary(
    summary: &Summary<'_>,
    format: SpanFormat,
    out: &mut dyn Write,
    style: TableStyle,
) -> io::Result<()> {
    let rows = summary.operations.rows();
    match format {
        SpanFormat::Text if rows.is_empty() => Ok(()),
        SpanFormat::Text => {
            writeln!(out)?;
            table(&rows, out, style)?;
            edge_table(summary.edges.unwrap_or_default(), out, style)?;
            tcp_table(summary.tcp.unwrap_or_default(), out, style)
        }
        SpanFormat::Json => writeln!(out, "{}", summary_line(&rows, summary)),
        SpanFormat::Otlp | SpanFormat::OtlpJson => Ok(()),
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
