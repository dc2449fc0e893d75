//! Calls to spans, and new files to probes, while functions are traced.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use descry_assemble::span::{Span, SpanId, SpanKind, Status, TraceId, Value};
use descry_decode::ids::{BootNanos, Tgid, UnitId, UnixNanos};
use descry_decode::{Arguments, Call, Event, decode};
use descry_export::span::SpanProcess;
use descry_function::arguments;
use descry_probe::{FunctionFigures, Session};
use rustc_hash::FxHashMap;

use super::attach::attach;
use super::catalog::{Catalog, Traced, Work};
use super::output::{CallSpan, Output};
use crate::failure::Failure;
use crate::measure::{Consumer, Tracker};

/// Places that are probed at most without `--yes`.
const MAX_PLACES: usize = 10_000;
/// Processes whose Resource is kept at most.
const MAX_PROCESSES: usize = 8192;
/// Functions of a file that cannot be probed and are told one by one at most.
const TOLD: usize = 3;

/// Calls with arguments that have not ended at most.
const MAX_WAITING: usize = 65_536;
/// The attribute of a call's arguments; the semantic conventions have none.
const ARGUMENTS: &str = "descry.function.arguments";

/// W3C trace flags: "sampled" and "random".
const TRACE_FLAGS: u8 = 3;

/// Who is traced.
pub struct Subject {
    /// The one process that is traced; then probes cost no other process anything.
    pub only: Option<Tgid>,
    /// The processes that are known from the start.
    pub processes: Vec<Tgid>,
    /// A program that was started and has not run an instruction yet.
    pub started: Option<Tgid>,
    /// Whether more files may become known: a program was started, or processes are still to come.
    pub may_grow: bool,
    /// Whether any number of places may be probed.
    pub yes: bool,
    /// Unix time minus boot time (ns).
    pub boot_to_unix: i64,
}

/// Follows calls.
pub struct Recorder {
    subject: Subject,
    /// What is traced.
    pub catalog: Catalog,
    /// Where calls go.
    pub output: Output,
    /// What the kernel side kept, at the end.
    pub figures: Vec<FunctionFigures>,
    /// Calls that were handed over.
    pub spans: u64,
    processes: FxHashMap<(Tgid, Arc<str>), SpanProcess>,
    /// Arguments of calls that have not ended.
    waiting: FxHashMap<(Tgid, UnitId, BootNanos), String>,
    places: usize,
    failed: Option<std::io::Error>,
}

impl Recorder {
    /// Traces `catalog` for `subject`.
    pub fn new(subject: Subject, catalog: Catalog, output: Output) -> Self {
        Self {
            subject,
            catalog,
            output,
            figures: Vec::new(),
            spans: 0,
            processes: FxHashMap::default(),
            waiting: FxHashMap::default(),
            places: 0,
            failed: None,
        }
    }

    fn call(&mut self, tracker: &mut Tracker, call: &Call) {
        let Some(traced) = self.catalog.get(call.function) else { return };
        let mut span = span(call, traced, self.subject.boot_to_unix);
        let arguments = self.waiting.remove(&(call.tgid, call.unit, call.start));
        if let Some(arguments) = &arguments {
            span.attributes.push((ARGUMENTS.into(), Value::Text(arguments.as_str().into())));
        }
        let (name, resource) = tracker.resource(call.tgid, call.comm);
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        let process = self.processes.entry((call.tgid, name)).or_insert_with(|| SpanProcess::new(resource));
        self.spans += 1;
        let call = CallSpan {
            span,
            thread: format!("{}/{}", call.comm, call.tid),
            depth: call.depth.into(),
            arguments: arguments.as_deref(),
        };
        if let Err(error) = self.output.call(process, &call) {
            self.failed.get_or_insert(error);
        }
    }

    /// Keeps the arguments until their call ends.
    fn arguments(&mut self, arguments: &Arguments) {
        let Some(traced) = self.catalog.get(arguments.function) else { return };
        let text = arguments::show(&traced.parameters, &arguments.values);
        if self.waiting.len() >= MAX_WAITING {
            self.catalog.counters().arguments_dropped += self.waiting.len() as u64;
            self.waiting.clear();
        }
        self.waiting.insert((arguments.tgid, arguments.unit, arguments.start), text);
    }

    fn written(&mut self) -> Result<(), Failure> {
        match self.failed.take() {
            Some(error) => Err(Failure::Failed(anyhow::Error::new(error).context("cannot write"))),
            None => Ok(()),
        }
    }

    fn attach(&mut self, session: &mut Session, found: &[Work]) -> Result<(), Failure> {
        for work in found {
            match work.unprobeable.as_slice() {
                few if few.len() <= TOLD => few.iter().for_each(|(name, why)| {
                    tracing::warn!("cannot trace {name} of {}: {why}", work.object.path);
                }),
                many => tracing::warn!(
                    "cannot trace {} functions of {} (--list says why)",
                    many.len(),
                    work.object.path
                ),
            }
            attach(session, &mut self.catalog, work, self.subject.only)?;
        }
        Ok(())
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match event {
            Event::Call(call) => self.call(tracker, &call),
            Event::Arguments(arguments) => self.arguments(&arguments),
            _ => {}
        }
    }

    fn ready(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        let mut found = self.catalog.scan_paths(tracker.processes())?;
        for tgid in self.subject.processes.clone() {
            found.extend(self.catalog.scan(tracker.processes(), tgid));
        }
        if let Some(tgid) = self.subject.started {
            found.extend(self.catalog.scan_libraries(tracker.processes(), tgid));
        }
        self.places = found.iter().map(Work::places).sum();
        if self.places > MAX_PLACES && !self.subject.yes {
            return Err(Failure::Usage(format!(
                "{} places would be probed, more than {MAX_PLACES}: narrow the pattern (--list shows what fits), or \
                 say --yes",
                self.places
            )));
        }
        let missing = self.catalog.missing();
        if !missing.is_empty() && !self.subject.may_grow {
            return Err(Failure::Failed(anyhow::anyhow!("{}", missing.join("\n"))));
        }
        self.attach(session, &found)
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        let mut found = Vec::new();
        for tgid in tracker.take_changed() {
            // One that runs another program may be known by its old one only; one that is gone has nothing new.
            if tracker.processes().get(tgid).is_none_or(|process| process.loaded.is_none()) {
                let _ = tracker.processes().load(tgid);
            }
            found.extend(self.catalog.scan(tracker.processes(), tgid));
        }
        let places: usize = found.iter().map(Work::places).sum();
        if self.places + places > MAX_PLACES && !self.subject.yes {
            let functions: usize = found.iter().map(|work| work.items.len()).sum();
            tracing::warn!(
                "{functions} functions of new files are not traced: over {MAX_PLACES} places need --yes"
            );
            self.catalog.counters().functions_over_limit += functions as u64;
        } else {
            self.places += places;
            self.attach(session, &found)?;
        }
        if let Err(error) = self.output.flush() {
            self.failed.get_or_insert(error);
        }
        self.written()
    }

    fn ending(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        session.detach_functions();
        // Calls that ended between the last drain and the detaching.
        let mut calls = Vec::new();
        session.drain(|record| {
            calls.extend(decode(record));
        });
        calls.sort_by_key(Event::time);
        for event in calls {
            self.event(tracker, event);
        }
        self.figures = session.functions()?;
        self.written()
    }

    fn progress(&self, _tracker: &Tracker) -> String {
        format!("{} calls", self.spans)
    }
}

/// The span of a call. Calls that lie in one outermost call are one trace.
fn span(call: &Call, traced: &Traced, boot_to_unix: i64) -> Span {
    let unix = |time: BootNanos| UnixNanos(time.0.saturating_add_signed(boot_to_unix));
    let id = |start: BootNanos| span_id(call, start, boot_to_unix);
    let mut attributes = vec![
        ("code.function.name".into(), Value::Shared(Arc::clone(&traced.name))),
        ("thread.id".into(), Value::Int(call.tid.0.into())),
        ("thread.name".into(), Value::Text(call.comm.to_string().into())),
    ];
    if let Some(source) = &traced.source {
        attributes.push(("code.file.path".into(), Value::Shared(Arc::clone(source))));
    }
    if let Some(line) = traced.line {
        attributes.push(("code.line.number".into(), Value::Int(line.into())));
    }
    Span {
        trace: trace_id(call, boot_to_unix),
        span: id(call.start),
        parent: call.parent.map(id),
        trace_state: Box::default(),
        flags: TRACE_FLAGS,
        parent_is_remote: call.parent.map(|_| false),
        kind: SpanKind::Internal,
        name: traced.name.to_string().into(),
        start: unix(call.start),
        end: unix(call.end),
        status: Status::Unset,
        attributes,
        events: Vec::new(),
        links: Vec::new(),
    }
}

/// No two outermost calls of a unit begin at one time, and no two units of a machine's uptime have one id at that time.
fn trace_id(call: &Call, boot_to_unix: i64) -> TraceId {
    let part = |salt| hash(salt, call.tgid, call.unit, call.root, boot_to_unix);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&part(1).to_be_bytes());
    id[8..].copy_from_slice(&(part(2) | 1).to_be_bytes());
    TraceId(id)
}

fn span_id(call: &Call, start: BootNanos, boot_to_unix: i64) -> SpanId {
    SpanId((hash(3, call.tgid, call.unit, start, boot_to_unix) | 1).to_be_bytes())
}

fn hash(salt: u8, tgid: Tgid, unit: UnitId, start: BootNanos, boot_to_unix: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, tgid, unit, start, boot_to_unix).hash(&mut hasher);
    hasher.finish()
}
