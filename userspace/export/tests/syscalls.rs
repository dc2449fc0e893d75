//! What `descry syscalls` measured, as text, JSON and OTLP.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use descry_abi::histogram::Histogram;
use descry_abi::syscall::Unreturned;
use descry_aggregate::histogram::record;
use descry_aggregate::syscalls::{OpenSyscall, ProcessName, SlowSyscall, SyscallReport, SyscallRow};
use descry_assemble::span::{SpanId, TraceId};
use descry_decode::ids::{RequestId, Tgid, Tid, UnitId, UnixNanos};
use descry_decode::syscall::Interface;
use descry_export::otlp::metrics::{Interval, Temporality, metrics_requests};
use descry_export::otlp::{
    EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, TraceWriter, check_metrics, check_traces,
};
use descry_export::span::TableStyle;
use descry_export::syscall::{json, metrics, slow_span, text};
use descry_process::AttributeValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde_json::json;

const START: UnixNanos = UnixNanos(1_700_000_000_000_000_000);
/// No interface of this machine's own programs.
const FOREIGN: Interface =
    if matches!(Interface::NATIVE, Interface::X86_64) { Interface::I386 } else { Interface::Arm };

/// A process whose name would ring a terminal's bell.
fn process() -> ProcessName {
    (Tgid(7), "ng\u{7}inx".into())
}

fn row(name: &'static str, blocking: bool, durations: &[u64], errors: &[(&'static str, u64)]) -> SyscallRow {
    let mut histogram = Histogram::default();
    durations.iter().for_each(|duration| record(&mut histogram, *duration));
    SyscallRow {
        process: process(),
        name: Cow::Borrowed(name),
        interface: Interface::NATIVE,
        blocking,
        durations: histogram,
        errors: errors.iter().map(|(name, count)| (Cow::Borrowed(*name), *count)).collect(),
        unreturned: Unreturned::default(),
    }
}

fn report() -> SyscallReport {
    let slow = SlowSyscall {
        process: process(),
        tid: Tid(8),
        thread: "worker".to_owned(),
        start: START,
        duration: 20_000_000,
        name: Cow::Borrowed("read"),
        interface: Interface::NATIVE,
        blocking: false,
        arguments: Some(vec![("fd", "3</etc/\u{1b}passwd>".to_owned()), ("count", "64".to_owned())]),
        result: -4,
        error: Some(Cow::Borrowed("EINTR")),
        stack: vec!["read_all (a.c:7)".to_owned(), "main (a.c:9)".to_owned()],
        truncated: true,
        unit: UnitId(8),
        request: RequestId(0),
    };
    let open = |tid, elapsed, begun_before| OpenSyscall {
        process: process(),
        tid: Tid(tid),
        name: Cow::Borrowed("epoll_wait"),
        interface: Interface::NATIVE,
        blocking: true,
        elapsed,
        begun_before,
    };
    SyscallReport {
        start: START,
        duration: Duration::from_secs(2),
        rows: vec![
            row("epoll_wait", true, &[1_000_000_000], &[]),
            row("read", false, &[20_000_000, 1_000], &[("EINTR", 1), ("EAGAIN", 2)]),
            SyscallRow { interface: FOREIGN, ..row("read", false, &[500], &[]) },
            SyscallRow { unreturned: Unreturned { count: 1, sum: 10 }, ..row("exit_group", false, &[], &[]) },
        ],
        slow: Some(vec![slow]),
        open: vec![open(9, 2_000_000_000, true), open(10, 5_000, false)],
        begun_before: 1,
        lost: BTreeMap::from([("ring_full_syscall", 3)]),
        resources: [(process(), vec![("process.pid".into(), AttributeValue::Int(7))])].into_iter().collect(),
    }
}

#[test]
fn as_text() {
    let mut out = Vec::new();
    text(&report(), &mut out, TableStyle::default()).unwrap();
    let expected = format!(
        "\
4 system calls in 2.00 s: 20.0 ms of work, 1.00 s of blocking waits

work
    total       %        calls        p50        p95        p99        max  {syscall}  process        errors
  20.0 ms  100.0%            2     939 ns    20.0 ms    20.0 ms    20.0 ms  {read}  ng\\u{{7}}inx(7)  EAGAIN 2, EINTR 1
   500 ns    0.0%            1     470 ns     470 ns     470 ns     500 ns  read [{foreign}]  ng\\u{{7}}inx(7)
      0 s    0.0%            0        0 s        0 s        0 s        0 s  {exit_group}  ng\\u{{7}}inx(7)  never returned 1

blocking waits: time for others, not work
    total       %        calls        p50        p95        p99        max  syscall     process        errors
   1.00 s  100.0%            1   984.6 ms   984.6 ms   984.6 ms     1.00 s  epoll_wait  ng\\u{{7}}inx(7)

in flight when the measurement ended
 threads           for  syscall     process
       2     >= 2.00 s  epoll_wait  ng\\u{{7}}inx(7)

slow calls: 1
2023-11-14T22:13:20.000Z    20.0 ms  ng\\u{{7}}inx(7) worker(8)  read(fd=3</etc/\\u{{1b}}passwd>, count=64) = -1 EINTR
    read_all (a.c:7)
    main (a.c:9)
    [truncated]
",
        foreign = FOREIGN.name(),
        syscall = pad("syscall"),
        read = pad("read"),
        exit_group = pad("exit_group"),
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// To the width of the longest name.
fn pad(name: &str) -> String {
    let width = format!("read [{}]", FOREIGN.name()).len().max("exit_group".len());
    format!("{name:<width$}")
}

#[test]
fn as_json() {
    let line = json(&report());
    assert!(!line.contains('\u{7}') && !line.contains('\u{1b}'), "{line}");
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["duration_ns"], 2_000_000_000u64);
    assert_eq!(
        object["syscalls"][1],
        json!({
            "process": "ng\u{7}inx", "pid": 7, "name": "read", "blocking": false, "calls": 2,
            "errors": {"EAGAIN": 2, "EINTR": 1}, "total_ns": 20_001_000, "p50_ns": 939, "p95_ns": 20_000_000,
            "p99_ns": 20_000_000, "max_ns": 20_000_000, "unreturned": 0, "unreturned_ns": 0,
        })
    );
    assert_eq!(object["syscalls"][2]["interface"], FOREIGN.name());
    assert_eq!(
        object["slow"],
        json!([{
            "process": "ng\u{7}inx", "pid": 7, "name": "read", "blocking": false, "tid": 8, "thread": "worker",
            "start_unix_nano": START.0, "duration_ns": 20_000_000,
            "arguments": [{"name": "fd", "value": "3</etc/\u{1b}passwd>"}, {"name": "count", "value": "64"}],
            "result": -4, "error": "EINTR", "stack": ["read_all (a.c:7)", "main (a.c:9)"], "truncated": true, "unit": 8,
        }])
    );
    assert_eq!(object["in_flight"][0]["begun_before"], true);
    assert_eq!((&object["begun_before"], &object["lost"]), (&json!(1), &json!({"ring_full_syscall": 3})));
}

#[test]
fn as_otlp_metrics() {
    let report = report();
    let interval = Interval { start: START, end: UnixNanos(START.0 + 2_000_000_000) };
    let requests = metrics_requests(
        &metrics(&report, Temporality::Cumulative),
        interval,
        &OtlpOptions::default(),
        MAX_REQUEST_BYTES,
    );
    let [request] = &*requests.requests else { panic!("not one request") };
    check_metrics(request).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let names: Vec<_> = metrics.iter().map(|metric| (&*metric.name, &*metric.unit)).collect();
    assert_eq!(names, [("descry.syscall.duration", "s"), ("descry.syscall.errors", "{error}")]);
    let Some(Data::ExponentialHistogram(durations)) = &metrics[0].data else { panic!("no histogram") };
    let counts: Vec<_> = durations.data_points.iter().map(|point| (point.count, point.sum)).collect();
    assert_eq!(counts, [(1, Some(1.0)), (2, Some(0.020_001)), (1, Some(5e-7))]);
}

#[test]
fn as_a_span() {
    let report = report();
    let call = &report.slow.as_ref().unwrap()[0];
    let mut writer = TraceWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    let process = EncodedResource::new(&report.resources[&process()]);
    assert!(writer.push(&process, &slow_span(call, TraceId([1; 16]), SpanId([2; 8]))).is_none());
    let request = writer.finish().unwrap().decode().unwrap();
    check_traces(&request).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((&*span.name, span.end_time_unix_nano - span.start_time_unix_nano), ("read", 20_000_000));
    let names: Vec<_> = span.attributes.iter().map(|attribute| &*attribute.key).collect();
    let expected = [
        "descry.syscall.name",
        "descry.syscall.blocking",
        "descry.syscall.arguments",
        "descry.syscall.result",
        "thread.id",
        "thread.name",
        "code.stacktrace",
        "error.type",
    ];
    assert_eq!(names, expected);
}
