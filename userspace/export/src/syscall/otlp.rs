//! System calls as OTLP metrics, and slow ones as spans.
//!
//! OpenTelemetry's semantic conventions have no names for system calls, so descry has its own:
//!
//! | what | name |
//! |---|---|
//! | how long calls took (exponential histogram, `s`) | `descry.syscall.duration` |
//! | calls that failed (sum, `{error}`), with `error.type` | `descry.syscall.errors` |
//! | the call | `descry.syscall.name` |
//! | whether it waits for others | `descry.syscall.blocking` |
//! | its table of numbers, where that is not the machine's own | `descry.syscall.interface` |
//! | of a span: arguments, result | `descry.syscall.arguments`, `descry.syscall.result` |

use std::borrow::Cow;

use descry_aggregate::syscalls::{SlowSyscall, SyscallReport, SyscallRow};
use descry_assemble::span::{Attribute, Span, SpanId, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_decode::syscall::Interface;
use descry_process::Attributes;

use crate::otlp::metrics::{
    DurationsPoint, Metric, Number, NumberPoint, Points, ProcessMetrics, Temporality,
};

/// The metrics of all processes; `temporality`: what the report's numbers are counted from.
pub fn metrics(report: &SyscallReport, temporality: Temporality) -> Vec<ProcessMetrics<'_>> {
    static NOTHING: Attributes = Attributes::new();
    let mut rows: Vec<&SyscallRow> = report.rows.iter().collect();
    rows.sort_by_key(|row| &row.process);
    rows.chunk_by(|a, b| a.process == b.process)
        .map(|rows| ProcessMetrics {
            resource: rows.first().and_then(|row| report.resources.get(&row.process)).unwrap_or(&NOTHING),
            metrics: of_process(rows, temporality),
        })
        .collect()
}

fn of_process(rows: &[&SyscallRow], temporality: Temporality) -> Vec<Metric> {
    let durations = rows.iter().filter(|row| row.durations.count > 0).map(|row| DurationsPoint {
        attributes: attributes(row.name.clone(), row.interface, row.blocking),
        histogram: row.durations,
        exemplars: Vec::new(),
    });
    let errors = rows.iter().flat_map(|row| {
        row.errors.iter().map(|(error, count)| {
            let mut attributes = attributes(row.name.clone(), row.interface, row.blocking);
            attributes.push((Cow::Borrowed("error.type"), text(error.clone())));
            NumberPoint { attributes, value: Number::Int(i64::try_from(*count).unwrap_or(i64::MAX)) }
        })
    });
    let durations = Metric {
        name: Cow::Borrowed("descry.syscall.duration"),
        description: Cow::Borrowed("How long system calls took that returned."),
        points: Points::Durations { points: durations.collect(), temporality },
    };
    let errors = Metric {
        name: Cow::Borrowed("descry.syscall.errors"),
        description: Cow::Borrowed("System calls that returned an error."),
        points: Points::Sum {
            unit: Cow::Borrowed("{error}"),
            points: errors.collect(),
            monotonic: true,
            temporality,
        },
    };
    [durations, errors].into_iter().filter(|metric| !metric.points.is_empty()).collect()
}

fn text(text: Cow<'static, str>) -> Value {
    match text {
        Cow::Borrowed(text) => Value::Static(text),
        Cow::Owned(text) => Value::Text(text.into()),
    }
}

fn attributes(name: Cow<'static, str>, interface: Interface, blocking: bool) -> Vec<Attribute> {
    let mut attributes = vec![
        (Cow::Borrowed("descry.syscall.name"), text(name)),
        (Cow::Borrowed("descry.syscall.blocking"), Value::Bool(blocking)),
    ];
    if interface != Interface::NATIVE {
        attributes.push((Cow::Borrowed("descry.syscall.interface"), Value::Static(interface.name())));
    }
    attributes
}

/// The span of a slow call, a trace of its own under these ids.
pub fn slow_span(call: &SlowSyscall, trace: TraceId, span: SpanId) -> Span {
    let mut attributes = attributes(call.name.clone(), call.interface, call.blocking);
    let mut add = |name: &'static str, value: Value| attributes.push((Cow::Borrowed(name), value));
    if let Some(arguments) = &call.arguments {
        let shown = arguments.iter().map(|(name, value)| format!("{name}={value}").into_boxed_str());
        add("descry.syscall.arguments", Value::Texts(shown.collect()));
    }
    add("descry.syscall.result", Value::Int(call.result));
    add("thread.id", Value::Int(call.tid.0.into()));
    add("thread.name", Value::Text(call.thread.as_str().into()));
    if !call.stack.is_empty() {
        add("code.stacktrace", Value::Text(call.stack.join("\n").into()));
    }
    if let Some(error) = &call.error {
        add("error.type", text(error.clone()));
    }
    let end = UnixNanos(call.start.0.saturating_add(call.duration));
    Span {
        status: call.error.as_ref().map_or(Status::Unset, |error| Status::Error(error.clone())),
        attributes: attributes.into(),
        ..Span::internal((trace, span), call.name.clone(), (call.start, end))
    }
}
