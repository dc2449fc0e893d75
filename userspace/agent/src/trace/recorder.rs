//! Calls to spans, and new files to probes, while functions are traced.

use std::sync::Arc;

use descry_assemble::span::Value;
use descry_decode::ids::{BootNanos, Tgid, UnitId};
use descry_decode::{Arguments, Call, Event, decode};
use descry_export::span::SpanProcess;
use descry_function::arguments;
use descry_probe::{FunctionFigures, Session};
use rustc_hash::FxHashMap;

use super::attach::attach_all;
use super::catalog::{Catalog, Work};
use super::output::{CallSpan, Output};
use super::span::span;
use crate::failure::Failure;
use crate::measure::{Consumer, Tracker};

/// Places that are probed at most unless somebody says that any number may be.
pub const MAX_PLACES: usize = 10_000;
/// Processes whose Resource is kept at most.
const MAX_PROCESSES: usize = 8192;
/// Calls with arguments that have not ended at most.
const MAX_WAITING: usize = 65_536;
/// The attribute of a call's arguments; the semantic conventions have none.
const ARGUMENTS: &str = "descry.function.arguments";

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
        attach_all(session, &mut self.catalog, &found, self.subject.only)
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
            attach_all(session, &mut self.catalog, &found, self.subject.only)?;
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
