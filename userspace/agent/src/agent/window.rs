//! From a finished window to requests that wait for every destination. All of it is done by one thread, so that reading
//! symbols does not let the ring fill.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use descry_aggregate::profile::ProfileKind;
use descry_aggregate::{Aggregator, KnownProcess, Summary};
use descry_config::Config;
use descry_decode::ids::Tgid;
use descry_export::otlp::{self, MAX_REQUEST_BYTES, OtlpOptions};
use descry_export::queue::Request;
use descry_export::send::{Signal, SignalRequest};
use descry_process::AttributeValue;
use descry_process::identity::Attributes;
use descry_process::object::ObjectId;
use descry_telemetry::Counters;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::Receiver;
use tracing::{debug, warn};

use super::destinations::Destinations;
use super::names::Names;
use super::processes::Processes;
use crate::counted::{self, counters};
use crate::measure::{Clocks, HeldObject, PerfMapOwner, ProcessKey};

counters! {
    /// Counters of what is made of windows.
    WindowCounters = "descry.agent." {
        /// Requests that were made for the destinations.
        requests,
        /// Samples that were too large for a request.
        samples_oversized,
        /// Points of metrics that were too large for a request.
        points_oversized,
    }
}

/// What was measured in a window, without names.
pub struct Window {
    /// Changes when binaries are numbered anew.
    pub generation: u64,
    /// The samples.
    pub aggregator: Aggregator,
    /// The Resources of their processes.
    pub resources: FxHashMap<ProcessKey, Attributes>,
    /// The binaries that they are in.
    pub held: FxHashMap<ObjectId, HeldObject>,
    /// Processes that made code at run time.
    pub owners: FxHashMap<Tgid, PerfMapOwner>,
    /// When it began.
    pub began: Clocks,
    /// How long it was open.
    pub duration: Duration,
    /// Samples a second and CPU.
    pub frequency: u64,
    /// Whether inlined functions are wanted.
    pub inlines: bool,
    /// Attributes that each Resource gets unless it has them.
    pub attributes: BTreeMap<String, String>,
}

/// What the thread is told.
pub enum Message {
    /// A window has ended.
    Window(Box<Window>),
    /// The configuration has changed.
    Reload(Box<Config>),
}

/// The thread's state.
pub struct Exporter {
    names: Names,
    destinations: Arc<Destinations>,
    processes: Arc<Processes>,
    counters: Counters,
    counted: WindowCounters,
}

impl Exporter {
    /// Sends to these destinations.
    pub fn new(destinations: Arc<Destinations>, processes: Arc<Processes>, counters: Counters) -> Self {
        Self { names: Names::new(), destinations, processes, counters, counted: WindowCounters::default() }
    }

    /// Until nobody is left who could tell it anything; then what waits is sent, for `bound` at most.
    pub fn run(mut self, mut messages: Receiver<Message>, bound: Duration) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Window(window) => self.window(*window),
                Message::Reload(config) => self.destinations.set(&config),
            }
        }
        self.destinations.close(bound);
        counted::publish(&self.counters, self.destinations.readings());
    }

    fn window(&mut self, window: Window) {
        let began = Instant::now();
        let Window { aggregator, resources, began: clocks, .. } = &window;
        let (code, symbols) = self.names.of(&window);
        let resource = |process: &ProcessKey| {
            let mut resource = resources.get(process).cloned().unwrap_or_default();
            add(&mut resource, &window.attributes);
            resource
        };
        let known: Vec<KnownProcess> = aggregator
            .processes()
            .iter()
            .map(|process| KnownProcess { resource: resource(process) })
            .collect();
        for (process, known) in aggregator.processes().iter().zip(&known) {
            self.processes.note(process.0, &known.resource);
        }
        let summary = Summary {
            kind: ProfileKind::Cpu,
            start: clocks.unix,
            duration: window.duration,
            period: 1_000_000_000 / window.frequency.max(1),
            threads: true,
            boot_to_unix: clocks.boot_to_unix,
        };
        let profile = window.aggregator.finish(summary, &code, &known);
        let mut requests = otlp::requests(&profile, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        for request in &mut requests {
            self.counted.requests += 1;
            let items = request.items();
            let body = request.into_protobuf();
            self.destinations.offer(&Request { signal: Signal::PROFILES, items, body });
        }
        self.counted.samples_oversized += requests.oversized_samples();
        self.metrics();
        counted::publish(&self.counters, symbols.entries());
        counted::publish(&self.counters, self.counted.entries());
        counted::publish(&self.counters, self.processes.counters().entries());
        counted::publish(&self.counters, self.destinations.readings());
        debug!(samples = profile.samples.len(), took = ?began.elapsed(), "a window is on its way");
    }

    /// What the processes have taken since the window before.
    fn metrics(&mut self) {
        let made = match self.processes.metrics() {
            Ok(made) => made,
            Err(error) => {
                warn!(error = format!("{error:#}"), "no metrics of processes");
                return;
            }
        };
        self.counted.points_oversized += made.oversized_points;
        for request in made.requests {
            self.counted.requests += 1;
            let items = request.items();
            let body = request.into_protobuf();
            self.destinations.offer(&Request { signal: Signal::METRICS, items, body });
        }
    }
}

/// Adds attributes that a Resource has not.
fn add(resource: &mut Attributes, attributes: &BTreeMap<String, String>) {
    for (key, value) in attributes {
        if !resource.iter().any(|(known, _)| known == key) {
            resource.push((Cow::Owned(key.clone()), AttributeValue::Text(value.clone())));
        }
    }
}
