//! Log records in requests.

use descry_assemble::span::Value;
use descry_decode::ids::UnixNanos;
use descry_export::otlp::json::Json;
use descry_export::otlp::{LogRecord, LogWriter, MAX_REQUEST_BYTES, OtlpOptions, Severity};
use descry_export::send::SignalRequest;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use crate::support::{attribute, resource};

fn record(body: &str) -> LogRecord {
    LogRecord {
        time: UnixNanos(1_700_000_000_000_000_000),
        severity: Severity::Warn,
        event: "process.exit",
        body: body.to_owned().into(),
        attributes: vec![attribute("process.exit.code", Value::Int(3))],
    }
}

fn bodies(request: &ExportLogsServiceRequest) -> usize {
    let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

#[test]
fn records_of_a_process_in_a_row_share_its_resource() {
    let mut writer = LogWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    for service in ["a", "a", "b", "a"] {
        assert!(writer.push(&resource(service), &record("x")).is_none());
    }
    let request = writer.finish().unwrap();
    assert_eq!((request.resource_logs.len(), request.items()), (3, 4));
    assert!(writer.finish().is_none());
}

#[test]
fn a_record_says_when_what_and_how_bad() {
    let mut writer = LogWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    writer.push(&resource("a"), &record("a exited with code 3"));
    let request = writer.finish().unwrap();
    let json = serde_json::to_value(Json(&request)).unwrap();
    let found = &json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    let wanted = serde_json::json!({
        "timeUnixNano": "1700000000000000000",
        "observedTimeUnixNano": "1700000000000000000",
        "severityNumber": 13,
        "severityText": "WARN",
        "body": {"stringValue": "a exited with code 3"},
        "attributes": [{"key": "process.exit.code", "value": {"intValue": "3"}}],
        "eventName": "process.exit",
    });
    assert_eq!(*found, wanted);
}

#[test]
fn requests_stay_under_their_size_and_lose_nothing() {
    let limit = 2000;
    let mut writer = LogWriter::new(&OtlpOptions::default(), limit);
    let mut requests = Vec::new();
    for number in 0..200 {
        let service = format!("service-{}", number % 3);
        requests.extend(writer.push(&resource(&service), &record(&"x".repeat(number))));
    }
    assert!(writer.push(&resource("a"), &record(&"x".repeat(limit))).is_none());
    requests.extend(writer.finish());
    assert_eq!(writer.oversized_records(), 1);
    assert_eq!(requests.iter().map(bodies).sum::<usize>(), 200);
    for request in requests {
        assert!(request.encoded_len() <= limit, "{} bytes", request.encoded_len());
    }
}
