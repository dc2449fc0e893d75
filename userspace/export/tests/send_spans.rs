//! Spans that are sent while something is measured, as a receiver and a user see it.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod send_support;
#[path = "signals/support.rs"]
mod support;

use descry_assemble::span::{Span, Value};
use descry_export::otlp::TraceRequest;
use descry_export::send::{DropReason, Outcome, Sender, Signal};
use descry_export::span::{Delivered, SpanProcess, TraceSink};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use send_support::{Answer, HttpReceiver, answer, nobody, settings_of};
use support::{attribute, resource, span};

/// Gives a sink that many spans, and says what became of them.
async fn deliver(endpoint: &str, variables: &[(&str, &str)], spans: Vec<Span>) -> Outcome {
    let sender = Sender::<TraceRequest>::new(settings_of(Signal::TRACES, endpoint, variables)).unwrap();
    let given = spans.len() as u64;
    let work = tokio::task::spawn_blocking(move || {
        let mut sink = TraceSink::new(None, Some(sender)).unwrap();
        let process = SpanProcess::new(resource("shop"));
        for span in &spans {
            sink.span(&process, span).unwrap();
        }
        sink.flush().unwrap();
        let (delivered, written) = sink.finish(|_, _, _| panic!("nothing is written"));
        written.unwrap();
        delivered
    });
    let Delivered { outcome, oversized_spans } = work.await.unwrap();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.sent_items + outcome.dropped_items() + oversized_spans, given, "{outcome:?}");
    outcome
}

/// Spans of which four fill a request.
fn large(count: usize) -> Vec<Span> {
    vec![
        Span { attributes: vec![attribute("a", Value::Shared("x".repeat(250_000).into()))].into(), ..span() };
        count
    ]
}

fn ok() -> Answer {
    answer(200, &[("content-type", "application/x-protobuf")], "")
}

#[tokio::test]
async fn spans_arrive_whole_in_every_encoding() {
    for (protocol, compression) in
        [("http/protobuf", "none"), ("http/protobuf", "zstd"), ("http/json", "gzip")]
    {
        let receiver = HttpReceiver::start(|_| ok()).await;
        let variables = [("PROTOCOL", protocol), ("COMPRESSION", compression)];
        let outcome = deliver(&receiver.url(), &variables, large(10)).await;
        assert!(outcome.is_complete(), "{outcome:?}");
        let seen = receiver.seen();
        assert_eq!((seen.len(), outcome.sent_requests), (3, 3));
        let mut arrived = 0;
        for request in seen {
            assert_eq!(request.path, "/v1/traces");
            let body = request.plain_body();
            let message: ExportTraceServiceRequest = match protocol {
                "http/json" => serde_json::from_slice(&body).unwrap(),
                _ => ExportTraceServiceRequest::decode(body.as_slice()).unwrap(),
            };
            assert!(message.encoded_len() <= 1 << 20);
            arrived += message.resource_spans[0].scope_spans[0].spans.len();
        }
        assert_eq!(arrived, 10);
    }
}

#[tokio::test]
async fn what_the_receiver_rejects_is_counted() {
    let json = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
    let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() };
    let protobuf = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    for (content_type, body) in
        [("application/json", json.as_bytes().to_vec()), ("application/x-protobuf", protobuf)]
    {
        let receiver =
            HttpReceiver::start(move |_| answer(200, &[("content-type", content_type)], body.clone())).await;
        let outcome = deliver(&receiver.url(), &[], vec![span(); 3]).await;
        assert_eq!((outcome.sent_items, outcome.rejected_items), (3, 2), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_costs_the_spans_and_no_more() {
    let endpoint = format!("http://{}", nobody());
    let outcome = deliver(&endpoint, &[("TIMEOUT", "200")], large(40)).await;
    assert_eq!(outcome.sent_items, 0);
    assert!(outcome.dropped_items_by_reason.contains_key(&DropReason::Unreachable), "{outcome:?}");
    assert!(outcome.first_error.is_some() && !outcome.is_complete());
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_the_measurement_up() {
    let receiver = HttpReceiver::start(|_| None).await;
    let outcome = deliver(&receiver.url(), &[("TIMEOUT", "2000")], large(400)).await;
    assert!(outcome.dropped_items_by_reason.contains_key(&DropReason::Timeout), "{outcome:?}");
    assert!(outcome.dropped_items_by_reason.contains_key(&DropReason::QueueFull), "{outcome:?}");
}
