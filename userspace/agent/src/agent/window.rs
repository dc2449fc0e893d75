//! From a finished window to requests that wait for every destination. All of it is done by one thread, so that reading
//! symbols does not let the ring fill.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use descry_aggregate::profile::ProfileKind;
use descry_aggregate::syscalls::{SyscallReport, SyscallRow};
use descry_aggregate::{Aggregator, CodeRef, KnownProcess, Summary};
use descry_config::Config;
use descry_decode::ids::{Tgid, UnixNanos};
use descry_export::otlp::metrics::{Interval, MetricsRequests, Temporality, metrics_requests};
use descry_export::otlp::{self, MAX_REQUEST_BYTES, OtlpOptions};
use descry_export::queue::Request;
use descry_export::send::{Signal, SignalRequest};
use descry_process::identity::Attributes;
use descry_process::object::ObjectId;
use descry_telemetry::Counters;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc::Receiver;
use tracing::{debug, warn};

use super::destinations::Destinations;
use super::names::Names;
use super::processes::Processes;
use crate::counted::{self, counters};
use crate::measure::{Clocks, HeldObject, PerfMapOwner, ProcessKey, add_attributes};
use crate::syscalls::least_resource;

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
    /// What is told as profiles.
    pub profiles: Vec<WindowProfile>,
    /// System calls; none: they were not measured.
    pub syscalls: Option<Vec<SyscallRow>>,
    /// Metrics of requests and functions, where they were measured.
    pub metrics: Vec<MetricsRequests>,
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
    /// Whether inlined functions are wanted.
    pub inlines: bool,
    /// Attributes that each Resource gets unless it has them.
    pub attributes: BTreeMap<String, String>,
}

/// What becomes one profile of each process.
pub struct WindowProfile {
    /// What was measured.
    pub kind: ProfileKind,
    /// Nanoseconds from one sample to the next on one CPU; 0: not sampled.
    pub period: u64,
    /// The sums.
    pub aggregator: Aggregator,
}

impl Window {
    /// All places in code, each once.
    pub fn code(&self) -> Vec<CodeRef> {
        let mut seen = FxHashSet::default();
        let all = self.profiles.iter().flat_map(|profile| profile.aggregator.code());
        all.filter(|code| seen.insert(*code)).cloned().collect()
    }

    /// The Resource of a process, with the attributes that each gets.
    fn resource(&self, process: &ProcessKey) -> Attributes {
        let mut resource = self.resources.get(process).cloned().unwrap_or_default();
        add_attributes(&mut resource, &self.attributes);
        resource
    }
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

    fn window(&mut self, mut window: Window) {
        let began = Instant::now();
        let symbols = self.names.learn(&window);
        let mut samples = 0;
        for profile in std::mem::take(&mut window.profiles) {
            samples += self.profile(&window, profile);
        }
        if let Some(rows) = window.syscalls.take() {
            self.syscalls(&window, rows);
        }
        for made in std::mem::take(&mut window.metrics) {
            self.offer_metrics(made);
        }
        match self.processes.metrics() {
            Ok(made) => self.offer_metrics(made),
            Err(error) => warn!(error = format!("{error:#}"), "no metrics of processes"),
        }
        counted::publish(&self.counters, symbols.entries());
        counted::publish(&self.counters, self.counted.entries());
        counted::publish(&self.counters, self.processes.counters().entries());
        counted::publish(&self.counters, self.destinations.readings());
        debug!(samples, took = ?began.elapsed(), "a window is on its way");
    }

    /// Returns how many different samples it has.
    fn profile(&mut self, window: &Window, profile: WindowProfile) -> usize {
        let WindowProfile { kind, period, aggregator } = profile;
        let code = self.names.of(aggregator.code());
        let known: Vec<KnownProcess> = aggregator
            .processes()
            .iter()
            .map(|process| KnownProcess { resource: window.resource(process) })
            .collect();
        for (process, known) in aggregator.processes().iter().zip(&known) {
            self.processes.note(process.0, &known.resource);
        }
        let summary = Summary {
            kind,
            start: window.began.unix,
            duration: window.duration,
            period,
            threads: true,
            boot_to_unix: window.began.boot_to_unix,
        };
        let profile = aggregator.finish(summary, &code, &known);
        let mut requests = otlp::requests(&profile, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        for request in &mut requests {
            self.counted.requests += 1;
            let items = request.items();
            let body = request.into_protobuf();
            self.destinations.offer(&Request { signal: Signal::PROFILES, items, body });
        }
        self.counted.samples_oversized += requests.oversized_samples();
        profile.samples.len()
    }

    /// The system calls of a window as metrics.
    fn syscalls(&mut self, window: &Window, rows: Vec<SyscallRow>) {
        let mut resources: FxHashMap<ProcessKey, Attributes> = FxHashMap::default();
        for row in &rows {
            let resource =
                resources.entry(row.process.clone()).or_insert_with(|| window.resource(&row.process));
            if resource.is_empty() {
                *resource = least_resource(&row.process);
            }
        }
        let report = SyscallReport {
            start: window.began.unix,
            duration: window.duration,
            rows,
            slow: None,
            open: Vec::new(),
            begun_before: 0,
            lost: BTreeMap::new(),
            resources,
        };
        let nanos = u64::try_from(window.duration.as_nanos()).unwrap_or(u64::MAX);
        let end = UnixNanos(window.began.unix.0.saturating_add(nanos));
        let metrics = descry_export::syscall::metrics(&report, Temporality::Delta);
        let interval = Interval { start: window.began.unix, end };
        let made = metrics_requests(&metrics, interval, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        self.offer_metrics(made);
    }

    fn offer_metrics(&mut self, made: MetricsRequests) {
        self.counted.points_oversized += made.oversized_points;
        for request in made.requests {
            self.counted.requests += 1;
            let items = request.items();
            let body = request.into_protobuf();
            self.destinations.offer(&Request { signal: Signal::METRICS, items, body });
        }
    }
}
