//! Where the spans of a command go: a file or a terminal, an OTLP endpoint, or both.
//!
//! Give a [`TraceSink`] spans as they end, each with the [`SpanProcess`] that it is of; call [`TraceSink::flush`] now and
//! then, and [`TraceSink::finish`] at the end. Lines are written at once; what is sent goes in batches through a bounded
//! queue, so that a slow receiver costs spans, which are counted, and never the measurement's time.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use descry_assemble::span::Span;

use super::{SpanFormat, SpanProcess, json_line, text_line};
use crate::otlp::json::Json;
use crate::otlp::{MAX_REQUEST_BYTES, OtlpOptions, TraceRequest, TraceWriter};
use crate::send::{Background, DropReason, Outcome, Sender};

/// Most bytes of a request that is sent while spans still come.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes after which what was encoded is written: they are still in the processor's cache.
const FILE_BYTES: usize = 64 << 10;
/// Requests that may wait to be sent, and as many again are under way: 32 MiB.
const QUEUE: usize = 16;
/// How long a span waits for others before it is sent.
const BATCH_AGE: Duration = Duration::from_secs(1);

/// Writes and sends spans.
#[derive(Debug)]
pub struct TraceSink {
    file: Option<File>,
    network: Option<Network>,
    /// Whoever read what was written wants no more.
    reader_is_gone: bool,
}

struct File {
    format: SpanFormat,
    out: Box<dyn Write + Send>,
    /// For the OTLP formats.
    requests: TraceWriter,
    /// Whether something is in the list of an [`SpanFormat::OtlpJson`].
    has_elements: bool,
}

#[derive(Debug)]
struct Network {
    requests: TraceWriter,
    /// Since when a span has waited.
    since: Option<Instant>,
    sender: Background<TraceRequest>,
}

/// What became of the spans that a [`TraceSink`] was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The account of sending; none: nothing was to be sent.
    pub outcome: Option<Outcome>,
    /// Spans that were left out of OTLP, because one alone is larger than a request may be.
    pub oversized_spans: u64,
}

impl Delivered {
    /// (name as a metric, one sentence, value) of every counter.
    pub fn entries(&self) -> [(&'static str, &'static str, u64); 4] {
        let outcome = self.outcome.as_ref();
        let queue_full =
            outcome.and_then(|outcome| outcome.dropped_items_by_reason.get(&DropReason::QueueFull));
        let queue_full = queue_full.copied().unwrap_or(0);
        let dropped = outcome.map_or(0, Outcome::dropped_items);
        let rejected = outcome.map_or(0, |outcome| outcome.rejected_items);
        [
            (
                "descry.spans.queue_full",
                "Spans that were not sent because they came faster than the receiver took them.",
                queue_full,
            ),
            (
                "descry.spans.not_sent",
                "Spans in requests that the receiver did not acknowledge; the log says why.",
                dropped - queue_full,
            ),
            ("descry.spans.rejected", "Spans that the receiver acknowledged and rejected.", rejected),
            (
                "descry.spans.oversized",
                "Spans left out of OTLP because one alone is larger than a request may be.",
                self.oversized_spans,
            ),
        ]
    }

    /// What was lost, as the last line of a measurement names it.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let names = ["span_queue_full", "span_not_sent", "span_rejected", "span_oversized"];
        let counts = self.entries().map(|(_, _, count)| count);
        names.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}

impl TraceSink {
    /// Writes to `out` in a format, and sends with `sender`, each where it is given.
    ///
    /// # Errors
    ///
    /// If the system refuses what sending needs, or `out` fails.
    pub fn new(
        out: Option<(SpanFormat, Box<dyn Write + Send>)>,
        sender: Option<Sender<TraceRequest>>,
    ) -> io::Result<Self> {
        let options = OtlpOptions::default();
        let file = out.map(|(format, out)| File {
            format,
            out,
            requests: TraceWriter::new(&options, MAX_REQUEST_BYTES),
            has_elements: false,
        });
        let network = sender
            .map(|sender| {
                let sender = Background::start(sender, QUEUE)?;
                io::Result::Ok(Network {
                    requests: TraceWriter::new(&options, BATCH_BYTES),
                    since: None,
                    sender,
                })
            })
            .transpose()?;
        let mut sink = Self { file, network, reader_is_gone: false };
        sink.written(|file| file.begin())?;
        Ok(sink)
    }

    /// Writes and sends a span.
    ///
    /// # Errors
    ///
    /// When writing fails, save that the reader is gone.
    pub fn span(&mut self, process: &SpanProcess, span: &Span) -> io::Result<()> {
        if let Some(network) = &mut self.network {
            network.span(process, span);
        }
        self.written(|file| file.span(process, span))
    }

    /// Lets people see what was written, and sends what has waited long enough.
    ///
    /// # Errors
    ///
    /// When writing fails, save that the reader is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(network) = &mut self.network {
            network.flush(BATCH_AGE);
        }
        self.written(|file| file.out.flush())
    }

    /// Whether whoever read what was written wants no more (`| head`). The spans still are sent.
    pub fn reader_is_gone(&self) -> bool {
        self.reader_is_gone
    }

    /// Sends what is left, then writes the end: `tail` writes what comes behind lines of text or JSON, with what became
    /// of the spans.
    ///
    /// Beside that account comes whether writing failed, save that the reader is gone.
    pub fn finish(
        mut self,
        tail: impl FnOnce(&Delivered, SpanFormat, &mut dyn Write) -> io::Result<()>,
    ) -> (Delivered, io::Result<()>) {
        let mut delivered = Delivered::default();
        if let Some(mut network) = self.network.take() {
            network.flush(Duration::ZERO);
            delivered.oversized_spans = network.requests.oversized_spans();
            delivered.outcome = Some(network.sender.finish());
        }
        if let Some(file) = &self.file {
            // What is too large for a file is too large to be sent.
            delivered.oversized_spans = delivered.oversized_spans.max(file.requests.oversized_spans());
        }
        let written = self.written(|file| {
            match file.format {
                SpanFormat::Text | SpanFormat::Json => tail(&delivered, file.format, &mut *file.out)?,
                SpanFormat::Otlp | SpanFormat::OtlpJson => file.end()?,
            }
            file.out.flush()
        });
        (delivered, written)
    }

    /// Does it where something is to be written. After a reader has gone nothing is.
    fn written(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        match self.file.as_mut().map_or(Ok(()), write) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.file = None;
                self.reader_is_gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("format", &self.format).finish_non_exhaustive()
    }
}

impl File {
    fn begin(&mut self) -> io::Result<()> {
        if self.format == SpanFormat::OtlpJson {
            self.out.write_all(br#"{"resourceSpans":["#)
        } else {
            Ok(())
        }
    }

    fn span(&mut self, process: &SpanProcess, span: &Span) -> io::Result<()> {
        match self.format {
            SpanFormat::Text => writeln!(self.out, "{}", text_line(span, process.resource())),
            SpanFormat::Json => writeln!(self.out, "{}", json_line(span, process.resource())),
            SpanFormat::Otlp | SpanFormat::OtlpJson => {
                let full = self.requests.push(process.encoded(), span);
                full.map_or(Ok(()), |request| self.request(&request))?;
                let is_much = self.requests.waiting_bytes() >= FILE_BYTES;
                let request = is_much.then(|| self.requests.finish()).flatten();
                request.map_or(Ok(()), |request| self.request(&request))
            }
        }
    }

    /// Messages in a row are one message, and so are the elements of their lists.
    fn request(&mut self, request: &TraceRequest) -> io::Result<()> {
        if self.format == SpanFormat::Otlp {
            return self.out.write_all(request.bytes());
        }
        for element in &request.decode().map_err(io::Error::other)?.resource_spans {
            if self.has_elements {
                self.out.write_all(b",")?;
            }
            self.has_elements = true;
            serde_json::to_writer(&mut self.out, &Json(element))?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(request) = self.requests.finish() {
            self.request(&request)?;
        }
        if self.format == SpanFormat::OtlpJson { self.out.write_all(b"]}\n") } else { Ok(()) }
    }
}

impl Network {
    fn span(&mut self, process: &SpanProcess, span: &Span) {
        if let Some(full) = self.requests.push(process.encoded(), span) {
            self.sender.push(full);
            self.since = None;
        }
        self.since.get_or_insert_with(Instant::now);
    }

    fn flush(&mut self, age: Duration) {
        if self.since.is_some_and(|since| since.elapsed() >= age) {
            self.since = None;
            if let Some(request) = self.requests.finish() {
                self.sender.push(request);
            }
        }
    }
}
