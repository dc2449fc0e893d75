//! Spans as lines for people, and what they add up to as a table.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use descry_assemble::span::{Span, SpanKind, Status, Value};
use descry_process::{AttributeValue, Attributes};

use super::{Operation, kind_name, resource_text};
use crate::format::{columns, duration, grouped, padded, printable};

/// Columns of a span's line; longer texts push the rest aside rather than being cut.
const PROCESS_WIDTH: usize = 20;
const KIND_WIDTH: usize = 8;
const PROTOCOL_WIDTH: usize = 10;
const NAME_WIDTH: usize = 40;
const STATUS_WIDTH: usize = 6;
const DURATION_WIDTH: usize = 9;

/// Widest columns of the table for texts, where the terminal's width is not known.
const MAX_TEXT_WIDTH: usize = 60;
/// Narrowest column of the table for names, however narrow the terminal is.
const MIN_NAME_WIDTH: usize = 20;

/// Nothing is known.
const NONE: &str = "-";

/// Attributes that say how it ended, in the words of the protocol.
const STATUSES: [&str; 6] = [
    "rpc.response.status_code",
    "rpc.grpc.status_code",
    "http.response.status_code",
    "db.response.status_code",
    "dns.response_code",
    "error.type",
];

/// A span as one line without its end: time (UTC), process, kind, protocol, name, status, duration, peer.
pub fn text_line(span: &Span, resource: &Attributes) -> String {
    let start = UNIX_EPOCH.checked_add(Duration::from_nanos(span.start.0));
    let start = start.map_or_else(String::new, |time| humantime::format_rfc3339_millis(time).to_string());
    let time = duration(span.end.0.saturating_sub(span.start.0));
    let line = format!(
        "{start}  {:<PROCESS_WIDTH$}  {:<KIND_WIDTH$}  {:<PROTOCOL_WIDTH$}  {:<NAME_WIDTH$}  {:<STATUS_WIDTH$}  \
         {time:>DURATION_WIDTH$}  {}",
        process(resource),
        kind_name(span.kind),
        span.protocol().unwrap_or(NONE),
        span.name,
        status(span),
        peer(span),
    );
    printable(line.trim_end()).into_owned()
}

/// How to write the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableStyle {
    /// With ANSI colors.
    pub color: bool,
    /// Columns of the terminal; none: rows are as long as they need to be.
    pub width: Option<usize>,
}

/// Writes a row for each kind of work under a heading; nothing where there is none.
///
/// # Errors
///
/// When `out` fails.
pub fn table(operations: &[Operation], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if operations.is_empty() {
        return Ok(());
    }
    let services: Vec<_> = operations.iter().map(|row| printable(&row.service)).collect();
    let names: Vec<_> = operations.iter().map(|row| printable(&row.name)).collect();
    let longest = |texts: &[Cow<'_, str>], title: &str, most: usize| {
        texts.iter().map(|text| columns(text)).max().unwrap_or(0).max(title.len()).min(most)
    };
    let service_width = longest(&services, "service", MAX_TEXT_WIDTH);
    // Around the name's column: counts of 10 and 8, four times of 9, a kind, and two spaces between them.
    let taken = 10 + 8 + 4 * DURATION_WIDTH + KIND_WIDTH + service_width + 8 * 2;
    let room = style.width.map_or(MAX_TEXT_WIDTH, |width| width.saturating_sub(taken));
    let name_width = longest(&names, "operation", room.max(MIN_NAME_WIDTH));

    let (bold, plain) = if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(
        out,
        "{bold}{:>10}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:<KIND_WIDTH$}  {}  operation{plain}",
        "count",
        "errors",
        "p50",
        "p95",
        "p99",
        "max",
        "kind",
        padded("service", service_width),
    )?;
    for ((row, service), name) in operations.iter().zip(&services).zip(&names) {
        writeln!(
            out,
            "{:>10}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:<KIND_WIDTH$}  {}  {}",
            grouped(row.count),
            grouped(row.errors),
            duration(row.p50_ns),
            duration(row.p95_ns),
            duration(row.p99_ns),
            duration(row.max_ns),
            row.kind,
            padded(service, service_width),
            padded(name, name_width).trim_end(),
        )?;
    }
    Ok(())
}

/// `NAME(PID)`, as far as it is known.
fn process(resource: &Attributes) -> String {
    let named = ["process.executable.name", "service.name"];
    let name = named.iter().map(|key| resource_text(resource, key)).find(|name| !name.is_empty());
    let pid = resource.iter().find_map(|(key, value)| match value {
        AttributeValue::Int(pid) if key == "process.pid" => Some(pid),
        _ => None,
    });
    match (name, pid) {
        (Some(name), Some(pid)) => format!("{name}({pid})"),
        (Some(name), None) => name.to_owned(),
        (None, Some(pid)) => format!("({pid})"),
        (None, None) => NONE.to_owned(),
    }
}

fn status(span: &Span) -> String {
    let told = STATUSES.iter().find_map(|key| attribute(span, key));
    told.unwrap_or_else(|| {
        match span.status {
            Status::Unset => NONE,
            Status::Ok => "ok",
            Status::Error(_) => "error",
        }
        .to_owned()
    })
}

/// Who is on the other side: as the protocol names it, else by address.
fn peer(span: &Span) -> String {
    let roles = match span.kind {
        SpanKind::Server | SpanKind::Consumer => [("client.address", "client.port"), NETWORK_PEER],
        SpanKind::Client | SpanKind::Producer => [("server.address", "server.port"), NETWORK_PEER],
        SpanKind::Internal => return String::new(),
    };
    let side = |(address, port)| Some((attribute(span, address)?, attribute(span, port)));
    match roles.into_iter().find_map(side) {
        None => NONE.to_owned(),
        Some((address, None)) => address,
        Some((address, Some(port))) if address.contains(':') => format!("[{address}]:{port}"),
        Some((address, Some(port))) => format!("{address}:{port}"),
    }
}

const NETWORK_PEER: (&str, &str) = ("network.peer.address", "network.peer.port");

/// The value of an attribute, as text.
fn attribute(span: &Span, name: &str) -> Option<String> {
    Some(match span.attribute(name)? {
        Value::Static(text) => (*text).to_owned(),
        Value::Text(text) => text.to_string(),
        Value::Shared(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Texts(texts) => texts.join(","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Operations;
    use crate::span::operations::tests::{attribute, resource, span};

    /// What a span's line has after the process, blanks drawn together.
    fn check(change: impl FnOnce(&mut Span), expected: &str) {
        let mut changed = span();
        change(&mut changed);
        let line = text_line(&changed, &resource());
        let fields: Vec<_> = line.split_whitespace().skip(2).collect();
        assert_eq!(fields.join(" "), expected);
    }

    #[test]
    fn a_span_is_a_line() {
        assert_eq!(
            text_line(&span(), &resource()),
            "2023-11-14T22:13:20.000Z  shop(42)              server    http        \
             GET /users/{id}                           200        2.5 ms  -",
        );
    }

    #[test]
    fn a_line_says_the_protocols_words() {
        check(|span| span.attributes = vec![].into(), "server - GET /users/{id} - 2.5 ms -");
        check(
            |span| {
                span.kind = SpanKind::Client;
                span.name = "SELECT users".into();
                span.status = Status::Error("".into());
                span.attributes = vec![
                    attribute("db.system.name", Value::Static("postgresql")),
                    attribute("error.type", Value::Static("42P01")),
                    attribute("server.address", Value::Text("::1".into())),
                    attribute("server.port", Value::Int(5432)),
                ]
                .into();
            },
            "client postgresql SELECT users 42P01 2.5 ms [::1]:5432",
        );
        check(
            |span| {
                span.status = Status::Error("".into());
                span.attributes = vec![
                    attribute("client.address", Value::Text("10.0.0.1".into())),
                    attribute("network.protocol.name", Value::Static("amqp")),
                ]
                .into();
            },
            "server amqp GET /users/{id} error 2.5 ms 10.0.0.1",
        );
        check(
            |span| {
                span.kind = SpanKind::Internal;
                span.name = "main\u{1b}[2J".into();
                span.attributes = vec![attribute("code.function.name", Value::Static("main"))].into();
            },
            "internal function main\\u{1b}[2J - 2.5 ms",
        );
    }

    #[test]
    fn kinds_of_work_are_rows() {
        let mut operations = Operations::default();
        operations.record(&span(), &resource());
        let mut text = Vec::new();
        table(&operations.rows(), &mut text, TableStyle::default()).unwrap();
        let expected = concat!(
            "     count    errors        p50        p95        p99        max  kind      service  operation\n",
            "         1         0     2.5 ms     2.5 ms     2.5 ms     2.5 ms  server    shop     GET /users/{id}\n",
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let mut nothing = Vec::new();
        table(&[], &mut nothing, TableStyle::default()).unwrap();
        assert!(nothing.is_empty());
    }
}
