//! Requests as Prometheus scrapes them: classic histograms of how long they took.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use descry_abi::histogram::{Histogram, SCALE};
use descry_aggregate::request::{Instrument, Row};
use descry_assemble::span::{Attribute, Value};
use descry_export::span::{SpanProcess, row_attributes};
use descry_process::AttributeValue;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Bounds of the buckets: 2^13 ns (8.2 us) to 2^36 ns (69 s). Powers of two are bounds of the exponential histograms too, so
/// that no duration is counted in the wrong bucket.
const BOUNDS: RangeInclusive<u32> = 13..=36;

/// What Prometheus gets of requests. It is as old as the last window.
#[derive(Debug, Default)]
pub struct Durations(Mutex<Vec<Series>>);

type Labels = Vec<(String, String)>;

/// Requests that have everything in common that their metric tells apart.
#[derive(Debug)]
struct Series {
    instrument: Instrument,
    process: SpanProcess,
    attributes: Vec<Attribute>,
    /// Seconds.
    sum: f64,
    count: u64,
    /// The upper bound of each bucket (s), and how many are in it.
    buckets: Vec<(f64, u64)>,
}

impl Durations {
    /// What there is from now on, counted since the beginning.
    pub fn set<'a>(&self, processes: impl Iterator<Item = (&'a SpanProcess, Vec<Row<'a>>)>) {
        let rows = processes.flat_map(|(process, rows)| rows.into_iter().map(move |row| (process, row)));
        let mut series: Vec<Series> = rows.map(|(process, row)| Series::new(process, &row)).collect();
        // The text has each metric once, with all of its series.
        series.sort_by_key(|series| series.instrument as usize);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = series;
    }

    /// Writes them.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for same in series.chunk_by(|one, other| one.instrument == other.instrument) {
            let Some(Series { instrument, .. }) = same.first() else { continue };
            let name = instrument.name().replace('.', "_");
            let help = instrument.description().trim_end_matches('.');
            let mut metric =
                encoder.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
            for series in same {
                let labels = series.labels();
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_histogram::<Labels>(series.sum, series.count, &series.buckets, None)?;
            }
        }
        Ok(())
    }
}

impl Series {
    fn new(process: &SpanProcess, row: &Row<'_>) -> Self {
        Self {
            instrument: row.instrument,
            process: process.clone(),
            attributes: row_attributes(row),
            sum: row.durations.sum as f64 / 1e9,
            count: row.durations.count,
            buckets: buckets(row.durations),
        }
    }

    /// Those of the process, as other metrics of processes have them, and those of the requests.
    fn labels(&self) -> Labels {
        let of_process = ["process.pid", "service.name", "process.executable.name"];
        let resource = self.process.resource().iter();
        let own = resource.filter(|(name, _)| of_process.contains(&&**name)).map(|(name, value)| {
            let value = match value {
                AttributeValue::Text(text) => text.clone(),
                AttributeValue::Int(number) => number.to_string(),
                AttributeValue::List(texts) => texts.join(" "),
            };
            (label(name), value)
        });
        own.chain(self.attributes.iter().map(|(name, value)| (label(name), text(value)))).collect()
    }
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
