//! `descry decode`: requests from a capture file. It needs no rights and no kernel.

mod counted;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use descry_assemble::capture::{CaptureError, Table, read};
use descry_assemble::connection::Settings;
use descry_assemble::infer::{PROTOCOLS, Protocol};
use descry_assemble::protocol::Options;
use descry_assemble::span::Span;
use descry_export::span::{Operations, Summary, TableStyle, json_line, summary_line, table, text_line};
use descry_process::{AttributeValue, Attributes};
use descry_telemetry::Counters;

use crate::cli::{DecodeArgs, StatsFormat};
use crate::counted::publish;
use crate::failure::Failure;
use crate::output::Destination;
pub use counted::DecodeCounters;

/// Runs the command.
pub fn run(args: &DecodeArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    let settings = settings(args)?;
    let input: Box<dyn Read + Send> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?)
    };
    let mut destination = Destination::open(args.output.as_deref())?;
    let cannot_write = || format!("cannot write {}", destination.name());
    let mut report = Report {
        out: destination.writer().with_context(cannot_write)?,
        format: args.format,
        style: TableStyle { color: destination.has_colors(), width: destination.width() },
        operations: Operations::default(),
        written: Ok(()),
    };
    let mut table = Table::new(settings);
    let result = read(input, &mut |packet| {
        if report.written.is_ok() {
            table.packet(&packet, &mut |span, server| report.span(&span, server));
        }
    });
    if let Err(CaptureError::NotACapture) = result {
        return Err(Failure::Failed(anyhow::anyhow!(
            "{}: {}",
            args.file.display(),
            CaptureError::NotACapture
        )));
    }
    table.end_all(&mut |span, server| report.span(&span, server));
    let counted = DecodeCounters::new(&table.counters());
    publish(counters, counted.entries());
    match report.finish(&counted) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.with_context(cannot_write)?,
    }
    destination.keep();
    result.with_context(|| args.file.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The protocols of these names; all, if there are none.
pub fn protocols(names: &[String]) -> Result<Vec<&'static Protocol>, Failure> {
    let known = |name: &String| {
        PROTOCOLS.iter().copied().find(|protocol| protocol.name == name).ok_or_else(|| {
            let names: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.name).collect();
            Failure::Usage(format!("no protocol {name}; there are: {}", names.join(", ")))
        })
    };
    if names.is_empty() { Ok(PROTOCOLS.to_vec()) } else { names.iter().map(known).collect() }
}

fn settings(args: &DecodeArgs) -> Result<Settings, Failure> {
    let routes = Arc::new(args.routes.iter().cloned().collect());
    Ok(Settings { options: Options { routes }, protocols: protocols(&args.protocols)?, unix_offset: 0 })
}

/// What is written.
struct Report {
    out: Box<dyn Write + Send>,
    format: StatsFormat,
    style: TableStyle,
    operations: Operations,
    /// Whether everything could be written so far.
    written: io::Result<()>,
}

impl Report {
    fn span(&mut self, span: &Span, server: Option<SocketAddr>) {
        let resource = resource(server);
        self.operations.record(span, &resource);
        if self.written.is_ok() {
            let line = match self.format {
                StatsFormat::Text => text_line(span, &resource),
                StatsFormat::Json => json_line(span, &resource),
            };
            self.written = writeln!(self.out, "{line}");
        }
    }

    fn finish(mut self, counted: &DecodeCounters) -> io::Result<()> {
        self.written?;
        let rows = self.operations.rows();
        match self.format {
            StatsFormat::Json => {
                let lost = counted.lost();
                let summary = Summary { operations: &self.operations, edges: None, tcp: None, lost: &lost };
                writeln!(self.out, "{}", summary_line(&rows, &summary))?;
            }
            StatsFormat::Text => {
                if !rows.is_empty() {
                    writeln!(self.out)?;
                }
                table(&rows, &mut self.out, self.style)?;
            }
        }
        self.out.flush()?;
        if self.format == StatsFormat::Text {
            say!("descry: {} requests, {}", self.operations.seen(), counted.text());
        }
        Ok(())
    }
}

/// What is known of a server in a capture: where it listens. That is its name too.
fn resource(server: Option<SocketAddr>) -> Attributes {
    let name = server.map(|server| AttributeValue::Text(server.to_string()));
    name.map(|name| ("service.name".into(), name)).into_iter().collect()
}
