//! Traced functions as OTLP metrics.
//!
//! OpenTelemetry's semantic conventions name functions, but no metrics of them, so descry has its own:
//!
//! | what | name |
//! |---|---|
//! | how long calls took (exponential histogram, `s`) | `descry.function.duration` |
//! | calls that ended in another way than by returning (sum, `{call}`) | `descry.function.unfinished` |
//! | the function | `code.function.name` |
//! | the binary that it is in | `descry.function.file` |

use std::borrow::Cow;
use std::sync::Arc;

use descry_abi::histogram::Histogram;
use descry_assemble::span::{Attribute, Value};

use crate::otlp::metrics::{DurationsPoint, Metric, Number, NumberPoint, Points, Temporality};

/// What the calls of a function in a process add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSums {
    /// Its readable name.
    pub name: Arc<str>,
    /// The path of its file.
    pub file: Arc<str>,
    /// Durations of the calls that returned.
    pub durations: Histogram,
    /// Calls that ended in another way.
    pub unfinished: u64,
}

/// The metrics of a process; `temporality`: what the sums are counted from.
pub fn metrics(functions: &[FunctionSums], temporality: Temporality) -> Vec<Metric> {
    let durations = functions.iter().filter(|it| it.durations.count > 0).map(|it| DurationsPoint {
        attributes: attributes(it),
        histogram: it.durations,
        exemplars: Vec::new(),
    });
    let unfinished = functions.iter().filter(|it| it.unfinished > 0).map(|it| NumberPoint {
        attributes: attributes(it),
        value: Number::Int(i64::try_from(it.unfinished).unwrap_or(i64::MAX)),
    });
    let durations = Metric {
        name: Cow::Borrowed("descry.function.duration"),
        description: Cow::Borrowed("How long calls of functions took that returned."),
        points: Points::Durations { points: durations.collect(), temporality },
    };
    let unfinished = Metric {
        name: Cow::Borrowed("descry.function.unfinished"),
        description: Cow::Borrowed("Calls of functions that ended in another way than by returning."),
        points: Points::Sum {
            unit: Cow::Borrowed("{call}"),
            points: unfinished.collect(),
            monotonic: true,
            temporality,
        },
    };
    [durations, unfinished].into_iter().filter(|metric| !metric.points.is_empty()).collect()
}

fn attributes(function: &FunctionSums) -> Vec<Attribute> {
    vec![
        (Cow::Borrowed("code.function.name"), Value::Shared(Arc::clone(&function.name))),
        (Cow::Borrowed("descry.function.file"), Value::Shared(Arc::clone(&function.file))),
    ]
}

#[cfg(test)]
mod tests {
    use descry_aggregate::histogram::record;

    use super::*;

    #[test]
    fn what_did_not_happen_has_no_point() {
        let sums = |name: &str, calls: &[u64], unfinished| {
            let mut durations = Histogram::default();
            calls.iter().for_each(|nanos| record(&mut durations, *nanos));
            FunctionSums { name: name.into(), file: "/bin/shop".into(), durations, unfinished }
        };
        let made = metrics(&[sums("a", &[5, 7], 0), sums("b", &[], 2)], Temporality::Cumulative);
        let shown: Vec<_> = made
            .iter()
            .map(|metric| match &metric.points {
                Points::Durations { points, .. } => {
                    let count = points.iter().map(|point| point.histogram.count).sum::<u64>();
                    (&*metric.name, points.len(), count)
                }
                Points::Sum { points, .. } => match points.as_slice() {
                    [NumberPoint { value: Number::Int(value), .. }] => (&*metric.name, 1, *value as u64),
                    _ => (&*metric.name, points.len(), 0),
                },
                Points::Gauge { .. } => ("", 0, 0),
            })
            .collect();
        assert_eq!(shown, [("descry.function.duration", 1, 2), ("descry.function.unfinished", 1, 2)]);
        assert!(metrics(&[], Temporality::Cumulative).is_empty());
    }
}
