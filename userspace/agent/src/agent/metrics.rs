//! Counters, queues, processes and requests in the text form that Prometheus scrapes (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;

use descry_export::queue::Account;
use descry_telemetry::{Counters, ProcessUsage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::destinations::Destinations;
use super::processes::{Processes, Row};
use super::scraped::Scraped;

/// Everything that can be scraped.
#[derive(Debug)]
pub struct Metrics(Registry);

/// Where it comes from. It is read when it is asked for.
#[derive(Debug)]
pub struct Sources {
    /// Of every stage.
    pub counters: Counters,
    /// What became of what was sent to each.
    pub destinations: Arc<Destinations>,
    /// Those that had samples lately.
    pub processes: Arc<Processes>,
    /// Requests, the service graph and TCP.
    pub scraped: Arc<Scraped>,
}

type Labels = Vec<(&'static str, String)>;

impl Metrics {
    /// The media type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// From these sources.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// All of it now.
    ///
    /// # Errors
    /// If a value has no text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for reading in self.counters.snapshot() {
            let name = reading.name.replace('.', "_");
            let metric =
                encoder.encode_descriptor(&name, sentence(reading.help), None, MetricType::Counter)?;
            ConstCounter::new(reading.value).encode(metric)?;
        }
        if let Ok(usage) = ProcessUsage::now() {
            let name = "descry_cpu_seconds";
            let metric =
                encoder.encode_descriptor(name, "CPU time of descry itself", None, MetricType::Counter)?;
            ConstCounter::new(usage.cpu_ns as f64 / 1e9).encode(metric)?;
            let help = "The most memory of descry that was resident at once";
            let metric =
                encoder.encode_descriptor("descry_peak_memory_bytes", help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(usage.peak_rss_bytes).unwrap_or(i64::MAX)).encode(metric)?;
        }
        destinations(&mut encoder, &self.destinations.accounts())?;
        processes(&mut encoder, &self.processes.rows())?;
        self.scraped.encode(&mut encoder)
    }
}

/// The library ends it with a full stop itself.
fn sentence(help: &str) -> &str {
    help.trim().trim_end_matches('.')
}

fn destinations(encoder: &mut DescriptorEncoder<'_>, accounts: &[(String, Account)]) -> fmt::Result {
    type Get = fn(&Account) -> u64;
    let counters: [(&str, &str, Get); 6] = [
        ("descry_destination_queued_items", "Items given to the destination", |it| it.queued + it.restored),
        ("descry_destination_sent_items", "Items that the receiver acknowledged", |it| it.sent),
        ("descry_destination_rejected_items", "Of those, items that it said it rejected", |it| it.rejected),
        ("descry_destination_spooled_items", "Items that were written to the spool", |it| it.spooled),
        ("descry_destination_retries", "Attempts after the first of a request", |it| it.retries),
        ("descry_destination_circuits_opened", "Times that an endpoint was left alone", |it| {
            it.circuits_opened
        }),
    ];
    for (name, help, get) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (destination, account) in accounts {
            counter(&mut metric, &vec![("destination", destination.clone())], get(account))?;
        }
    }
    let help = "Items that were given up";
    let mut metric =
        encoder.encode_descriptor("descry_destination_dropped_items", help, None, MetricType::Counter)?;
    for (destination, account) in accounts {
        for (reason, items) in &account.dropped {
            let labels = vec![("destination", destination.clone()), ("reason", (*reason).to_owned())];
            counter(&mut metric, &labels, *items)?;
        }
    }
    let gauges: [(&str, &str, Get); 3] = [
        ("descry_destination_waiting_items", "Items that wait", |it| it.waiting),
        ("descry_destination_waiting_bytes", "Bytes that wait in memory", |it| it.waiting_bytes),
        ("descry_destination_spool_bytes", "Bytes of the spool", |it| it.spool_bytes),
    ];
    for (name, help, get) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (destination, account) in accounts {
            gauge(&mut metric, &vec![("destination", destination.clone())], get(account))?;
        }
    }
    Ok(())
}

fn processes(encoder: &mut DescriptorEncoder<'_>, rows: &[Row]) -> fmt::Result {
    let labels = |row: &Row| -> Labels {
        vec![
            ("process_pid", row.tgid.to_string()),
            ("service_name", row.service.clone()),
            ("process_executable_name", row.executable.clone()),
        ]
    };
    let help = "CPU time of a watched process";
    let mut metric =
        encoder.encode_descriptor("process_cpu_time_seconds", help, None, MetricType::Counter)?;
    for row in rows {
        for (mode, time) in ["user", "system"].into_iter().zip(row.cpu) {
            let mut labels = labels(row);
            labels.push(("cpu_mode", mode.to_owned()));
            ConstCounter::new(time.as_secs_f64()).encode(metric.encode_family(&labels)?)?;
        }
    }
    let help = "Memory of a watched process that is present";
    let mut metric =
        encoder.encode_descriptor("process_memory_usage_bytes", help, None, MetricType::Gauge)?;
    for row in rows {
        gauge(&mut metric, &labels(row), row.resident)?;
    }
    let help = "Address space of a watched process";
    let mut metric =
        encoder.encode_descriptor("process_memory_virtual_bytes", help, None, MetricType::Gauge)?;
    for row in rows {
        gauge(&mut metric, &labels(row), row.virtual_bytes)?;
    }
    Ok(())
}

fn counter(metric: &mut MetricEncoder<'_>, labels: &Labels, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(metric.encode_family(labels)?)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &Labels, value: u64) -> fmt::Result {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric.encode_family(labels)?)
}
