//! Spans in files.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use descry_assemble::span::{Span, Value};
use descry_export::otlp::check_traces;
use descry_export::span::{
    Delivered, Operations, SpanFormat, SpanProcess, Summary, TableStyle, TraceSink, write_summary,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::support::{attribute, resource, span};

/// A file that a test can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is in a file of these spans of two processes.
fn file(format: SpanFormat, spans: &[Span]) -> (Vec<u8>, Delivered) {
    let shared = Shared::default();
    let mut sink = TraceSink::new(Some((format, Box::new(shared.clone()))), None).unwrap();
    let processes = ["shop", "cart"].map(|name| SpanProcess::new(resource(name)));
    let mut operations = Operations::default();
    for (process, span) in processes.iter().cycle().zip(spans) {
        operations.record(span, process.resource());
        sink.span(process, span).unwrap();
    }
    let (delivered, written) = sink.finish(|delivered, format, out| {
        let lost: BTreeMap<_, _> = delivered.lost().collect();
        let summary = Summary { operations: &operations, edges: None, tcp: None, lost: &lost };
        write_summary(&summary, format, out, TableStyle::default())
    });
    written.unwrap();
    let bytes = shared.0.lock().unwrap().clone();
    (bytes, delivered)
}

fn lines(format: SpanFormat, spans: &[Span]) -> Vec<String> {
    let text = String::from_utf8(file(format, spans).0).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn text_is_lines_and_a_table() {
    let lines = lines(SpanFormat::Text, &[span(), span(), span()]);
    assert_eq!(lines.len(), 3 + 1 + 3, "{lines:?}");
    assert!(lines[0].contains("server    http"), "{lines:?}");
    assert!(lines[4].trim_start().starts_with("count"), "{lines:?}");
    assert_eq!(lines[5].split_whitespace().collect::<Vec<_>>()[..2], ["2", "2"], "{lines:?}");
    assert!(self::lines(SpanFormat::Text, &[]).is_empty());
}

#[test]
fn json_is_lines_and_a_summary() {
    let lines = lines(SpanFormat::Json, &[span(), span(), span()]);
    let json: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = json.iter().map(|json| json["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["span", "span", "span", "summary"]);
    assert_eq!((&json[3]["seen"], &json[3]["lost"]), (&3.into(), &serde_json::json!({})));
    assert_eq!(
        (&json[1]["resource"]["service.name"], &json[3]["operations"][0]["count"]),
        (&"cart".into(), &2.into())
    );
}

#[test]
fn otlp_is_one_message_in_both_encodings() {
    // Several requests' worth.
    let large =
        Span { attributes: vec![attribute("a", Value::Text("x".repeat(1 << 20).into()))].into(), ..span() };
    for spans in [vec![], vec![span(); 5], vec![large; 9]] {
        let (protobuf, _) = file(SpanFormat::Otlp, &spans);
        let (json, _) = file(SpanFormat::OtlpJson, &spans);
        let message = ExportTraceServiceRequest::decode(protobuf.as_slice()).unwrap();
        let read: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, message);
        let scopes = message.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        assert_eq!(scopes.map(|scope| scope.spans.len()).sum::<usize>(), spans.len());
        if spans.len() == 5 {
            assert_eq!(check_traces(&message), Ok(()));
        }
    }
}

#[test]
fn a_span_that_is_too_large_is_counted() {
    let large =
        Span { attributes: vec![attribute("a", Value::Text("x".repeat(5 << 20).into()))].into(), ..span() };
    let (_, delivered) = file(SpanFormat::Otlp, &[span(), large]);
    assert_eq!(delivered.lost().collect::<Vec<_>>(), [("span_oversized", 1)]);
}

/// Fails with this after some writes.
struct Failing(usize, io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(self.1)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_is_no_failure_and_a_full_disk_is_one() {
    let process = SpanProcess::new(resource("shop"));
    let start = |kind| TraceSink::new(Some((SpanFormat::Json, Box::new(Failing(2, kind)))), None).unwrap();
    let mut sink = start(io::ErrorKind::BrokenPipe);
    (0..3).for_each(|_| sink.span(&process, &span()).unwrap());
    assert!(sink.reader_is_gone());
    let (_, written) = sink.finish(|_, _, _| panic!("there is nobody to write to"));
    written.unwrap();

    let mut sink = start(io::ErrorKind::StorageFull);
    let results: Vec<_> = (0..3).map(|_| sink.span(&process, &span())).collect();
    assert!(results.iter().any(Result::is_err) && !sink.reader_is_gone());
}
