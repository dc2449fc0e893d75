//! Where the report goes: a file or stdout, and as metrics and spans to an endpoint.

use std::io::{self, Write};

use anyhow::Context;
use descry_aggregate::syscalls::SyscallReport;
use descry_decode::ids::UnixNanos;
use descry_export::otlp::metrics::{Interval, Temporality, metrics_requests};
use descry_export::otlp::{EncodedResource, MAX_REQUEST_BYTES, OtlpOptions, TraceRequest, TraceWriter};
use descry_export::send::Sender;
use descry_export::span::TableStyle;
use descry_export::syscall::{self, SyscallFormat};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use rustc_hash::FxHashMap;

use super::slow::new_ids;
use crate::cli::SyscallsArgs;
use crate::failure::Failure;
use crate::output::{self, Destination, FormatChoice};

/// Where to write and send, found out before anything is measured.
pub struct Output {
    format: SyscallFormat,
    to: output::Output<ExportMetricsServiceRequest>,
    spans: Option<Sender<TraceRequest>>,
    style: TableStyle,
}

impl Output {
    /// Opens what the arguments name.
    pub fn open(args: &SyscallsArgs) -> Result<Self, Failure> {
        let is_json = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let by_name = args.measure.output.as_ref().filter(|path| is_json(path)).map(|_| SyscallFormat::Json);
        let format = args.format.or(by_name).unwrap_or(SyscallFormat::Text);
        let choice = FormatChoice { name: format.name(), is_binary: false, is_given: args.format.is_some() };
        let to = output::Output::open(&args.measure, &choice)?;
        // Spans are of slow calls only.
        let endpoint = args.slower_than.map(|_| output::sender(args.measure.otlp_endpoint.as_deref()));
        let style = TableStyle {
            color: to.destination.as_ref().is_some_and(Destination::has_colors),
            width: to.destination.as_ref().and_then(Destination::width),
        };
        Ok(Self { format, to, spans: endpoint.transpose()?.flatten(), style })
    }

    /// Writes and sends: no failure keeps the others from being done.
    pub fn finish(&mut self, report: &SyscallReport) -> Result<(), Failure> {
        let written = self.write(report);
        let metrics = self.send_metrics(report);
        self.send_spans(report)?;
        metrics?;
        written
    }

    fn write(&mut self, report: &SyscallReport) -> Result<(), Failure> {
        let Some(destination) = &mut self.to.destination else { return Ok(()) };
        let cannot = || format!("cannot write {}", destination.name());
        let mut out = destination.writer().with_context(cannot)?;
        let written = match self.format {
            SyscallFormat::Text => syscall::text(report, &mut *out, self.style),
            SyscallFormat::Json => writeln!(out, "{}", syscall::json(report)),
        };
        match written.and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.with_context(cannot)?,
        }
        destination.keep();
        Ok(())
    }

    fn send_metrics(&self, report: &SyscallReport) -> Result<(), Failure> {
        let Some(sender) = &self.to.sender else { return Ok(()) };
        let nanos = u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX);
        let interval = Interval { start: report.start, end: UnixNanos(report.start.0.saturating_add(nanos)) };
        let metrics = syscall::metrics(report, Temporality::Cumulative);
        let requests = metrics_requests(&metrics, interval, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        if requests.oversized_points > 0 {
            say!(
                "descry: {} points were too large for a request and were left out",
                requests.oversized_points
            );
        }
        let outcome = sender.send_blocking(requests.requests).context("cannot send")?;
        output::report("data points", &sender.settings().endpoint, outcome)
    }

    fn send_spans(&self, report: &SyscallReport) -> Result<(), Failure> {
        let (Some(sender), Some(slow)) = (&self.spans, &report.slow) else { return Ok(()) };
        let mut writer = TraceWriter::new(&OtlpOptions::default(), MAX_REQUEST_BYTES);
        let mut processes = FxHashMap::default();
        let mut requests = Vec::new();
        for call in slow {
            let process = processes.entry(&call.process).or_insert_with(|| {
                EncodedResource::new(report.resources.get(&call.process).unwrap_or(&Vec::new()))
            });
            let (trace, span) = new_ids();
            requests.extend(writer.push(process, &syscall::slow_span(call, trace, span)));
        }
        requests.extend(writer.finish());
        let oversized = writer.oversized_spans();
        if oversized > 0 {
            say!("descry: {oversized} spans were too large for a request and were left out");
        }
        let outcome = sender.send_blocking(requests).context("cannot send")?;
        output::report("spans", &sender.settings().endpoint, outcome)
    }
}
