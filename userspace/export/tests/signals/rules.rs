//! The checkers find what is wrong.

use descry_abi::histogram::Histogram;
use descry_decode::ids::UnixNanos;
use descry_export::otlp::metrics::{
    DurationsPoint, Interval, Metric, Number, NumberPoint, Points, ProcessMetrics, Temporality,
    metrics_requests,
};
use descry_export::otlp::{
    EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, Rule, TraceWriter, check_metrics, check_traces,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, Metric as MetricMessage};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::support::{resource, span};

/// A request with a span, changed.
fn check(change: impl FnOnce(&mut Span), expected: &[Rule]) {
    let mut writer = TraceWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    writer.push(&EncodedResource::new(&resource("shop")), &span());
    let mut request = writer.finish().unwrap().decode().unwrap();
    change(&mut request.resource_spans[0].scope_spans[0].spans[0]);
    assert_eq!(rules(check_traces(&request)), expected);
}

fn rules(result: Result<(), Vec<descry_export::otlp::Violation>>) -> Vec<Rule> {
    result.err().unwrap_or_default().into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn broken_spans_are_found() {
    check(|_| (), &[]);
    check(|span| span.trace_id = vec![0; 16], &[Rule::SpanIds]);
    check(|span| span.span_id = vec![1; 7], &[Rule::SpanIds]);
    check(|span| span.parent_span_id = vec![0; 8], &[Rule::SpanIds]);
    check(|span| span.parent_span_id = span.span_id.clone(), &[Rule::SpanIds]);
    check(|span| span.parent_span_id.clear(), &[]);
    check(|span| span.name.clear(), &[Rule::SpanNamed]);
    check(|span| span.kind = 0, &[Rule::SpanNamed]);
    check(|span| span.end_time_unix_nano = span.start_time_unix_nano - 1, &[Rule::EndAfterStart]);
    check(|span| span.start_time_unix_nano = 0, &[Rule::EndAfterStart]);
    check(|span| span.flags = 0x400, &[Rule::SpanFlags]);
    check(|span| span.flags = 0x200, &[Rule::SpanFlags]);
    check(|span| span.status.as_mut().unwrap().code = 1, &[Rule::SpanStatus]);
    check(|span| span.attributes[1] = span.attributes[0].clone(), &[Rule::AttributeKeys]);
    check(|span| span.events[0].name.clear(), &[Rule::SpanNamed]);
    check(|span| span.links[0].trace_id.clear(), &[Rule::SpanIds]);
}

#[test]
fn broken_requests_are_found() {
    let mut request = ExportTraceServiceRequest::default();
    assert_eq!(check_traces(&request), Ok(()));
    let one = EncodedResource::new(&resource("shop"));
    let mut writer = TraceWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
    writer.push(&one, &span());
    writer.push(&EncodedResource::new(&resource("shop")), &span());
    request.resource_spans = writer.finish().unwrap().decode().unwrap().resource_spans;
    assert_eq!(rules(check_traces(&request)), [Rule::ResourceOnce]);
    request.resource_spans[1].scope_spans[0].spans.clear();
    assert_eq!(rules(check_traces(&request)), [Rule::ResourceOnce, Rule::NotEmpty]);
    request.resource_spans[1].scope_spans.clear();
    assert_eq!(rules(check_traces(&request)), [Rule::ResourceOnce, Rule::NotEmpty]);
}

/// A request with a histogram and a sum, changed.
fn check_metric(change: impl FnOnce(&mut Vec<MetricMessage>), expected: &[Rule]) {
    let mut histogram = Histogram { count: 3, sum: 300, max: 120, ..Histogram::default() };
    histogram.buckets[0] = 1;
    histogram.buckets[26] = 2;
    let durations = Points::Durations {
        points: vec![DurationsPoint { attributes: Vec::new(), histogram, exemplars: Vec::new() }],
        temporality: Temporality::Cumulative,
    };
    let sum = Points::Sum {
        unit: "1".into(),
        points: vec![NumberPoint { attributes: Vec::new(), value: Number::Int(1) }],
        monotonic: true,
        temporality: Temporality::Cumulative,
    };
    let metrics = [("a", durations), ("b", sum)]
        .map(|(name, points)| Metric { name: name.into(), description: "".into(), points })
        .to_vec();
    let resource = resource("shop");
    let interval = Interval { start: UnixNanos(1), end: UnixNanos(2) };
    let process = ProcessMetrics { resource: &resource, metrics };
    let made = metrics_requests(&[process], interval, &OtlpOptions::default(), MAX_REQUEST_BYTES);
    let mut request: ExportMetricsServiceRequest = made.requests[0].clone();
    change(&mut request.resource_metrics[0].scope_metrics[0].metrics);
    assert_eq!(rules(check_metrics(&request)), expected);
}

fn point(metrics: &mut [MetricMessage]) -> &mut ExponentialHistogramDataPoint {
    match &mut metrics[0].data {
        Some(Data::ExponentialHistogram(histogram)) => &mut histogram.data_points[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn broken_metrics_are_found() {
    check_metric(|_| (), &[]);
    check_metric(|metrics| metrics.clear(), &[Rule::NotEmpty]);
    check_metric(|metrics| metrics[1].name = "a".to_owned(), &[Rule::MetricNamed]);
    check_metric(|metrics| metrics[1].data = None, &[Rule::MetricNamed]);
    check_metric(|metrics| point(metrics).count = 4, &[Rule::BucketCounts]);
    check_metric(
        |metrics| point(metrics).positive.as_mut().unwrap().bucket_counts.push(0),
        &[Rule::BucketCounts],
    );
    check_metric(|metrics| point(metrics).start_time_unix_nano = 3, &[Rule::EndAfterStart]);
    check_metric(|metrics| point(metrics).sum = None, &[Rule::PointValue]);
    check_metric(
        |metrics| match &mut metrics[1].data {
            Some(Data::Sum(sum)) => {
                sum.aggregation_temporality = 0;
                sum.data_points[0].value = None;
                sum.data_points.push(sum.data_points[0].clone());
            }
            other => panic!("{other:?}"),
        },
        &[Rule::Temporality, Rule::PointIdentity, Rule::PointValue, Rule::PointValue],
    );
}
