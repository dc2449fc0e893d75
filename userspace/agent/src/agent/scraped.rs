//! Metrics of requests, of the service graph and of TCP as Prometheus scrapes them: counters and classic histograms.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use descry_abi::histogram::{Histogram, SCALE};
use descry_assemble::span::{Attribute, Value};
use descry_export::otlp::metrics::{Metric, Number, Points, ProcessMetrics};
use descry_process::{AttributeValue, Attributes};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

/// Bounds of the buckets: 2^13 ns (8.2 us) to 2^36 ns (69 s). Powers of two are bounds of the exponential histograms too, so
/// that no duration is counted in the wrong bucket.
const BOUNDS: RangeInclusive<u32> = 13..=36;
/// Attributes of a process that are labels, as other metrics of processes have them.
const OF_PROCESS: [&str; 3] = ["process.pid", "service.name", "process.executable.name"];

/// What Prometheus gets. It is as old as the last window.
#[derive(Debug, Default)]
pub struct Scraped(Mutex<BTreeMap<String, Family>>);

type Labels = Vec<(String, String)>;

/// A metric with all of its series: the text has each once.
#[derive(Debug)]
struct Family {
    help: String,
    kind: MetricType,
    series: Vec<(Labels, Point)>,
}

#[derive(Debug)]
enum Point {
    Count(u64),
    Durations {
        /// Seconds.
        sum: f64,
        count: u64,
        /// The upper bound of each bucket (s), and how many are in it.
        buckets: Vec<(f64, u64)>,
    },
}

impl Scraped {
    /// What there is from now on, counted since the beginning: of each process, and of the node.
    pub fn set(&self, processes: &[ProcessMetrics<'_>], node: &[Metric]) {
        let mut families = BTreeMap::new();
        for process in processes {
            let labels = of_process(process.resource);
            process.metrics.iter().for_each(|metric| add(&mut families, metric, &labels));
        }
        node.iter().for_each(|metric| add(&mut families, metric, &[]));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = families;
    }

    /// Writes them.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in families.iter() {
            let unit = matches!(family.kind, MetricType::Histogram).then_some(&Unit::Seconds);
            let mut metric = encoder.encode_descriptor(name, &family.help, unit, family.kind)?;
            for (labels, point) in &family.series {
                let mut metric = metric.encode_family(labels)?;
                match point {
                    Point::Count(count) => ConstCounter::new(*count).encode(metric)?,
                    Point::Durations { sum, count, buckets } => {
                        metric.encode_histogram::<Labels>(*sum, *count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Adds the points of a metric. Nothing of what is told here goes up and down.
fn add(families: &mut BTreeMap<String, Family>, metric: &Metric, of_process: &[(String, String)]) {
    let labels = |attributes: &[Attribute]| {
        let own = attributes.iter().map(|(name, value)| (label(name), text(value)));
        of_process.iter().cloned().chain(own).collect()
    };
    let (kind, points): (_, Vec<(Labels, Point)>) = match &metric.points {
        Points::Gauge { .. } => return,
        Points::Sum { points, .. } => {
            let count = |number| match number {
                Number::Int(count) => u64::try_from(count).unwrap_or_default(),
                Number::Double(count) => count as u64,
            };
            let points = points.iter().map(|it| (labels(&it.attributes), Point::Count(count(it.value))));
            (MetricType::Counter, points.collect())
        }
        Points::Durations { points, .. } => {
            let points = points.iter().map(|it| (labels(&it.attributes), Point::of(&it.histogram)));
            (MetricType::Histogram, points.collect())
        }
    };
    // The library ends the name of a counter itself, and the help with a full stop.
    let name = label(metric.name.strip_suffix("_total").unwrap_or(&metric.name));
    let help = metric.description.trim_end_matches('.');
    let family = families.entry(name);
    let family = family.or_insert_with(|| Family { help: help.to_owned(), kind, series: Vec::new() });
    family.series.extend(points);
}

impl Point {
    fn of(histogram: &Histogram) -> Self {
        Self::Durations {
            sum: histogram.sum as f64 / 1e9,
            count: histogram.count,
            buckets: buckets(histogram),
        }
    }
}

fn of_process(resource: &Attributes) -> Labels {
    let wanted = resource.iter().filter(|(name, _)| OF_PROCESS.contains(&&**name));
    let labels = wanted.map(|(name, value)| {
        let value = match value {
            AttributeValue::Text(text) => text.clone(),
            AttributeValue::Int(number) => number.to_string(),
            AttributeValue::List(texts) => texts.join(" "),
        };
        (label(name), value)
    });
    labels.collect()
}

/// OpenTelemetry's name of an attribute as Prometheus has it.
fn label(name: &str) -> String {
    name.replace('.', "_")
}

fn text(value: &Value) -> String {
    match value {
        Value::Static(text) => (*text).to_owned(),
        Value::Text(text) => text.to_string(),
        Value::Shared(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(is_so) => is_so.to_string(),
        Value::Texts(texts) => texts.join(" "),
    }
}

/// The upper bound of each bucket (s), and how many are in it. The last has no bound.
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut counts = histogram.buckets.iter();
    let mut below = 0;
    let bounded = BOUNDS.map(|doubling| {
        // What is below the first bound is in its bucket.
        let number = (doubling << SCALE) - below;
        below = doubling << SCALE;
        let count = counts.by_ref().take(number as usize).sum();
        ((1_u64 << doubling) as f64 / 1e9, count)
    });
    let mut buckets: Vec<(f64, u64)> = bounded.collect();
    buckets.push((f64::INFINITY, counts.sum()));
    buckets
}

#[cfg(test)]
mod tests {
    use descry_aggregate::histogram::record;

    use super::*;

    #[test]
    fn every_duration_is_below_the_bound_of_its_bucket_and_above_the_one_before() {
        let durations =
            [0, 1, 8192, 8193, 1_000_000, 1 << 20, (1 << 20) + 1, 1 << 36, (1 << 36) + 1, u64::MAX];
        for duration in durations {
            let mut histogram = Histogram::default();
            record(&mut histogram, duration);
            let buckets = buckets(&histogram);
            assert_eq!(buckets.len(), 25);
            let place = buckets.iter().position(|(_, count)| *count == 1).expect("one has it");
            let seconds = duration as f64 / 1e9;
            assert!(seconds <= buckets[place].0, "{duration}");
            assert!(place == 0 || seconds > buckets[place - 1].0, "{duration}");
        }
    }
}
