//! Metrics in requests.

use descry_abi::histogram::{BUCKETS, Histogram};
use descry_aggregate::histogram::record;
use descry_assemble::span::{SpanId, TraceId, Value};
use descry_decode::ids::UnixNanos;
use descry_export::otlp::json::Json;
use descry_export::otlp::metrics::{
    DurationsPoint, Exemplar, Interval, Metric, MetricsRequests, Number, NumberPoint, Points, ProcessMetrics,
    Temporality, metrics_requests,
};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions, check_metrics};
use descry_export::send::SignalRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

use crate::support::{attribute, resource};

const INTERVAL: Interval =
    Interval { start: UnixNanos(1_700_000_000_000_000_000), end: UnixNanos(1_700_000_010_000_000_000) };

fn durations(durations: &[u64]) -> Points {
    let mut histogram = Histogram::default();
    durations.iter().for_each(|duration| record(&mut histogram, *duration));
    let exemplar = Exemplar {
        trace: TraceId([1; 16]),
        span: SpanId([2; 8]),
        time: INTERVAL.end,
        duration: durations.first().copied().unwrap_or(0),
    };
    let attributes = vec![attribute("http.request.method", Value::Static("GET"))];
    let points = vec![DurationsPoint { attributes, histogram, exemplars: vec![exemplar] }];
    Points::Durations { points, temporality: Temporality::Delta }
}

fn numbers(count: i64) -> Vec<NumberPoint> {
    let point = |number| NumberPoint {
        attributes: vec![attribute("cpu.logical_number", Value::Int(number))],
        value: if number % 2 == 0 { Number::Int(number) } else { Number::Double(0.0) },
    };
    (0..count).map(point).collect()
}

fn metric(name: &'static str, points: Points) -> Metric {
    Metric { name: name.into(), description: "What it is.".into(), points }
}

/// One metric of each kind.
fn metrics() -> Vec<Metric> {
    let (monotonic, temporality) = (true, Temporality::Cumulative);
    vec![
        metric("http.server.request.duration", durations(&[1_500, 2_000_000, 2_000_001])),
        metric(
            "requests",
            Points::Sum { unit: "{request}".into(), points: numbers(3), monotonic, temporality },
        ),
        metric("memory", Points::Gauge { unit: "By".into(), points: numbers(2) }),
    ]
}

fn requests(metrics: &[Metric], max_bytes: usize) -> MetricsRequests {
    let (shop, cart) = (resource("shop"), resource("cart"));
    let processes = [&shop, &cart].map(|resource| ProcessMetrics { resource, metrics: metrics.to_vec() });
    metrics_requests(&processes, INTERVAL, &OtlpOptions { scope_version: "1.2.3".to_owned() }, max_bytes)
}

/// The buckets of some durations (ns), as (offset, counts, those near zero).
fn check(nanos: &[u64], expected: (i32, &[u64], u64)) -> ExponentialHistogramDataPoint {
    let made = requests(&[metric("a", durations(nanos))], MAX_REQUEST_BYTES);
    let Some(Data::ExponentialHistogram(histogram)) =
        &made.requests[0].resource_metrics[0].scope_metrics[0].metrics[0].data
    else {
        panic!("{made:?}");
    };
    let point = histogram.data_points[0].clone();
    let positive = point.positive.clone().unwrap_or_default();
    assert_eq!((positive.offset, positive.bucket_counts.as_slice(), point.zero_count), expected, "{nanos:?}");
    point
}

#[test]
fn durations_are_in_the_bucket_of_seconds_that_holds_their_middle() {
    check(&[], (0, &[], 0));
    check(&[0, 1], (0, &[], 2));
    // 1 ms: bucket 79 of ns, -41 of seconds, which ends at 2^(-40/4) s = 0.98 ms.
    let point = check(&[1_000_000], (-41, &[1], 0));
    assert_eq!(
        (point.scale, point.count, point.sum, point.max, point.min),
        (2, 1, Some(1e-3), Some(1e-3), None)
    );
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (INTERVAL.start.0, INTERVAL.end.0));
    assert_eq!(point.zero_threshold, 1e-9);
    check(&[1_000_000_000, 1_000_000_000, 1_250_000_000, 2_000_000_000], (-1, &[2, 1, 0, 0, 1], 0));
}

#[test]
fn each_bucket_is_at_most_half_of_one_off() {
    for index in 1..BUCKETS {
        let mut histogram = Histogram::default();
        histogram.buckets[index] = 1;
        let points = vec![DurationsPoint { attributes: Vec::new(), histogram, exemplars: Vec::new() }];
        let points = Points::Durations { points, temporality: Temporality::Delta };
        let made = requests(&[metric("a", points)], MAX_REQUEST_BYTES);
        let json = serde_json::to_value(Json(&made.requests[0])).unwrap();
        let point = &json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["exponentialHistogram"]["dataPoints"]
            [0];
        let offset = point["positive"]["offset"].as_f64().unwrap_or(0.0);
        let (nanos, seconds) = (index as f64 / 4.0, offset / 4.0 + 1e9_f64.log2());
        assert!((nanos - seconds).abs() <= 0.125, "{index}");
        // The middle lies in it.
        assert!(nanos + 0.125 > seconds && nanos + 0.125 <= seconds + 0.25, "{index}");
    }
}

#[test]
fn requests_keep_the_rules_at_any_size() {
    let whole = requests(&metrics(), MAX_REQUEST_BYTES);
    assert_eq!((whole.requests.len(), whole.requests[0].items(), whole.oversized_points), (1, 12, 0));
    for max_bytes in 0..2000 {
        let made = requests(&metrics(), max_bytes);
        let items: u64 = made.requests.iter().map(SignalRequest::items).sum();
        assert_eq!(items + made.oversized_points, 12, "{max_bytes}");
        for request in &made.requests {
            assert!(request.encoded_len() <= max_bytes, "{max_bytes}");
            assert_eq!(check_metrics(request), Ok(()), "{max_bytes}");
        }
    }
}

#[test]
fn json_is_otlps() {
    let made = requests(&metrics(), MAX_REQUEST_BYTES);
    let json = String::from_utf8(made.requests[0].to_json().unwrap()).unwrap();
    for expected in [
        r#""scopeMetrics":[{"scope":{"name":"descry","version":"1.2.3"},"metrics":[{"name":"http.server.request.duration","#,
        r#""unit":"s","exponentialHistogram":{"dataPoints":[{"attributes":[{"key":"http.request.method","value":"#,
        r#""count":"3","sum":0.004001501,"scale":2,"positive":{"offset":-78,"bucketCounts":["1","#,
        r#""exemplars":[{"timeUnixNano":"1700000010000000000","asDouble":1.5e-6,"spanId":"0202020202020202","#,
        r#""unit":"{request}","sum":{"dataPoints":[{"attributes":[{"key":"cpu.logical_number","value":{"intValue":"0"}}],"#,
        r#""timeUnixNano":"1700000010000000000","asInt":"0"}"#,
        r#""asDouble":0.0}"#,
        r#""aggregationTemporality":2,"isMonotonic":true}"#,
        r#""unit":"By","gauge":{"dataPoints":["#,
    ] {
        assert!(json.contains(expected), "{expected}\nis not in\n{json}");
    }
    let read: ExportMetricsServiceRequest = serde_json::from_str(&json).unwrap();
    assert_eq!(read, made.requests[0]);
}
