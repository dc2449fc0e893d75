//! `descry requests`: what programs ask each other, as it goes over their sockets.

mod connections;
mod counted;
mod metric_sink;
mod metrics;
mod units;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use descry_assemble::connection::Settings;
use descry_assemble::protocol::Options as ParserOptions;
use descry_assemble::span::Span;
use descry_decode::Event;
use descry_decode::ids::{Comm, Tgid};
use descry_export::otlp::TraceRequest;
use descry_export::send::{Endpoint, Outcome};
use descry_export::span::{
    Operations, SpanFormat, SpanProcess, Summary, TableStyle, TraceSink, write_summary,
};
use descry_probe::{Options, Session};
use descry_telemetry::Counters;
use rustc_hash::FxHashMap;

use crate::cli::{RequestsArgs, StatsFormat};
use crate::counted::{lost_of_sockets, publish};
use crate::decode::protocols;
use crate::failure::Failure;
use crate::last_line;
use crate::measure::{Clocks, Consumer, Prepared, Tracker};
use crate::output::{self, FormatChoice, Output};
use connections::{Connections, Owned};
pub use counted::RequestCounters;
use metric_sink::MetricSink;
pub use metrics::{MetricCounters, Metrics};
use units::Units;

/// Bytes of the ring: half a second of 16,000 messages of 4 KiB a second.
const RING_BYTES: u32 = 32 << 20;

/// Runs the command.
pub fn run(args: &RequestsArgs, own: &Counters) -> Result<ExitCode, Failure> {
    let by_name = args.measure.output.as_deref().and_then(SpanFormat::from_path);
    let format = args.format.or(by_name).unwrap_or(SpanFormat::Text);
    let choice =
        FormatChoice { name: format.name(), is_binary: format.is_binary(), is_given: args.format.is_some() };
    let settings = settings(args)?;
    let (prepared, (mut output, metric_sink)) = Prepared::new(&args.measure, || {
        let output = Output::<TraceRequest>::open(&args.measure, &choice)?;
        Ok((output, MetricSink::open(args.measure.otlp_endpoint.as_deref())?))
    })?;
    let style = output.destination.as_ref().map_or(TableStyle::default(), |destination| TableStyle {
        color: destination.has_colors(),
        width: destination.width(),
    });
    let out = output.destination.as_ref().map(|destination| {
        let cannot = || format!("cannot write {}", destination.name());
        Ok((format, destination.writer().with_context(cannot)?))
    });
    let endpoint = output.sender.as_ref().map(|sender| sender.settings().endpoint.clone());
    let sink = TraceSink::new(out.transpose().map_err(Failure::Failed)?, output.sender.take())
        .context("cannot write or send")?;

    let options = Options { net: true, ring_bytes: RING_BYTES, ..prepared.options()? };
    let mut requests = Requests::new(settings, sink, metric_sink)?;
    let measurement = prepared.start(&options, &mut requests, |session, _| {
        session.attach_net()?;
        Ok(())
    })?;
    let finished = measurement.run(&mut requests, own)?;
    let told = requests.finish()?;
    let counted = RequestCounters::new(&requests.connections.counters());
    publish(own, counted.entries());
    let mut lost = counted.lost();
    lost.extend(lost_of_sockets(&finished.kernel));

    let Requests { sink, operations, metrics, written, .. } = requests;
    let counted = metrics.counters();
    publish(own, counted.entries());
    lost.extend(counted.lost());
    let edges = metrics.edges();
    let (delivered, ended) = sink.finish(|delivered, format, out| {
        lost.extend(delivered.lost());
        let summary = Summary { operations: &operations, edges: Some(&edges), lost: &lost };
        write_summary(&summary, format, out, style)
    });
    publish(own, delivered.entries());
    if let Some(destination) = &mut output.destination {
        destination.keep();
    }
    say_last(args.measure.stats, &operations, &lost);
    written.and(ended).context("cannot write")?;
    let spans = endpoint.zip(delivered.outcome);
    let spans = spans.map(|(endpoint, outcome)| output::report("spans", &endpoint, outcome));
    if let Some((endpoint, outcome)) = told {
        output::report("data points", &endpoint, outcome)?;
    }
    spans.transpose()?;
    Ok(finished.exit.filter(|_| args.measure.exit_code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn settings(args: &RequestsArgs) -> Result<Settings, Failure> {
    Ok(Settings {
        options: ParserOptions { routes: Arc::new(args.routes.iter().cloned().collect()) },
        protocols: protocols(&args.protocols)?,
        unix_offset: Clocks::read()?.boot_to_unix,
    })
}

/// The last line on stderr.
fn say_last(format: StatsFormat, operations: &Operations, lost: &BTreeMap<&'static str, u64>) {
    let (seen, usage) = (operations.seen(), last_line::usage());
    match format {
        StatsFormat::Json => {
            let line = serde_json::json!({
                "requests": seen,
                "lost": lost,
                "cpu_ns": usage.map(|usage| usage.cpu_ns),
                "peak_rss_bytes": usage.map(|usage| usage.peak_rss_bytes),
            });
            eprintln!("{line}");
        }
        StatsFormat::Text => {
            let (lost, usage) = (last_line::lost_text(lost), last_line::usage_text(usage));
            eprintln!("descry: {seen} requests, {lost}{usage}");
        }
    }
}

/// Makes spans of what goes over sockets.
struct Requests {
    connections: Connections,
    units: Units,
    sink: TraceSink,
    operations: Operations,
    metrics: Metrics,
    metric_sink: Option<MetricSink>,
    processes: FxHashMap<Tgid, SpanProcess>,
    spans: Vec<(Owned, Span)>,
    /// Whether everything could be written so far.
    written: std::io::Result<()>,
}

/// Processes whose Resource is kept at most; about 2 KiB each.
const MAX_PROCESSES: usize = 8192;

impl Requests {
    fn new(settings: Settings, sink: TraceSink, metric_sink: Option<MetricSink>) -> Result<Self, Failure> {
        let temporality = metric_sink.as_ref().map(MetricSink::temporality);
        Ok(Self {
            connections: Connections::new(settings),
            units: Units::default(),
            sink,
            operations: Operations::default(),
            metrics: Metrics::new(temporality, Clocks::read()?.unix),
            metric_sink,
            processes: FxHashMap::default(),
            spans: Vec::new(),
            written: Ok(()),
        })
    }

    /// Writes and sends the spans that are done.
    fn hand_over(&mut self) {
        for (owner, span) in self.spans.drain(..) {
            self.operations.record(&span, owner.process.resource());
            self.metrics.record(&owner, &span, true);
            if self.written.is_ok() {
                self.written = self.sink.span(&owner.process, &span);
            }
        }
    }

    /// Nothing comes any more. Gives what became of the metrics, if they were sent.
    fn finish(&mut self) -> Result<Option<(Endpoint, Outcome)>, Failure> {
        self.connections.finish(&mut self.spans);
        self.hand_over();
        let Some(mut sink) = self.metric_sink.take() else { return Ok(None) };
        sink.push(self.metrics.tell(Clocks::read()?.unix));
        Ok(Some(sink.finish()))
    }

    /// The process that a connection's spans are of.
    fn process(&mut self, tracker: &mut Tracker, tgid: Tgid) -> SpanProcess {
        if let Some(process) = self.processes.get(&tgid) {
            return process.clone();
        }
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        let process = SpanProcess::new(tracker.resource(tgid, Comm::default()).1);
        self.processes.insert(tgid, process.clone());
        process
    }
}

impl Consumer for Requests {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match event {
            Event::Opened(opened) => {
                self.units.met(tracker, opened.tgid);
                let process = self.process(tracker, opened.tgid);
                self.metrics.met(&opened, &process);
                self.connections.opened(&opened, process, &mut self.spans);
            }
            Event::Message(message) => self.connections.message(&message, &mut self.spans),
            Event::Closed(closed) => self.connections.closed(&closed, &mut self.spans),
            // The number stands for another program from now on.
            Event::Exec(event) | Event::Exit(event) => {
                if let Some(process) = self.processes.remove(&event.tgid) {
                    self.metrics.ended(&process);
                }
                self.units.forget(event.tgid);
            }
            _ => {}
        }
    }

    fn ready(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        let expected: Vec<Tgid> = tracker.expected().collect();
        for tgid in expected {
            self.units.met(tracker, tgid);
        }
        self.units.tell(session);
        Ok(())
    }

    fn drained(&mut self, session: &mut Session, _tracker: &mut Tracker) -> Result<(), Failure> {
        self.units.tell(session);
        for connection in self.connections.take_ignored() {
            session.ignore_connection(connection);
        }
        self.hand_over();
        if self.written.is_ok() {
            self.written = self.sink.flush();
        }
        if let Some(sink) = self.metric_sink.as_mut().filter(|sink| sink.is_due()) {
            sink.push(self.metrics.tell(Clocks::read()?.unix));
        }
        Ok(())
    }

    fn progress(&self, _tracker: &Tracker) -> String {
        format!("{} requests", self.operations.seen())
    }
}
