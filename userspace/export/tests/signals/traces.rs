//! Spans in requests.

use descry_assemble::span::{Span, Value};
use descry_export::otlp::json::Json;
use descry_export::otlp::{
    EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, TraceRequest, TraceWriter, check_traces,
};
use descry_export::send::SignalRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span as Message;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use crate::any::any_span;
use crate::structs;
use crate::support::{attribute, resource, span};

fn options() -> OtlpOptions {
    OtlpOptions { scope_version: "1.2.3".to_owned() }
}

/// Spans, each of the process of that number, in requests of at most `max_bytes`, and how many were left out.
fn requests(spans: &[(usize, Span)], max_bytes: usize) -> (Vec<TraceRequest>, u64) {
    let resources: Vec<_> =
        ["shop", "cart", "stock"].iter().map(|name| EncodedResource::new(&resource(name))).collect();
    let mut writer = TraceWriter::new(&options(), max_bytes);
    let mut requests: Vec<_> =
        spans.iter().filter_map(|(process, span)| writer.push(&resources[*process], span)).collect();
    requests.extend(writer.finish());
    assert_eq!((writer.waiting(), writer.finish()), (0, None));
    (requests, writer.oversized_spans())
}

/// The spans of all requests by service, in their order.
fn by_service(requests: &[TraceRequest]) -> [Vec<Message>; 3] {
    let mut spans = [const { Vec::new() }; 3];
    for resource_spans in requests.iter().flat_map(|request| request.decode().unwrap().resource_spans) {
        let found = resource_spans.resource.unwrap();
        let service = ["shop", "cart", "stock"].into_iter().position(|name| {
            let shown = format!("{:?}", found.attributes[0].value);
            assert_eq!(found.attributes.len(), 3);
            shown.contains(name)
        });
        let scope = resource_spans.scope_spans.into_iter().next().unwrap();
        assert_eq!(
            (scope.scope.clone().unwrap().name, scope.scope.unwrap().version),
            ("descry".into(), "1.2.3".into())
        );
        spans[service.unwrap()].extend(scope.spans);
    }
    spans
}

proptest! {
    #[test]
    fn every_field_of_every_span_comes_out(
        spans in vec((0..3_usize, any_span()), 0..12),
        max_bytes in prop_oneof![300..3000_usize, Just(MAX_REQUEST_BYTES)],
    ) {
        let (requests, oversized) = requests(&spans, max_bytes);
        let sent: u64 = requests.iter().map(TraceRequest::spans).sum();
        prop_assert_eq!(sent + oversized, spans.len() as u64);
        for request in &requests {
            prop_assert!(request.bytes().len() <= max_bytes);
            // The same bytes as prost's.
            let decoded = request.decode().unwrap();
            prop_assert_eq!(decoded.encode_to_vec(), request.bytes());
            prop_assert_eq!(request.items(), request.spans());
        }
        let expected: [Vec<Message>; 3] = std::array::from_fn(|process| {
            let own = spans.iter().filter(|(of, _)| *of == process);
            own.map(|(_, span)| structs::span(span)).collect()
        });
        if oversized == 0 {
            prop_assert_eq!(by_service(&requests), expected);
        }
    }

    #[test]
    fn json_says_the_same(span in any_span()) {
        let (requests, _) = requests(&[(0, span)], MAX_REQUEST_BYTES);
        let json = requests[0].to_json().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let message = requests[0].decode().unwrap();
        let found = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let truth = &message.resource_spans[0].scope_spans[0].spans[0];
        prop_assert_eq!(found["name"].as_str().unwrap_or(""), truth.name.as_str());
        prop_assert_eq!(found["attributes"].as_array().map_or(0, Vec::len), truth.attributes.len());
    }
}

#[test]
fn json_is_otlps() {
    let (requests, _) = requests(&[(0, span())], MAX_REQUEST_BYTES);
    let json = String::from_utf8(requests[0].to_json().unwrap()).unwrap();
    let expected = concat!(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},"#,
        r#"{"key":"process.pid","value":{"intValue":"42"}},{"key":"process.command_args","value":{"arrayValue":"#,
        r#"{"values":[{"stringValue":"a"},{"stringValue":"b"}]}}}]},"scopeSpans":[{"scope":{"name":"descry","#,
        r#""version":"1.2.3"},"spans":[{"traceId":"01010101010101010101010101010101","spanId":"0202020202020202","#,
        r#""traceState":"vendor=1","parentSpanId":"0303030303030303","flags":769,"name":"GET /","kind":2,"#,
        r#""startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000000000100","attributes":["#,
        r#"{"key":"http.request.method","value":{"stringValue":"GET"}},"#,
        r#"{"key":"http.response.status_code","value":{"intValue":"500"}}],"events":[{"timeUnixNano":"#,
        r#""1700000000000000050","name":"exception","attributes":[{"key":"exception.escaped","value":"#,
        r#"{"boolValue":false}}]}],"links":[{"traceId":"04040404040404040404040404040404","spanId":"#,
        r#""0505050505050505","attributes":[{"key":"share","value":{"doubleValue":0.5}}]}],"#,
        r#""status":{"message":"no","code":2}}]}]}]}"#,
    );
    assert_eq!(json, expected);
    // The reader of opentelemetry-proto takes it for the same message.
    let read: ExportTraceServiceRequest = serde_json::from_str(&json).unwrap();
    assert_eq!(read, requests[0].decode().unwrap());
    assert_eq!(serde_json::to_string(&Json(&read)).unwrap(), json);
}

#[test]
fn a_process_has_one_entry_a_request() {
    let spans: Vec<_> = (0..10).map(|number| (number % 2, span())).collect();
    let (requests, _) = requests(&spans, MAX_REQUEST_BYTES);
    let message = requests[0].decode().unwrap();
    assert_eq!((requests.len(), message.resource_spans.len()), (1, 2));
    assert_eq!(check_traces(&message), Ok(()));
}

#[test]
fn requests_in_a_row_are_one_message() {
    let spans: Vec<_> = (0..10).map(|_| (0, span())).collect();
    let (requests, _) = requests(&spans, 1000);
    assert!(requests.len() > 1);
    let file: Vec<u8> = requests.iter().flat_map(|request| request.bytes()).copied().collect();
    let message = ExportTraceServiceRequest::decode(file.as_slice()).unwrap();
    assert_eq!(message.resource_spans.len(), requests.len());
}

#[test]
fn a_span_larger_than_a_request_is_counted() {
    let large =
        Span { attributes: vec![attribute("a", Value::Text("x".repeat(2000).into()))].into(), ..span() };
    let (requests, oversized) = requests(&[(0, span()), (0, large), (0, span())], 1000);
    assert_eq!((requests.iter().map(TraceRequest::spans).sum::<u64>(), oversized), (2, 1));
}
