//! What was counted and timed, as OTLP metrics (`opentelemetry.proto.metrics.v1`).
//!
//! Give [`metrics_requests`] the metrics of each process; get export requests under a size, with one `ResourceMetrics`
//! a process and request. It does no I/O and reads no clock.
//!
//! # Durations
//!
//! Histograms of durations are counted in nanoseconds ([`descry_abi::histogram`]), and the semantic conventions want
//! seconds. With base 2^(1/4), a factor of 10^9 is 4 log2(10^9) = 119.589 buckets, which is no whole number. So each
//! bucket becomes the one of seconds that holds its middle (geometric mean), whose ends lie 0.41 of a bucket (7 %) below:
//!
//! ```text
//! bucket i holds    2^(i/4) < d <= 2^((i+1)/4) ns
//! its middle        2^((i + 0.5)/4) ns = 2^((i + 0.5 - 119.589)/4) s
//! lies in bucket    floor(i + 0.5 - 119.589) = i - 120, of seconds
//! ```
//!
//! Count, sum and maximum are exact. Bucket 0 holds durations of 0 and 1 ns; they are those "near zero", with a
//! threshold of 1 ns. The shortest duration is not known. The last bucket holds everything that is longer, too.

use std::borrow::Cow;

use descry_abi::histogram::{Histogram, SCALE};
pub use descry_aggregate::request::{Exemplar, Temporality};
use descry_assemble::span::Attribute;
use descry_decode::ids::UnixNanos;
use descry_process::Attributes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    self as message, AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, number_data_point,
};
use prost::Message;

use super::OtlpOptions;
use super::attributes::{key_values, resource, scope};

/// From a bucket of nanoseconds to one of seconds: floor(0.5 - 4 log2(10^9)).
const SECONDS_SHIFT: i32 = -120;
/// Durations up to this count as zero (s): all that bucket 0 holds.
const ZERO_THRESHOLD: f64 = 1e-9;
const NANOS_A_SECOND: f64 = 1e9;

/// Most bytes of the keys and lengths around a message that holds others: its own, and those of the two above it.
const AROUND: usize = 3 * (1 + 5);

/// From when to when something was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// When the counting began: for [`Temporality::Delta`] the end of the interval before.
    pub start: UnixNanos,
    /// When it was read.
    pub end: UnixNanos,
}

/// The metrics of a process.
#[derive(Clone, Debug)]
pub struct ProcessMetrics<'a> {
    /// The process.
    pub resource: &'a Attributes,
    /// What was measured; no name twice.
    pub metrics: Vec<Metric>,
}

/// A metric with its points.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name in the semantic conventions.
    pub name: Cow<'static, str>,
    /// What it measures, in a sentence.
    pub description: Cow<'static, str>,
    /// The numbers.
    pub points: Points,
}

/// Points of one kind; no two of a metric with equal attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum Points {
    /// How much it is now.
    Gauge {
        /// The unit of the numbers (UCUM: `1`, `By`).
        unit: Cow<'static, str>,
        /// The numbers.
        points: Vec<NumberPoint>,
    },
    /// What adds up.
    Sum {
        /// The unit of the numbers (UCUM: `{request}`, `By`).
        unit: Cow<'static, str>,
        /// The sums.
        points: Vec<NumberPoint>,
        /// Whether it never becomes less.
        monotonic: bool,
        /// Since when.
        temporality: Temporality,
    },
    /// How long something took; told in seconds.
    Durations {
        /// The histograms.
        points: Vec<DurationsPoint>,
        /// Since when.
        temporality: Temporality,
    },
}

impl Points {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Gauge { points, .. } | Self::Sum { points, .. } => points.is_empty(),
            Self::Durations { points, .. } => points.is_empty(),
        }
    }
}

/// A number with what it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberPoint {
    /// What tells it from the metric's other points; no name twice.
    pub attributes: Vec<Attribute>,
    /// The number.
    pub value: Number,
}

/// A number of either kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole one.
    Int(i64),
    /// Any.
    Double(f64),
}

/// Durations with what they belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationsPoint {
    /// What tells it from the metric's other points; no name twice.
    pub attributes: Vec<Attribute>,
    /// The durations (ns).
    pub histogram: Histogram,
    /// Some of them, with the spans that they are of.
    pub exemplars: Vec<Exemplar>,
}

/// Metrics as export requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRequests {
    /// The requests, each under the limit.
    pub requests: Vec<ExportMetricsServiceRequest>,
    /// Points that were left out, because one alone with its Resource is over the limit.
    pub oversized_points: u64,
}

/// Requests of at most `max_bytes` (protobuf, before compression) that hold every point once.
pub fn metrics_requests(
    processes: &[ProcessMetrics<'_>],
    interval: Interval,
    options: &OtlpOptions,
    max_bytes: usize,
) -> MetricsRequests {
    let mut packer = Packer { max_bytes, ..Packer::default() };
    for process in processes {
        let head = ResourceMetrics {
            resource: Some(resource(process.resource)),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope(options)), ..ScopeMetrics::default() }],
            schema_url: String::new(),
        };
        packer.begin_process(head);
        for metric in &process.metrics {
            packer.metric(metric, interval);
        }
    }
    packer.finish()
}

/// Fills requests up to the limit.
#[derive(Debug, Default)]
struct Packer {
    max_bytes: usize,
    /// The process at hand, without metrics, and what it takes.
    process: ResourceMetrics,
    process_len: usize,
    /// The request at hand and what it takes at most.
    open: Vec<ResourceMetrics>,
    len: usize,
    /// Whether the last one of `open` is the process at hand.
    is_open: bool,
    done: MetricsRequests,
}

impl Packer {
    fn begin_process(&mut self, process: ResourceMetrics) {
        self.process_len = process.encoded_len() + AROUND;
        self.process = process;
        self.is_open = false;
    }

    fn metric(&mut self, metric: &Metric, interval: Interval) {
        match &metric.points {
            Points::Gauge { points, .. } => {
                let points = points.iter().map(|point| number_point(point, interval.end, None));
                self.points(metric, points, |data_points| Data::Gauge(Gauge { data_points }));
            }
            Points::Sum { points, monotonic, temporality, .. } => {
                let points =
                    points.iter().map(|point| number_point(point, interval.end, Some(interval.start)));
                self.points(metric, points, |data_points| {
                    let aggregation_temporality = wire_temporality(*temporality);
                    Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: *monotonic })
                });
            }
            Points::Durations { points, temporality } => {
                let points = points.iter().map(|point| durations_point(point, interval));
                self.points(metric, points, |data_points| {
                    let aggregation_temporality = wire_temporality(*temporality);
                    Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
                });
            }
        }
    }

    /// Adds a metric's points; `data` makes its content of them.
    fn points<P: Message>(
        &mut self,
        metric: &Metric,
        points: impl Iterator<Item = P>,
        data: impl Fn(Vec<P>) -> Data,
    ) {
        let head = message::Metric {
            name: metric.name.to_string(),
            description: metric.description.to_string(),
            unit: match &metric.points {
                Points::Durations { .. } => "s".to_owned(),
                Points::Gauge { unit, .. } | Points::Sum { unit, .. } => unit.to_string(),
            },
            ..message::Metric::default()
        };
        // The data has two fields of two bytes at most beside its points.
        let head_len = head.encoded_len() + AROUND + 4;
        let mut fitting = Vec::new();
        for point in points {
            let len = point.encoded_len() + AROUND;
            if self.process_len + head_len + len > self.max_bytes {
                self.done.oversized_points += 1;
                continue;
            }
            let with_head = if fitting.is_empty() { head_len } else { 0 };
            let with_process = if self.is_open { 0 } else { self.process_len };
            if self.len + with_process + with_head + len > self.max_bytes {
                self.close_metric(&head, &mut fitting, &data);
                self.close_request();
            }
            if !self.is_open {
                self.open.push(self.process.clone());
                self.len += self.process_len;
                self.is_open = true;
            }
            if fitting.is_empty() {
                self.len += head_len;
            }
            self.len += len;
            fitting.push(point);
        }
        self.close_metric(&head, &mut fitting, &data);
    }

    fn close_metric<P>(
        &mut self,
        head: &message::Metric,
        points: &mut Vec<P>,
        data: &impl Fn(Vec<P>) -> Data,
    ) {
        let scope = self.open.last_mut().and_then(|process| process.scope_metrics.last_mut());
        if let Some(scope) = scope.filter(|_| !points.is_empty()) {
            let data = Some(data(std::mem::take(points)));
            scope.metrics.push(message::Metric { data, ..head.clone() });
        }
    }

    fn close_request(&mut self) {
        if !self.open.is_empty() {
            let resource_metrics = std::mem::take(&mut self.open);
            self.done.requests.push(ExportMetricsServiceRequest { resource_metrics });
        }
        self.len = 0;
        self.is_open = false;
    }

    fn finish(mut self) -> MetricsRequests {
        self.close_request();
        self.done
    }
}

fn wire_temporality(temporality: Temporality) -> i32 {
    match temporality {
        Temporality::Delta => AggregationTemporality::Delta.into(),
        Temporality::Cumulative => AggregationTemporality::Cumulative.into(),
    }
}

fn number_point(point: &NumberPoint, time: UnixNanos, start: Option<UnixNanos>) -> NumberDataPoint {
    NumberDataPoint {
        attributes: key_values(&point.attributes),
        start_time_unix_nano: start.map_or(0, |start| start.0),
        time_unix_nano: time.0,
        value: Some(match point.value {
            Number::Int(number) => number_data_point::Value::AsInt(number),
            Number::Double(number) => number_data_point::Value::AsDouble(number),
        }),
        ..NumberDataPoint::default()
    }
}

fn durations_point(point: &DurationsPoint, interval: Interval) -> ExponentialHistogramDataPoint {
    let histogram = &point.histogram;
    // The buckets and not `count`: a program on another CPU may have been between the two when they were read.
    let count = histogram.buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let (zero_count, positive) = match histogram.buckets.split_first() {
        Some((first, others)) => (*first, buckets(others, SECONDS_SHIFT + 1)),
        None => (0, None),
    };
    ExponentialHistogramDataPoint {
        attributes: key_values(&point.attributes),
        start_time_unix_nano: interval.start.0,
        time_unix_nano: interval.end.0,
        count,
        sum: Some(seconds(histogram.sum)),
        scale: SCALE.cast_signed(),
        zero_count,
        positive,
        exemplars: point.exemplars.iter().map(exemplar).collect(),
        max: (count > 0).then(|| seconds(histogram.max)),
        zero_threshold: ZERO_THRESHOLD,
        ..ExponentialHistogramDataPoint::default()
    }
}

/// The buckets from the first to the last that are not empty; `offset` is the index of `counts`' first.
fn buckets(counts: &[u64], offset: i32) -> Option<Buckets> {
    let first = counts.iter().position(|count| *count > 0)?;
    let last = counts.iter().rposition(|count| *count > 0)?;
    let bucket_counts = counts.get(first..=last)?.to_vec();
    Some(Buckets { offset: offset + i32::try_from(first).ok()?, bucket_counts })
}

fn exemplar(exemplar: &Exemplar) -> message::Exemplar {
    message::Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.time.0,
        span_id: exemplar.span.0.to_vec(),
        trace_id: exemplar.trace.0.to_vec(),
        value: Some(exemplar::Value::AsDouble(seconds(exemplar.duration))),
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_A_SECOND
}
