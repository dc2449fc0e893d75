//! Metrics: what the collector forwards are the same points, field by field.

use std::borrow::Cow;

use descry_abi::histogram::Histogram;
use descry_aggregate::histogram::record;
use descry_assemble::span::{Attribute, SpanId, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_export::otlp::metrics::{
    DurationsPoint, Exemplar, Interval, Metric, Number, NumberPoint, Points, ProcessMetrics, Temporality,
    metrics_requests,
};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions, check_metrics};
use descry_process::AttributeValue;
use descry_tests::collector::Collector;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use crate::{PATIENCE, by_every_transport, send};

const INTERVAL: Interval =
    Interval { start: UnixNanos(1_700_000_000_000_000_000), end: UnixNanos(1_700_000_010_000_000_000) };

fn attributes(number: i64) -> Vec<Attribute> {
    vec![(Cow::Borrowed("number"), Value::Int(number))]
}

fn durations(number: i64) -> DurationsPoint {
    let mut histogram = Histogram::default();
    (0..1000).for_each(|step| record(&mut histogram, step * step * number.unsigned_abs()));
    let exemplar =
        Exemplar { trace: TraceId([1; 16]), span: SpanId([2; 8]), time: INTERVAL.end, duration: 1_500_000 };
    DurationsPoint { attributes: attributes(number), histogram, exemplars: vec![exemplar] }
}

fn number(number: i64) -> NumberPoint {
    let value = if number % 2 == 0 { Number::Int(number) } else { Number::Double(0.5) };
    NumberPoint { attributes: attributes(number), value }
}

fn metrics() -> Vec<Metric> {
    let metric =
        |name: &'static str, points| Metric { name: name.into(), description: "Some.".into(), points };
    let durations: Vec<_> = (0..20).map(durations).collect();
    let numbers: Vec<_> = (0..20).map(number).collect();
    let (delta, cumulative) = (Temporality::Delta, Temporality::Cumulative);
    vec![
        metric("durations.delta", Points::Durations { points: durations.clone(), temporality: delta }),
        metric("durations.cumulative", Points::Durations { points: durations, temporality: cumulative }),
        metric(
            "sum",
            Points::Sum {
                unit: "{request}".into(),
                points: numbers.clone(),
                monotonic: true,
                temporality: cumulative,
            },
        ),
        metric("gauge", Points::Gauge { unit: "By".into(), points: numbers }),
    ]
}

fn requests(max_bytes: usize) -> Vec<ExportMetricsServiceRequest> {
    let resource = |service: &str| vec![("service.name".into(), AttributeValue::Text(service.to_owned()))];
    let resources = ["shop", "cart"].map(resource);
    let processes = resources.each_ref().map(|resource| ProcessMetrics { resource, metrics: metrics() });
    let made = metrics_requests(&processes, INTERVAL, &OtlpOptions::default(), max_bytes);
    assert_eq!(made.oversized_points, 0);
    made.requests
}

/// The collector writes buckets that hold nothing, and leaves it to chance which request comes out first.
fn in_order(requests: Vec<ExportMetricsServiceRequest>) -> Vec<ResourceMetrics> {
    let mut all: Vec<_> = requests.into_iter().flat_map(|request| request.resource_metrics).collect();
    let scopes = all.iter_mut().flat_map(|resource| &mut resource.scope_metrics);
    for metric in scopes.flat_map(|scope| &mut scope.metrics) {
        let Some(Data::ExponentialHistogram(histogram)) = &mut metric.data else { continue };
        for point in &mut histogram.data_points {
            for side in [&mut point.positive, &mut point.negative] {
                *side = side.take().filter(|buckets| *buckets != Buckets::default());
            }
        }
    }
    all.sort_by_key(|resource| format!("{resource:?}"));
    all
}

fn check(collector: &Collector, url: &str, protocol: &str, compression: &str, max_bytes: usize) {
    let truth = requests(max_bytes);
    truth.iter().for_each(|request| assert_eq!(check_metrics(request), Ok(())));
    let sent = send(collector, url, protocol, compression, truth.clone());
    let forwarded = (0..sent).map(|_| collector.next_forwarded(PATIENCE).unwrap());
    let forwarded = forwarded.map(|json| serde_json::from_value(json).unwrap()).collect();
    assert_eq!(in_order(forwarded), in_order(truth), "{protocol} {compression} {max_bytes}");
}

/// By every transport, in one request and in several.
pub fn same_points_come_out(collector: &Collector) {
    by_every_transport(collector, |url, protocol, compression| {
        check(collector, url, protocol, compression, MAX_REQUEST_BYTES);
    });
    check(collector, &collector.grpc_url(), "grpc", "gzip", 3000);
    check(collector, &collector.http_url(), "http/json", "gzip", 3000);
}
