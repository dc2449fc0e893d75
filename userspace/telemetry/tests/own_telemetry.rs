//! descry's own telemetry arrives at a receiver, and nothing of its libraries does.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod receiver;

use std::time::Duration;

use descry_telemetry::{Counters, Logging, OwnTelemetry, logging};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use prost::Message;

#[test]
fn spans_counters_and_logs_arrive() {
    let (url, received) = receiver::start(false);
    let counters = Counters::default();
    let lost = counters.counter("descry.samples.lost", "Samples that the ring had no room for.");
    lost.add(3);
    let own = OwnTelemetry::start(&url, "1.2.3", &counters).unwrap();
    logging::init(&Logging { verbosity: -2, ..Logging::default() }, Some(&own)).unwrap();
    let again = logging::init(&Logging::default(), None).unwrap_err().to_string();
    assert!(again.contains("twice"), "{again}");

    tracing::info_span!(target: "descry_unwind", "build rows").in_scope(|| {
        tracing::warn!(target: "descry_unwind", file = "libc.so.6", "one entry is unusable");
    });
    tracing::info_span!(target: "hyper", "request of a library").in_scope(|| {
        tracing::warn!(target: "hyper", "message of a library");
    });
    lost.add(4);
    own.shutdown(Duration::from_secs(20)).unwrap();

    let received = received.lock().unwrap();
    let of = |path: &str| {
        received.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect::<Vec<_>>()
    };
    let mut spans = Vec::new();
    for body in of("/v1/traces") {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let name = name.value.clone().unwrap().value;
            assert_eq!(name, Some(Value::StringValue("descry".to_owned())));
            spans
                .extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| span.name));
        }
    }
    assert_eq!(spans, ["build rows"]);

    let mut messages = Vec::new();
    for body in of("/v1/logs") {
        let request = ExportLogsServiceRequest::decode(body).unwrap();
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        messages.extend(scopes.flat_map(|scope| scope.log_records).filter_map(|record| record.body?.value));
    }
    assert_eq!(messages, [Value::StringValue("one entry is unusable".to_owned())]);

    let last = ExportMetricsServiceRequest::decode(of("/v1/metrics").pop().unwrap()).unwrap();
    let metric = &last.resource_metrics[0].scope_metrics[0].metrics[0];
    assert_eq!(metric.name, "descry.samples.lost");
    assert_eq!(metric.description, "Samples that the ring had no room for.");
    let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
    assert!(sum.is_monotonic);
    assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsInt(7)));
}
