//! How metrics are told, from the variables of the specification that are of no other signal.

use std::time::Duration;

use super::error::SettingsError;
use crate::otlp::metrics::Temporality;

/// The specification's default for `OTEL_METRIC_EXPORT_INTERVAL`.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// A longer interval is a mistake of units.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";

/// How metrics are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricSettings {
    /// Whether they are to be sent at all.
    pub are_wanted: bool,
    /// What sums and histograms are counted from.
    pub temporality: Temporality,
    /// The time between two exports.
    pub interval: Duration,
}

impl MetricSettings {
    /// Reads `OTEL_METRICS_EXPORTER` (`otlp` or `none`), `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` (`cumulative`,
    /// the default, `delta`, or `lowmemory`, which is delta for all that descry measures) and
    /// `OTEL_METRIC_EXPORT_INTERVAL` (ms). `env` gives a variable's value; an empty value counts as unset.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] names the variable with a value that means nothing.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let find = |variable: &str| env(variable).map(|value| value.trim().to_ascii_lowercase());
        let find = |variable| find(variable).filter(|value| !value.is_empty());
        let invalid = |variable: &str, value: &str, remedy| {
            let reason = format!("{value:?} means nothing");
            Err(SettingsError::Invalid { variable: variable.to_owned(), reason, remedy })
        };
        let are_wanted = match find(EXPORTER).as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(other) => return invalid(EXPORTER, other, "write otlp or none"),
        };
        let temporality = match find(TEMPORALITY).as_deref() {
            None | Some("cumulative") => Temporality::Cumulative,
            Some("delta" | "lowmemory") => Temporality::Delta,
            Some(other) => return invalid(TEMPORALITY, other, "write cumulative, delta or lowmemory"),
        };
        let interval = match find(INTERVAL) {
            None => DEFAULT_INTERVAL,
            Some(text) => match text.parse().map(Duration::from_millis) {
                Ok(interval) if !interval.is_zero() && interval <= LONGEST_INTERVAL => interval,
                _ => {
                    let remedy = "write whole milliseconds, from 1 to 86400000 (a day), without a unit";
                    return invalid(INTERVAL, &text, remedy);
                }
            },
        };
        Ok(Self { are_wanted, temporality, interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<(bool, Temporality, u64), String> {
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, it)| (*it).to_owned());
        let settings = MetricSettings::from_env(value).map_err(|error| error.to_string())?;
        Ok((settings.are_wanted, settings.temporality, settings.interval.as_millis() as u64))
    }

    #[test]
    fn variables_mean_what_the_specification_says() {
        let (cumulative, delta) = (Temporality::Cumulative, Temporality::Delta);
        assert_eq!(read(&[]), Ok((true, cumulative, 60_000)));
        assert_eq!(read(&[(EXPORTER, "none"), (TEMPORALITY, " ")]), Ok((false, cumulative, 60_000)));
        assert_eq!(read(&[(TEMPORALITY, "Delta"), (INTERVAL, "250")]), Ok((true, delta, 250)));
        assert_eq!(read(&[(EXPORTER, "otlp"), (TEMPORALITY, "lowmemory")]), Ok((true, delta, 60_000)));
    }

    #[test]
    fn values_that_mean_nothing_are_named() {
        for (variable, value, remedy) in [
            (EXPORTER, "prometheus", "write otlp or none"),
            (TEMPORALITY, "both", "write cumulative, delta or lowmemory"),
            (INTERVAL, "0", "write whole milliseconds, from 1 to 86400000 (a day), without a unit"),
            (INTERVAL, "1s", "write whole milliseconds, from 1 to 86400000 (a day), without a unit"),
        ] {
            let message = format!("{variable} is invalid: {value:?} means nothing; {remedy}");
            assert_eq!(read(&[(variable, value)]), Err(message));
        }
    }
}
