//! Spans and log records to the destinations: for each filtered, cleaned and encoded as it is configured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use descry_assemble::span::Span;
use descry_config::{Config, FilterAction, SignalName};
use descry_export::otlp::{LogRecord, LogWriter, OtlpOptions, TraceRequest, TraceWriter};
use descry_export::queue::Request;
use descry_export::send::{Signal, SignalRequest};
use descry_export::span::SpanProcess;
use descry_pipeline::{Action, Filter, Redactor, Rules, is_sampled, keeps};
use descry_process::Attributes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use tracing::error;

use super::destinations::{Destinations, Target, targets};
use crate::counted::counters;

/// Most bytes of a request with spans or records while more still come.
const BATCH_BYTES: usize = 1 << 20;
/// How long one waits for others before it is sent.
const BATCH_AGE: Duration = Duration::from_secs(1);

counters! {
    /// Counters of spans and log records on their way. Those of destinations count once for each of them.
    OutletCounters = "descry.agent." {
        /// Spans that were made.
        spans,
        /// Of those, spans of traces that are not sampled; metrics count them.
        spans_not_sampled,
        /// Spans that a destination's filters left out.
        spans_filtered,
        /// Spans that were too large for a request.
        spans_oversized,
        /// Log records that a destination's filters left out.
        log_records_filtered,
        /// Log records that were too large for a request.
        log_records_oversized,
        /// Places in texts that looked like secrets and were taken out.
        secrets_redacted,
    }
}

/// One for each destination.
pub struct Outlets {
    outlets: Vec<Outlet>,
    destinations: Arc<Destinations>,
    /// Since when something has waited.
    since: Option<Instant>,
    /// Those of outlets that are not there any more.
    counted: OutletCounters,
}

struct Outlet {
    name: String,
    filters: Vec<Filter>,
    redactor: Redactor,
    spans: Option<TraceWriter>,
    logs: Option<LogWriter>,
}

impl Outlets {
    /// Those of a configuration.
    pub fn new(config: &Config, destinations: Arc<Destinations>) -> Self {
        let outlets = outlets(config);
        Self { outlets, destinations, since: None, counted: OutletCounters::default() }
    }

    /// Takes over another configuration; what waits goes as the old one says.
    pub fn set(&mut self, config: &Config) {
        self.flush(Duration::ZERO);
        self.counted = self.counters();
        self.outlets = outlets(config);
    }

    /// So many requests that are no spans, since their traces are not taken.
    pub fn not_sampled(&mut self, spans: u64) {
        self.counted.spans += spans;
        self.counted.spans_not_sampled += spans;
    }

    /// A span.
    pub fn span(&mut self, process: &SpanProcess, span: Span) {
        self.counted.spans += 1;
        if !is_sampled(&span) {
            self.counted.spans_not_sampled += 1;
            return;
        }
        for outlet in &mut self.outlets {
            let Some(writer) = &mut outlet.spans else { continue };
            if !keeps(&outlet.filters, &span.attributes, process.resource()) {
                self.counted.spans_filtered += 1;
                continue;
            }
            let clean = outlet.redactor.span(&span);
            if let Some(full) = writer.push(process.encoded(), &clean) {
                self.destinations.offer_to(&outlet.name, of_spans(full));
            }
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// A log record of a process.
    pub fn log(&mut self, resource: &Attributes, record: &LogRecord) {
        for outlet in &mut self.outlets {
            let Some(writer) = &mut outlet.logs else { continue };
            if !keeps(&outlet.filters, &record.attributes, resource) {
                self.counted.log_records_filtered += 1;
                continue;
            }
            let mut clean = record.clone();
            outlet.redactor.attributes(&mut clean.attributes);
            if let Some(body) = outlet.redactor.text(&clean.body) {
                clean.body = body.into();
            }
            if let Some(full) = writer.push(resource, &clean) {
                self.destinations.offer_to(&outlet.name, of_logs(full));
            }
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Hands on what has waited long enough.
    pub fn drained(&mut self) {
        self.flush(BATCH_AGE);
    }

    /// Hands on what has waited for so long.
    pub fn flush(&mut self, age: Duration) {
        if self.since.is_none_or(|since| since.elapsed() < age) {
            return;
        }
        self.since = None;
        for outlet in &mut self.outlets {
            if let Some(request) = outlet.spans.as_mut().and_then(TraceWriter::finish) {
                self.destinations.offer_to(&outlet.name, of_spans(request));
            }
            if let Some(request) = outlet.logs.as_mut().and_then(LogWriter::finish) {
                self.destinations.offer_to(&outlet.name, of_logs(request));
            }
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> OutletCounters {
        let mut counted = self.counted;
        for outlet in &self.outlets {
            counted.spans_oversized += outlet.spans.as_ref().map_or(0, TraceWriter::oversized_spans);
            counted.log_records_oversized += outlet.logs.as_ref().map_or(0, LogWriter::oversized_records);
            counted.secrets_redacted += outlet.redactor.replaced();
        }
        counted
    }
}

fn of_spans(request: TraceRequest) -> Request {
    Request { signal: Signal::TRACES, items: request.spans(), body: request.into_bytes() }
}

fn of_logs(request: ExportLogsServiceRequest) -> Request {
    Request { signal: Signal::LOGS, items: request.items(), body: request.into_protobuf() }
}

fn outlets(config: &Config) -> Vec<Outlet> {
    let options = OtlpOptions::default();
    let outlet = |target: Target| {
        let settings = target.settings();
        let (filters, redaction) = settings.map_or_else(Default::default, |settings| {
            (settings.filters.iter().map(filter).collect(), settings.redaction.clone())
        });
        let redactor = Redactor::new(&Rules {
            cards: redaction.cards,
            tokens: redaction.tokens,
            emails: redaction.emails,
            patterns: redaction.patterns.iter().map(|pattern| pattern.0.clone()).collect(),
        });
        let redactor = match redactor {
            Ok(redactor) => redactor,
            // The configuration's check has seen each of them work.
            Err(error) => {
                error!(destination = target.name(), %error, "nothing is sent without redaction");
                return None;
            }
        };
        let wants = |signal| target.takes(signal);
        Some(Outlet {
            name: target.name().to_owned(),
            filters,
            redactor,
            spans: wants(SignalName::Traces).then(|| TraceWriter::new(&options, BATCH_BYTES)),
            logs: wants(SignalName::Logs).then(|| LogWriter::new(&options, BATCH_BYTES)),
        })
    };
    targets(config).into_iter().filter_map(outlet).collect()
}

fn filter(filter: &descry_config::Filter) -> Filter {
    Filter {
        attribute: filter.attribute.clone(),
        value: filter.value.as_ref().map(|pattern| pattern.0.clone()),
        action: match filter.action {
            FilterAction::Keep => Action::Keep,
            FilterAction::Drop => Action::Drop,
        },
    }
}
