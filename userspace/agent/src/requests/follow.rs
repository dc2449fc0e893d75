//! From events of sockets to spans, handed over as they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use descry_abi::histogram::Histogram;
use descry_assemble::connection::Settings;
use descry_assemble::span::Span;
use descry_assemble::template::Change;
use descry_decode::ids::{BootNanos, Comm, RequestId, Tgid, UnixNanos};
use descry_decode::{Call, ConnectFailed, Event, KnownExchange, Opened};
use descry_export::span::SpanProcess;
use descry_pipeline::Sampling;
use descry_probe::Session;
use descry_process::Attributes;
use rustc_hash::FxHashMap;

use super::connections::{Connections, Owned, Terms, is_late};
use super::tcp::Tcp;
use super::tls::{Reach, TlsFiles};
use super::units::Units;
use super::{MetricCounters, Metrics, RequestCounters, lots};
use crate::failure::Failure;
use crate::measure::{Clocks, Consumer, Tracker, add_attributes};

/// Processes whose Resource is kept at most; about 2 KiB each.
const MAX_PROCESSES: usize = 8192;

/// Time between two looks for requests that wait, and for those that were counted (ns).
const BETWEEN_LOOKS: u64 = 5_000_000_000;

/// Takes spans.
pub trait SpanOutput {
    /// Whether a span is going to be sent.
    fn keeps(&self, span: &Span) -> bool;

    /// Takes those that are done, whether they are going to be sent or not. They are in the metrics already.
    fn spans(&mut self, spans: &mut Vec<(Owned, Span)>);

    /// Requests of traces that are not taken, which differ from a span in their times only. They are in the metrics already.
    fn counted(&mut self, process: &SpanProcess, span: &Span, durations: &Histogram);

    /// The ring was drained: no more come for now.
    ///
    /// # Errors
    /// What ends the measurement.
    fn drained(&mut self, metrics: &mut Metrics) -> Result<(), Failure>;

    /// A few words for the progress bar.
    fn progress(&self) -> String;
}

/// Makes spans of what goes over sockets.
pub struct Requests<O> {
    terms: Terms,
    reach: Reach,
    tls: TlsFiles,
    connections: Connections,
    units: Units,
    processes: FxHashMap<Tgid, SpanProcess>,
    /// Attributes that each Resource gets unless it has them.
    attributes: BTreeMap<String, String>,
    spans: Vec<(Owned, Span)>,
    metrics: Metrics,
    tcp: Tcp,
    /// When requests that wait for their answers were last looked for.
    looked: BootNanos,
    output: O,
}

impl<O: SpanOutput> Requests<O> {
    /// With what is wanted of each connection, and what decides which traces are sent.
    pub fn new(settings: Settings, sampling: Option<Sampling>, metrics: Metrics, output: O) -> Self {
        Self {
            terms: Terms { settings: Arc::new(settings), traces_per_second: None },
            reach: Reach::ANY,
            tls: TlsFiles::new(Reach::ANY),
            connections: Connections::new(lots(sampling.as_ref()), sampling),
            units: Units::default(),
            processes: FxHashMap::default(),
            attributes: BTreeMap::new(),
            spans: Vec::new(),
            metrics,
            tcp: Tcp::new(),
            looked: BootNanos(0),
            output,
        }
    }

    /// With attributes that each Resource gets unless it has them.
    pub fn with_attributes(self, attributes: BTreeMap<String, String>) -> Self {
        Self { attributes, ..self }
    }

    /// With another reach than any process.
    pub fn with_reach(self, reach: Reach) -> Self {
        Self { reach, tls: TlsFiles::new(reach), ..self }
    }

    /// With another time that a connection may be silent while an answer is awaited.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.connections.set_timeout(timeout);
        self
    }

    /// A connection of which this is wanted; none: nothing.
    pub fn opened(&mut self, tracker: &mut Tracker, opened: &Opened, terms: Option<Terms>) {
        let process = match &terms {
            Some(_) => {
                if self.units.met(tracker, opened.tgid) {
                    self.tls.met(opened.tgid);
                }
                let process = self.process(tracker, opened.tgid);
                self.metrics.met(opened, &process);
                process
            }
            None => SpanProcess::new(Attributes::new()),
        };
        self.connections.opened(opened, process, terms, &mut self.spans);
    }

    /// A connect failed of a process of which this is wanted.
    pub fn connect_failed(&mut self, tracker: &mut Tracker, failed: &ConnectFailed, terms: &Terms) {
        let process = self.process(tracker, failed.tgid);
        self.connections.connect_failed(failed, process, terms, &mut self.spans);
    }

    /// A function was called: a span that waits for the one of its request. `around`: when the call around it began.
    pub fn call(&mut self, call: &Call, around: Option<UnixNanos>, process: SpanProcess, span: Span) {
        self.connections.call(call, around, process, span, &mut self.spans);
        self.hand_over();
    }

    /// A process did something for a request: a span that is told if the request is.
    pub fn part(
        &mut self,
        tracker: &mut Tracker,
        tgid: Tgid,
        request: RequestId,
        end: BootNanos,
        span: Span,
    ) {
        let process = self.process(tracker, tgid);
        self.connections.part(request, end, process, span, &mut self.spans);
        self.hand_over();
    }

    /// Nothing comes any more.
    pub fn finish(&mut self) {
        self.connections.finish(&mut self.spans);
        self.hand_over();
        self.metrics.settle();
    }

    /// Counters so far.
    pub fn counters(&self) -> RequestCounters {
        RequestCounters::new(&self.connections.counters(), self.units.unknown(), &self.tls.counted())
    }

    /// The metrics, and where the spans went.
    pub fn into_parts(self) -> (Metrics, O) {
        (self.metrics, self.output)
    }

    /// Counters of the metrics so far.
    pub fn metrics_counters(&self) -> MetricCounters {
        self.metrics.counters()
    }

    /// What requests add up to.
    pub fn metrics(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    /// Where the spans go.
    pub fn output(&mut self) -> &mut O {
        &mut self.output
    }

    /// Takes requests that the kernel side has not told of yet, as long as they have no answer.
    fn take_waiting(
        &mut self,
        session: &Session,
        takes: impl Fn(&KnownExchange) -> bool,
    ) -> Result<(), Failure> {
        if self.connections.has_templates() {
            for known in session.waiting_requests()?.iter().filter(|known| takes(known)) {
                self.connections.waits(known, &mut self.spans);
            }
        }
        Ok(())
    }

    /// Takes what the kernel side has counted and not told.
    fn take_counts(&mut self, session: &mut Session) -> Result<(), Failure> {
        if !self.connections.are_counted() {
            return Ok(());
        }
        for (key, durations) in session.exchange_counts()? {
            if let Some((owner, span, new)) = self.connections.counted(key, &durations) {
                self.metrics.record_many(&owner, &span, &new, &[]);
                self.output.counted(&owner.process, &span, &new);
            }
        }
        for key in self.connections.take_ended_counts() {
            session.forget_exchange_count(key);
        }
        Ok(())
    }

    /// Hands over the spans that are done. It is done after every event: they are still in the processor's cache then.
    fn hand_over(&mut self) {
        for (owner, span) in &self.spans {
            self.metrics.record(owner, span, self.output.keeps(span));
        }
        self.output.spans(&mut self.spans);
    }

    /// The process that a connection's spans are of.
    fn process(&mut self, tracker: &mut Tracker, tgid: Tgid) -> SpanProcess {
        if let Some(process) = self.processes.get(&tgid) {
            return process.clone();
        }
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        let mut resource = tracker.resource(tgid, Comm::default()).1;
        add_attributes(&mut resource, &self.attributes);
        let process = SpanProcess::new(resource);
        self.processes.insert(tgid, process.clone());
        process
    }
}

impl<O: SpanOutput> Consumer for Requests<O> {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        let is_exit = matches!(event, Event::Exit(_));
        match event {
            Event::Opened(opened) => {
                let terms = self.terms.clone();
                self.opened(tracker, &opened, Some(terms));
            }
            Event::Message(message) => {
                self.connections.message(&message, &mut self.spans);
                self.hand_over();
            }
            Event::Exchange(exchange) => {
                self.connections.known(&exchange, &mut self.spans);
                self.hand_over();
            }
            Event::Closed(closed) => {
                self.connections.closed(&closed, &mut self.spans);
                self.hand_over();
            }
            Event::ConnectFailed(failed) => {
                let terms = self.terms.clone();
                self.connect_failed(tracker, &failed, &terms);
            }
            // The number stands for another program from now on.
            Event::Exec(event) | Event::Exit(event) => {
                if is_exit {
                    self.connections.exited(event.tgid);
                }
                if let Some(process) = self.processes.remove(&event.tgid) {
                    self.metrics.ended(&process);
                    self.tcp.ended(event.tgid, process);
                }
                self.units.forget(event.tgid);
                self.tls.forget(event.tgid);
            }
            _ => {}
        }
    }

    fn ready(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        let expected: Vec<Tgid> = tracker.expected().collect();
        for tgid in expected {
            self.units.met(tracker, tgid);
            self.tls.met(tgid);
        }
        self.units.tell(session);
        // Whatever takes long comes before the first message: nobody empties the ring meanwhile.
        session.load_net()?;
        if self.reach.grows {
            self.tls.expect(session, tracker, &mut self.units);
        }
        self.tls.follow(session, tracker, &mut self.units);
        // Not before it is known what the units are: what goes over a socket until then would be its thread's.
        session.attach_net()?;
        Ok(())
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        for tgid in tracker.take_changed() {
            // Of all processes that start, those that use sockets are learnt of by their first message.
            if !self.reach.is_broad || tracker.processes().get(tgid).is_some() {
                self.units.met(tracker, tgid);
                self.tls.met(tgid);
            }
        }
        self.units.tell(session);
        self.tls.follow(session, tracker, &mut self.units);
        for (connection, wanted) in self.connections.take_wanted() {
            session.want_of_connection(connection, wanted);
        }
        for change in self.connections.take_template_changes() {
            match change {
                Change::Put(id, template) => session.put_template(id, &template),
                Change::Found(key, first) => session.find_template(key, Some(first)),
                Change::Lost(key) => session.find_template(key, None),
                Change::Remove(id, template) => session.remove_template(id, &template),
            }
        }
        let now = Clocks::boot()?;
        if now.0.saturating_sub(self.looked.0) >= BETWEEN_LOOKS {
            self.looked = now;
            self.take_waiting(session, |known| is_late(known, now))?;
            self.take_counts(session)?;
        }
        self.connections.expire(now, &mut self.spans);
        self.hand_over();
        if self.tcp.is_due() {
            self.tcp.read(session, &self.processes, &mut self.metrics.tcp)?;
        }
        self.metrics.settle();
        self.output.drained(&mut self.metrics)
    }

    fn ending(&mut self, session: &mut Session, _tracker: &mut Tracker) -> Result<(), Failure> {
        self.take_counts(session)?;
        self.take_waiting(session, |_| true)?;
        Ok(self.tcp.read(session, &self.processes, &mut self.metrics.tcp)?)
    }

    fn progress(&self, _tracker: &Tracker) -> String {
        self.output.progress()
    }
}
