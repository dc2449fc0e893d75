//! One object of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use descry_aggregate::syscalls::{OpenSyscall, ProcessName, SlowSyscall, SyscallReport, SyscallRow};
use descry_decode::syscall::Interface;
use serde::Serialize;

use super::quantiles;
use crate::format::line;

/// The report as one line of JSON, without its end:
///
/// `{"duration_ns","syscalls":[{"process","pid","name","calls","errors":{},"total_ns","p50_ns","p95_ns","p99_ns","max_ns",
/// "blocking","unreturned","unreturned_ns"}],"slow":[],"in_flight":[],"begun_before","lost":{}}`. A call by another interface
/// than the machine's own has `interface` too.
pub fn json(report: &SyscallReport) -> String {
    line(&Report {
        duration_ns: u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX),
        syscalls: report.rows.iter().map(row).collect(),
        slow: report.slow.iter().flatten().map(slow).collect(),
        in_flight: report.open.iter().map(open).collect(),
        begun_before: report.begun_before,
        lost: &report.lost,
    })
}

#[derive(Serialize)]
struct Report<'a> {
    duration_ns: u64,
    syscalls: Vec<Row<'a>>,
    slow: Vec<Slow<'a>>,
    in_flight: Vec<Open<'a>>,
    begun_before: u64,
    lost: &'a BTreeMap<&'static str, u64>,
}

/// What every entry begins with.
#[derive(Serialize)]
struct Call<'a> {
    process: &'a str,
    pid: u32,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'static str>,
    blocking: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    call: Call<'a>,
    calls: u64,
    errors: &'a BTreeMap<Cow<'static, str>, u64>,
    total_ns: u64,
    p50_ns: u64,
    p95_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    unreturned: u64,
    unreturned_ns: u64,
}

#[derive(Serialize)]
struct Slow<'a> {
    #[serde(flatten)]
    call: Call<'a>,
    tid: u32,
    thread: &'a str,
    start_unix_nano: u64,
    duration_ns: u64,
    /// In order; `null`: not known.
    arguments: Option<Vec<Argument<'a>>>,
    result: i64,
    error: Option<&'a str>,
    /// The caller of the call first.
    stack: &'a [String],
    truncated: bool,
    unit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
}

#[derive(Serialize)]
struct Argument<'a> {
    name: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
struct Open<'a> {
    #[serde(flatten)]
    call: Call<'a>,
    tid: u32,
    elapsed_ns: u64,
    begun_before: bool,
}

fn call<'a>(process: &'a ProcessName, name: &'a str, interface: Interface, blocking: bool) -> Call<'a> {
    let interface = (interface != Interface::NATIVE).then(|| interface.name());
    Call { process: &process.1, pid: process.0.0, name, interface, blocking }
}

fn row(row: &SyscallRow) -> Row<'_> {
    let [p50_ns, p95_ns, p99_ns] = quantiles(&row.durations);
    Row {
        call: call(&row.process, &row.name, row.interface, row.blocking),
        calls: row.durations.count,
        errors: &row.errors,
        total_ns: row.durations.sum,
        p50_ns,
        p95_ns,
        p99_ns,
        max_ns: row.durations.max,
        unreturned: row.unreturned.count,
        unreturned_ns: row.unreturned.sum,
    }
}

fn slow(slow: &SlowSyscall) -> Slow<'_> {
    Slow {
        call: call(&slow.process, &slow.name, slow.interface, slow.blocking),
        tid: slow.tid.0,
        thread: &slow.thread,
        start_unix_nano: slow.start.0,
        duration_ns: slow.duration,
        arguments: slow.arguments.as_ref().map(|all| all.iter().map(argument).collect()),
        result: slow.result,
        error: slow.error.as_deref(),
        stack: &slow.stack,
        truncated: slow.truncated,
        unit: slow.unit.0,
        request: (slow.request.0 != 0).then_some(slow.request.0),
    }
}

fn argument<'a>((name, value): &'a (&'static str, String)) -> Argument<'a> {
    Argument { name, value }
}

fn open(open: &OpenSyscall) -> Open<'_> {
    Open {
        call: call(&open.process, &open.name, open.interface, open.blocking),
        tid: open.tid.0,
        elapsed_ns: open.elapsed,
        begun_before: open.begun_before,
    }
}
