//! Where calls go: lines of text, or spans.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context;
use descry_assemble::span::Span;
use descry_export::otlp::TraceRequest;
use descry_export::send::Endpoint;
use descry_export::span::{
    Delivered, FunctionRow, SpanFormat, SpanProcess, TableStyle, TraceSink, call_line, function_summary_line,
    function_table,
};

use crate::cli::TraceArgs;
use crate::failure::Failure;
use crate::output::{self, Destination, FormatChoice};

/// Where to write and send, found out before anything is measured.
pub struct Output {
    destination: Option<Destination>,
    endpoint: Option<Endpoint>,
    /// Lines of text; here and not in the sink, since calls are nested.
    text: Option<Box<dyn Write + Send>>,
    sink: TraceSink,
}

/// A call with what only its line of text shows.
pub struct CallSpan<'a> {
    /// The span.
    pub span: Span,
    /// `NAME/TID`.
    pub thread: String,
    /// Followed calls around it.
    pub depth: usize,
    /// Its arguments, if they are known.
    pub arguments: Option<&'a str>,
}

impl Output {
    /// Opens what the arguments name.
    pub fn open(args: &TraceArgs) -> Result<Self, Failure> {
        let by_name = args.measure.output.as_deref().and_then(SpanFormat::from_path);
        let format = args.format.or(by_name).unwrap_or(SpanFormat::Text);
        let choice = FormatChoice {
            name: format.name(),
            is_binary: format.is_binary(),
            is_given: args.format.is_some(),
        };
        let to = output::Output::<TraceRequest>::open(&args.measure, &choice)?;
        let endpoint = to.sender.as_ref().map(|sender| sender.settings().endpoint.clone());
        let writer = to.destination.as_ref().map(Destination::writer).transpose().context("cannot write")?;
        let (text, spans) = match (writer, format) {
            (Some(writer), SpanFormat::Text) => (Some(writer), None),
            (Some(writer), format) => (None, Some((format, writer))),
            (None, _) => (None, None),
        };
        let sink = TraceSink::new(spans, to.sender).context("cannot write or send spans")?;
        Ok(Self { destination: to.destination, endpoint, text, sink })
    }

    /// Writes and sends a call.
    pub fn call(&mut self, process: &SpanProcess, call: &CallSpan<'_>) -> io::Result<()> {
        self.sink.span(process, &call.span)?;
        self.text(|out| writeln!(out, "{}", call_line(&call.span, &call.thread, call.depth, call.arguments)))
    }

    /// Lets people see what was written, and sends what has waited.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()?;
        self.text(|out| out.flush())
    }

    /// Writes a row a function, and sends what is left. `seen` calls began; `lost` says which have no span, and why.
    pub fn finish(
        mut self,
        rows: &[FunctionRow],
        seen: u64,
        mut lost: BTreeMap<&'static str, u64>,
    ) -> Result<(Delivered, BTreeMap<&'static str, u64>), Failure> {
        let style = TableStyle {
            color: self.destination.as_ref().is_some_and(Destination::has_colors),
            width: self.destination.as_ref().and_then(Destination::width),
        };
        let text = self.text(|out| {
            function_table(rows, out, style)?;
            out.flush()
        });
        let (delivered, written) = self.sink.finish(|delivered, _, out| {
            lost.extend(delivered.lost());
            writeln!(out, "{}", function_summary_line(rows, seen, &lost))
        });
        lost.extend(delivered.lost());
        text.and(written).context("cannot write")?;
        if let Some(destination) = &mut self.destination {
            destination.keep();
        }
        if let (Some(endpoint), Some(outcome)) = (&self.endpoint, delivered.outcome.clone()) {
            output::report("spans", endpoint, outcome)?;
        }
        Ok((delivered, lost))
    }

    /// Does it where text is to be written. After a reader has gone (`| head`) nothing is.
    fn text(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        match self.text.as_mut().map_or(Ok(()), |out| write(&mut **out)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.text = None;
                Ok(())
            }
            other => other,
        }
    }
}
