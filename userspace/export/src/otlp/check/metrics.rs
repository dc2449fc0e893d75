//! The rules of metrics.

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogramDataPoint, Metric, NumberDataPoint,
};
use opentelemetry_proto::tonic::profiles::v1development::ProfilesDictionary;
use prost::Message;

use super::traces::{check_ids, check_resource, check_times};
use super::{Found, Rule, Violation, check_key_values};

/// Whether a request with gauges, sums and exponential histograms (what descry sends) keeps every [`Rule`] that is
/// about them.
///
/// # Errors
///
/// All violations, in the order in which they stand in the message.
pub fn check_metrics(request: &ExportMetricsServiceRequest) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let mut resources = Vec::new();
    for (index, resource_metrics) in request.resource_metrics.iter().enumerate() {
        let at = format!("resource_metrics[{index}]");
        check_resource(resource_metrics.resource.as_ref(), &mut resources, &at, &mut found);
        if resource_metrics.scope_metrics.is_empty() {
            found.add(Rule::NotEmpty, &at, "has no scope_metrics");
        }
        for (index, scope) in resource_metrics.scope_metrics.iter().enumerate() {
            let at = format!("{at}.scope_metrics[{index}]");
            if scope.metrics.is_empty() {
                found.add(Rule::NotEmpty, &at, "has no metrics");
            }
            let mut names = HashSet::new();
            for (index, metric) in scope.metrics.iter().enumerate() {
                let at = format!("{at}.metrics[{index}]");
                if metric.name.is_empty() || !names.insert(&metric.name) {
                    found.add(Rule::MetricNamed, &at, format!("has the name {:?}", metric.name));
                }
                check_metric(metric, &at, &mut found);
            }
        }
    }
    found.result()
}

fn check_metric(metric: &Metric, at: &str, found: &mut Found) {
    match &metric.data {
        Some(Data::Gauge(gauge)) => check_numbers(&gauge.data_points, at, false, found),
        Some(Data::Sum(sum)) => {
            check_temporality(sum.aggregation_temporality, at, found);
            check_numbers(&sum.data_points, at, true, found);
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            check_temporality(histogram.aggregation_temporality, at, found);
            check_points(&histogram.data_points, |point| &point.attributes, at, found);
            for (index, point) in histogram.data_points.iter().enumerate() {
                check_histogram(point, &format!("{at}.data_points[{index}]"), found);
            }
        }
        other => found.add(Rule::MetricNamed, at, format!("has the data {other:?}")),
    }
}

fn check_temporality(temporality: i32, at: &str, found: &mut Found) {
    if AggregationTemporality::try_from(temporality)
        .is_ok_and(|temporality| temporality == AggregationTemporality::Unspecified)
    {
        found.add(Rule::Temporality, at, "has none");
    }
}

/// What is true of points of every kind.
fn check_points<P>(points: &[P], attributes: fn(&P) -> &Vec<KeyValue>, at: &str, found: &mut Found) {
    if points.is_empty() {
        found.add(Rule::NotEmpty, at, "has no points");
    }
    let mut identities = HashSet::new();
    for (index, point) in points.iter().enumerate() {
        let at = format!("{at}.data_points[{index}]");
        let attributes = attributes(point);
        check_key_values(attributes, &ProfilesDictionary::default(), &at, found);
        let mut identity: Vec<Vec<u8>> = attributes.iter().map(Message::encode_to_vec).collect();
        identity.sort_unstable();
        if !identities.insert(identity) {
            found.add(Rule::PointIdentity, &at, "has the attributes of one before it");
        }
    }
}

fn check_numbers(points: &[NumberDataPoint], at: &str, has_start: bool, found: &mut Found) {
    check_points(points, |point| &point.attributes, at, found);
    for (index, point) in points.iter().enumerate() {
        let at = format!("{at}.data_points[{index}]");
        let end = point.time_unix_nano;
        check_times(if has_start { point.start_time_unix_nano } else { end }, end, &at, found);
        if point.value.is_none() {
            found.add(Rule::PointValue, &at, "has none");
        }
        check_exemplars(&point.exemplars, &at, found);
    }
}

fn check_histogram(point: &ExponentialHistogramDataPoint, at: &str, found: &mut Found) {
    check_times(point.start_time_unix_nano, point.time_unix_nano, at, found);
    check_exemplars(&point.exemplars, at, found);
    let sides = [&point.positive, &point.negative];
    let counts = sides.into_iter().flatten().flat_map(|buckets| &buckets.bucket_counts);
    let sum = counts.fold(point.zero_count, |sum, count| sum.saturating_add(*count));
    if sum != point.count {
        found.add(Rule::BucketCounts, at, format!("{sum} in buckets, the count is {}", point.count));
    }
    let ends =
        |buckets: &Buckets| [buckets.bucket_counts.first().copied(), buckets.bucket_counts.last().copied()];
    for buckets in sides.into_iter().flatten() {
        if ends(buckets).iter().any(|end| end.unwrap_or(0) == 0) {
            found.add(Rule::BucketCounts, at, "begins or ends with an empty bucket");
        }
    }
    if point.count > 0 && point.sum.is_none() {
        found.add(Rule::PointValue, at, "has no sum");
    }
}

fn check_exemplars(exemplars: &[Exemplar], at: &str, found: &mut Found) {
    for (index, exemplar) in exemplars.iter().enumerate() {
        let at = format!("{at}.exemplars[{index}]");
        check_ids(&exemplar.trace_id, &exemplar.span_id, &at, found);
        if exemplar.value.is_none() || exemplar.time_unix_nano == 0 {
            found.add(Rule::PointValue, &at, "has no number or no time");
        }
    }
}
