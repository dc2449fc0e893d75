//! Where the metrics of `descry requests` go: to the endpoint, every minute and at the end.

use std::time::Instant;

use anyhow::Context;
use descry_aggregate::request::Temporality;
use descry_export::otlp::metrics::MetricsRequests;
use descry_export::send::{Background, Endpoint, MetricSettings, Outcome, SettingsError};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::failure::Failure;
use crate::output;

/// Requests that may wait to be sent, and as many again are under way: 64 MiB at most.
const QUEUE: usize = 8;

/// Sends metrics.
pub struct MetricSink {
    settings: MetricSettings,
    endpoint: Endpoint,
    sender: Background<ExportMetricsServiceRequest>,
    last: Instant,
}

impl MetricSink {
    /// Sends where the option or the environment names an endpoint; none: nowhere.
    ///
    /// # Errors
    /// Settings that make no sense, or what the system refuses.
    pub fn open(endpoint: Option<&str>) -> Result<Option<Self>, Failure> {
        let settings = MetricSettings::from_env(|name| std::env::var(name).ok());
        let settings = settings.map_err(|error: SettingsError| Failure::Usage(error.to_string()))?;
        if !settings.are_wanted {
            return Ok(None);
        }
        let Some(sender) = output::sender(endpoint)? else { return Ok(None) };
        let endpoint = sender.settings().endpoint.clone();
        let sender = Background::start(sender, QUEUE).context("cannot send")?;
        Ok(Some(Self { settings, endpoint, sender, last: Instant::now() }))
    }

    /// What sums are counted from.
    pub fn temporality(&self) -> Temporality {
        self.settings.temporality
    }

    /// Whether it is time to tell again.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= self.settings.interval
    }

    /// Sends.
    pub fn push(&mut self, metrics: MetricsRequests) {
        self.last = Instant::now();
        metrics.requests.into_iter().for_each(|request| self.sender.push(request));
    }

    /// Sends what waits; what became of all.
    pub fn finish(self) -> (Endpoint, Outcome) {
        (self.endpoint, self.sender.finish())
    }
}
