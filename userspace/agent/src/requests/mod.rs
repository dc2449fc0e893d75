//! `descry requests`: what programs ask each other, as it goes over their sockets.

mod alike;
mod connections;
mod counted;
mod follow;
mod live;
mod metric_sink;
mod metrics;
mod sampling;
mod tcp;
mod tls;
mod units;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use descry_abi::histogram::Histogram;
use descry_aggregate::histogram;
use descry_assemble::connection::Settings;
use descry_assemble::protocol::Options as ParserOptions;
use descry_assemble::span::Span;
use descry_export::otlp::TraceRequest;
use descry_export::span::{
    Operations, SpanFormat, SpanProcess, Summary, TableStyle, TraceSink, write_summary,
};
use descry_pipeline::is_sampled;
use descry_probe::Options;
use descry_telemetry::Counters;

use crate::cli::{RequestsArgs, StatsFormat};
use crate::counted::{lost_of_sockets, publish};
use crate::decode::protocols;
use crate::failure::Failure;
use crate::last_line;
use crate::measure::{Clocks, Prepared};
use crate::output::{self, FormatChoice, Output};
pub use connections::{Owned, Terms};
pub use counted::RequestCounters;
pub use follow::{Requests, SpanOutput};
use metric_sink::MetricSink;
pub use metrics::{MetricCounters, Metrics};
pub use sampling::{lots, sampling};
use tls::Reach;

/// Bytes of the ring: a second of 8,000 messages of 512 B a second, and its reader is woken before. A larger one takes its lines from the processor's
/// cache each time around, which the watched program pays for too (32 MiB: a sixth more of each hook under wrk), and counts
/// twice as resident memory, as it is mapped twice.
const RING_BYTES: u32 = 4 << 20;

/// Runs the command.
pub fn run(args: &RequestsArgs, own: &Counters) -> Result<ExitCode, Failure> {
    let by_name = args.measure.output.as_deref().and_then(SpanFormat::from_path);
    let format = args.format.or(by_name).unwrap_or(SpanFormat::Text);
    let choice =
        FormatChoice { name: format.name(), is_binary: format.is_binary(), is_given: args.format.is_some() };
    let settings = settings(args)?;
    // Without the variables all spans are told, whatever a caller's flags say: somebody wants to see them.
    let sampling = sampling::of_environment()?;
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

    let options =
        Options { net: Some(lots(sampling.as_ref())), ring_bytes: RING_BYTES, ..prepared.options()? };
    let temporality = metric_sink.as_ref().map(MetricSink::temporality);
    let metrics = Metrics::new(temporality, Clocks::read()?.unix);
    let samples = sampling.is_some();
    let told = Told { sink, operations: Operations::default(), metric_sink, written: Ok(()), samples };
    let mut requests = Requests::new(settings, sampling, metrics, told)
        .with_timeout(args.timeout)
        .with_reach(Reach::of(&prepared.target, &args.measure.target.command));
    let measurement = prepared.start(&options, &mut requests, |_, _| Ok(()))?;
    let finished = measurement.run(&mut requests, own)?;
    requests.finish();
    let counted = requests.counters();
    publish(own, counted.entries());
    let mut lost = counted.lost();
    lost.extend(lost_of_sockets(&finished.kernel));

    let (mut metrics, told) = requests.into_parts();
    let Told { sink, operations, metric_sink, written, .. } = told;
    let told = match metric_sink {
        Some(mut sink) => {
            sink.push(metrics.tell(Clocks::read()?.unix));
            Some(sink.finish())
        }
        None => None,
    };
    let counted = metrics.counters();
    publish(own, counted.entries());
    lost.extend(counted.lost());
    let (edges, tcp) = (metrics.edges(), metrics.tcp_rows());
    let (delivered, ended) = sink.finish(|delivered, format, out| {
        lost.extend(delivered.lost());
        let summary = Summary { operations: &operations, edges: Some(&edges), tcp: Some(&tcp), lost: &lost };
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
            say!("{line}");
        }
        StatsFormat::Text => {
            let (lost, usage) = (last_line::lost_text(lost), last_line::usage_text(usage));
            say!("descry: {seen} requests, {lost}{usage}");
        }
    }
}

/// Where the spans and metrics of the command go.
struct Told {
    sink: TraceSink,
    operations: Operations,
    metric_sink: Option<MetricSink>,
    /// Whether everything could be written so far.
    written: io::Result<()>,
    /// Whether a sampler decides which spans are told. Rows and metrics are of all.
    samples: bool,
}

impl SpanOutput for Told {
    fn keeps(&self, span: &Span) -> bool {
        !self.samples || is_sampled(span)
    }

    fn spans(&mut self, spans: &mut Vec<(Owned, Span)>) {
        for (Owned { process, .. }, span) in &*spans {
            self.operations.record(span, process.resource());
            if self.written.is_ok() && self.keeps(span) {
                self.written = self.sink.span(process, span);
            }
        }
        spans.clear();
    }

    fn counted(&mut self, process: &SpanProcess, span: &Span, durations: &Histogram) {
        for (duration, number) in histogram::durations(durations) {
            self.operations.record_many(span, process.resource(), duration, number);
        }
    }

    fn drained(&mut self, metrics: &mut Metrics) -> Result<(), Failure> {
        if self.written.is_ok() {
            self.written = self.sink.flush();
        }
        if let Some(sink) = self.metric_sink.as_mut().filter(|sink| sink.is_due()) {
            sink.push(metrics.tell(Clocks::read()?.unix));
        }
        Ok(())
    }

    fn progress(&self) -> String {
        format!("{} requests", self.operations.seen())
    }
}
