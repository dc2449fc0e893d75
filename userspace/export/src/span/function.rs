//! Calls of traced functions: a line a call, nested as they are, and a row a function.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use descry_abi::histogram::Histogram;
use descry_aggregate::histogram::quantile;
use descry_assemble::span::Span;

use super::TableStyle;
use crate::format::line;
use crate::format::{columns, duration, grouped, padded, printable};

/// Levels of nesting that a line is indented for at most.
const MAX_INDENT: usize = 40;
/// Widest column of the table for texts, where the terminal's width is not known.
const MAX_NAME_WIDTH: usize = 60;

/// A call as one line without its end: start (UTC), duration, thread, name indented by `depth`, arguments.
pub fn call_line(span: &Span, thread: &str, depth: usize, arguments: Option<&str>) -> String {
    let start = UNIX_EPOCH.checked_add(Duration::from_nanos(span.start.0));
    let start = start.map_or_else(String::new, |time| humantime::format_rfc3339_nanos(time).to_string());
    let time = duration(span.end.0.saturating_sub(span.start.0));
    let indent = 2 * depth.min(MAX_INDENT);
    let arguments = arguments.map_or_else(String::new, |arguments| format!("({arguments})"));
    let line = format!("{start}  {time:>9}  {thread:<22}  {:indent$}{}{arguments}", "", span.name);
    printable(&line).into_owned()
}

/// What the calls of a function add up to. Durations are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FunctionRow {
    /// Its readable name.
    pub name: String,
    /// The binary that it is in.
    pub file: String,
    /// Calls that began.
    pub calls: u64,
    /// Of those, calls that did not return: longjmp, an exception, the end of their thread or of the measurement.
    pub unfinished: u64,
    /// Half of those that returned took no longer; at most 9 % off, as the other quantiles.
    pub p50_ns: u64,
    /// 95 of a hundred took no longer.
    pub p95_ns: u64,
    /// 99 of a hundred took no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl FunctionRow {
    /// From the durations of those calls that returned.
    pub fn new(name: String, file: String, calls: u64, durations: &Histogram) -> Self {
        let of = |share| quantile(durations, share).unwrap_or(0);
        Self {
            name,
            file,
            calls,
            unfinished: calls.saturating_sub(durations.count),
            p50_ns: of(0.50),
            p95_ns: of(0.95),
            p99_ns: of(0.99),
            max_ns: durations.max,
        }
    }
}

/// The last line of JSON: a row a function, how many calls began, and which have no span, by reason.
pub fn function_summary_line(rows: &[FunctionRow], seen: u64, lost: &BTreeMap<&'static str, u64>) -> String {
    line(&Summary { r#type: "summary", functions: rows, seen, lost })
}

#[derive(serde::Serialize)]
struct Summary<'a> {
    r#type: &'static str,
    functions: &'a [FunctionRow],
    seen: u64,
    lost: &'a BTreeMap<&'static str, u64>,
}

/// Writes a row a function under a heading; nothing where there is none.
///
/// # Errors
///
/// When `out` fails.
pub fn function_table(rows: &[FunctionRow], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = rows.iter().map(|row| printable(&row.name)).collect();
    let room = style.width.map_or(MAX_NAME_WIDTH, |width| width.saturating_sub(100).max(20));
    let width = names.iter().map(|name| columns(name)).max().unwrap_or(0).clamp("function".len(), room);
    let (bold, plain) = if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(
        out,
        "{bold}{:>12}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {}  file{plain}",
        "calls",
        "unfinished",
        "p50",
        "p95",
        "p99",
        "max",
        padded("function", width),
    )?;
    for (row, name) in rows.iter().zip(&names) {
        writeln!(
            out,
            "{:>12}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {}  {}",
            grouped(row.calls),
            grouped(row.unfinished),
            duration(row.p50_ns),
            duration(row.p95_ns),
            duration(row.p99_ns),
            duration(row.max_ns),
            padded(name, width),
            printable(&row.file),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use descry_aggregate::histogram::record;

    use super::super::operations::tests::span;
    use super::*;

    fn row(calls: u64, durations: &[u64]) -> FunctionRow {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|duration| record(&mut histogram, *duration));
        FunctionRow::new("space::f(int)".into(), "/bin/x\n".into(), calls, &histogram)
    }

    #[test]
    fn the_last_line_has_a_row_a_function() {
        let line =
            function_summary_line(&[row(3, &[1000, 1000])], 3, &BTreeMap::from([("function_open", 1)]));
        assert_eq!(
            line,
            "{\"type\":\"summary\",\"functions\":[{\"name\":\"space::f(int)\",\"file\":\"/bin/x\\n\",\"calls\":3,\
             \"unfinished\":1,\"p50_ns\":939,\"p95_ns\":939,\"p99_ns\":939,\"max_ns\":1000}],\"seen\":3,\
             \"lost\":{\"function_open\":1}}"
        );
    }

    #[test]
    fn the_table_is_safe_for_a_terminal() {
        let mut out = Vec::new();
        function_table(&[row(1_234_567, &[1000])], &mut out, TableStyle::default()).expect("a table");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("space::f(int)  /bin/x\\n"), "{text}");
    }

    #[test]
    fn a_call_is_indented_as_deep_as_it_is() {
        let mut span = span();
        span.name = "f\x1b".into();
        let line = call_line(&span, "worker/7", 2, Some("a=1"));
        assert!(line.ends_with("  worker/7                    f\\u{1b}(a=1)"), "{line}");
    }
}
