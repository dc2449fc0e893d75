//! descry's own traces, metrics and logs as OTLP (HTTP, protobuf).

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::counter::Counters;
use crate::runtime_client::{self, RuntimeClient, RuntimeThread};

/// The instrumentation scope and the service.
const NAME: &str = "descry";
/// The longest wait at the end when nobody asked for another one.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Exports until it is shut down or dropped; then what is left is sent, within a bound.
#[derive(Debug)]
pub struct OwnTelemetry {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    loggers: SdkLoggerProvider,
    ended: bool,
    // The last field: requests under way need the thread until the providers are gone.
    _thread: RuntimeThread,
}

/// The export of own telemetry cannot begin, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum OwnTelemetryError {
    /// The endpoint is no URL for OTLP over HTTP.
    #[error(
        "the endpoint for descry's own telemetry is unusable: {reason}; write it as http://HOST:4318 or https://HOST:4318"
    )]
    Endpoint {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No thread, no runtime, no TLS.
    #[error("descry's own telemetry cannot run: {source}; check the limits on threads and open files")]
    Start {
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// An exporter refused its configuration.
    #[error(
        "descry's own telemetry cannot start: {source}; check OTEL_EXPORTER_OTLP_HEADERS and its companions"
    )]
    Exporter {
        /// The reason.
        #[source]
        source: ExporterBuildError,
    },
    /// What was left could not be sent in time.
    #[error("the last of descry's own {signal} was not sent: {source}; check that the receiver runs")]
    Shutdown {
        /// Traces, metrics or logs.
        signal: &'static str,
        /// The reason.
        #[source]
        source: opentelemetry_sdk::error::OTelSdkError,
    },
    /// The receiver took longer than it was given.
    #[error("the last of descry's own telemetry was not sent within {bound:?}; check that the receiver runs")]
    TimedOut {
        /// The time that it was given.
        bound: Duration,
    },
}

impl OwnTelemetry {
    /// Exports to the base URL of an OTLP/HTTP receiver: the counters that are registered by now every
    /// minute (or `OTEL_METRIC_EXPORT_INTERVAL`), and what goes through the log layer of
    /// [`crate::logging::init`].
    ///
    /// # Errors
    /// If the URL is unusable, or a thread cannot be had.
    pub fn start(
        endpoint: &str,
        version: &'static str,
        counters: &Counters,
    ) -> Result<Self, OwnTelemetryError> {
        let base = base_url(endpoint)?;
        let (client, thread) =
            runtime_client::start().map_err(|source| OwnTelemetryError::Start { source })?;
        let exporter = |source| OwnTelemetryError::Exporter { source };
        let spans = to(SpanExporter::builder().with_http(), &base, "traces", &client).build();
        let metrics = to(MetricExporter::builder().with_http(), &base, "metrics", &client).build();
        let logs = to(LogExporter::builder().with_http(), &base, "logs", &client).build();
        let version = opentelemetry::KeyValue::new("service.version", version);
        let resource = Resource::builder().with_service_name(NAME).with_attribute(version).build();
        let own = Self {
            tracers: SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_batch_exporter(spans.map_err(exporter)?)
                .build(),
            meters: SdkMeterProvider::builder()
                .with_resource(resource.clone())
                .with_periodic_exporter(metrics.map_err(exporter)?)
                .build(),
            loggers: SdkLoggerProvider::builder()
                .with_resource(resource)
                .with_batch_exporter(logs.map_err(exporter)?)
                .build(),
            ended: false,
            _thread: thread,
        };
        let meter = own.meters.meter(NAME);
        for (name, help, counter) in counters.handles() {
            let observable = meter.u64_observable_counter(name).with_description(help);
            // The provider keeps the callback; the instrument itself is but a handle.
            let _handle =
                observable.with_callback(move |observer| observer.observe(counter.value(), &[])).build();
        }
        Ok(own)
    }

    /// The layer that turns descry's spans and log lines (info and above) into traces and logs.
    /// Those of libraries are left out: the exporters' own would feed on themselves.
    pub(crate) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let spans = tracing_opentelemetry::layer().with_tracer(self.tracers.tracer(NAME));
        let logs = OpenTelemetryTracingBridge::new(&self.loggers);
        let own_modules = Targets::new().with_target(NAME, LevelFilter::INFO);
        spans.and_then(logs).with_filter(own_modules).boxed()
    }

    /// Sends what is left and ends, within `bound` altogether.
    ///
    /// # Errors
    /// The first signal of which something could not be sent.
    pub fn shutdown(mut self, bound: Duration) -> Result<(), OwnTelemetryError> {
        self.end(bound)
    }

    fn end(&mut self, bound: Duration) -> Result<(), OwnTelemetryError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        // The reader of metrics waits five seconds whatever it is told, so the bound is kept from outside.
        let (tracers, meters, loggers) = (self.tracers.clone(), self.meters.clone(), self.loggers.clone());
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("descry-own-end".to_owned());
        let spawned = thread.spawn(move || {
            let error = |signal| move |source| OwnTelemetryError::Shutdown { signal, source };
            // All three are ended, whatever becomes of the first.
            let traces = tracers.shutdown_with_timeout(bound).map_err(error("traces"));
            let metrics = meters.shutdown_with_timeout(bound).map_err(error("metrics"));
            let logs = loggers.shutdown_with_timeout(bound).map_err(error("logs"));
            // Nobody listens any more when the bound has passed.
            let _late = tell.send(traces.and(metrics).and(logs));
        });
        spawned.map_err(|source| OwnTelemetryError::Start { source })?;
        told.recv_timeout(bound).unwrap_or(Err(OwnTelemetryError::TimedOut { bound }))
    }
}

impl Drop for OwnTelemetry {
    fn drop(&mut self) {
        if let Err(error) = self.end(SHUTDOWN) {
            tracing::debug!(%error, "own telemetry did not end well");
        }
    }
}

fn to<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    base: &str,
    signal: &str,
    client: &RuntimeClient,
) -> B {
    builder
        .with_endpoint(format!("{base}/v1/{signal}"))
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client.clone())
}

fn base_url(endpoint: &str) -> Result<String, OwnTelemetryError> {
    let error = |reason| OwnTelemetryError::Endpoint { reason };
    let uri: http::Uri = endpoint.trim().parse().map_err(|_| error("it is no URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(error("its scheme is neither http nor https")),
    }
    if uri.query().is_some() {
        return Err(error("it has a query"));
    }
    Ok(uri.to_string().trim_end_matches('/').to_owned())
}
