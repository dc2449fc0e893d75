//! Functions that the configuration names: probes in the files of watched processes, calls to spans, sums to metrics.

use std::collections::{BTreeMap, VecDeque};

use descry_abi::function::FunctionKey;
use descry_config::Config;
use descry_decode::Call;
use descry_decode::ids::{Comm, FunctionNumber, Tgid, UnixNanos};
use descry_export::function::{self, FunctionSums};
use descry_export::otlp::metrics::{
    Interval, MetricsRequests, ProcessMetrics, Temporality, metrics_requests,
};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions};
use descry_export::span::SpanProcess;
use descry_function::{Pattern, Wishes};
use descry_probe::Session;
use descry_process::identity;
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use super::own::Own;
use super::rules::Rules;
use crate::counted::counters;
use crate::failure::Failure;
use crate::measure::{Clocks, Tracker, add_attributes};
use crate::requests::Requests;
use crate::requests::SpanOutput;
use crate::trace::{Catalog, CatalogCounters, MAX_PLACES, Traceable, Work, attach_all, span};

/// Processes whose files wait to be searched at most.
const MAX_WAITING: usize = 4096;
/// Processes whose files are searched between two drains at most: nobody empties the ring meanwhile.
const SEARCHES: usize = 16;
/// Processes whose Resource is kept at most; about 2 KiB each.
const MAX_PROCESSES: usize = 8192;

counters! {
    /// Counters of traced functions.
    FunctionCounters = "descry.agent." {
        /// Calls of functions in processes that the rules leave out.
        calls_excluded,
        /// Processes whose files were not searched for functions because too many changed at once. Where another process
        /// uses the same files, nothing is missing.
        function_processes_skipped,
    }
}

/// Follows calls.
pub struct Functions {
    catalog: Catalog,
    /// Places that are probed.
    places: usize,
    /// Processes whose files were not searched yet.
    waiting: VecDeque<Tgid>,
    processes: FxHashMap<Tgid, SpanProcess>,
    /// Those that have ended since sums were told last.
    ended: FxHashMap<Tgid, SpanProcess>,
    /// How many calls were told of each.
    told: FxHashMap<FunctionKey, u64>,
    attributes: BTreeMap<String, String>,
    began: Clocks,
    counters: FunctionCounters,
}

/// The patterns of these texts.
///
/// # Errors
/// The first that is none.
pub fn patterns(names: &[String]) -> anyhow::Result<Vec<Pattern>> {
    names.iter().map(|name| Pattern::parse(name).map_err(anyhow::Error::from)).collect()
}

impl Functions {
    /// None yet of those that a configuration names, if it names any.
    ///
    /// # Errors
    /// Names that are no patterns.
    pub fn new(config: &Config, began: Clocks) -> anyhow::Result<Option<Self>> {
        if config.functions.names.is_empty() {
            return Ok(None);
        }
        let what = Traceable {
            functions: patterns(&config.functions.names)?,
            usdt: Vec::new(),
            wishes: Wishes { arguments: false, exits_by_instruction: false },
            lines: true,
        };
        Ok(Some(Self {
            catalog: Catalog::new(what),
            places: 0,
            waiting: VecDeque::new(),
            processes: FxHashMap::default(),
            ended: FxHashMap::default(),
            told: FxHashMap::default(),
            attributes: config.resource.attributes.clone(),
            began,
            counters: FunctionCounters::default(),
        }))
    }

    /// Probes what the processes of this moment use.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn ready(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        rules: &mut Rules,
        own: &Own,
    ) -> Result<(), Failure> {
        let all = descry_process::target::processes().map_err(anyhow::Error::from)?;
        for tgid in all {
            self.search(session, tracker, rules, own, tgid);
        }
        for text in self.catalog.missing() {
            info!("{text}; files that become known later are searched too");
        }
        Ok(())
    }

    /// These run another program, or have new mappings.
    pub fn changed(&mut self, processes: impl Iterator<Item = Tgid>) {
        for tgid in processes {
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push_back(tgid);
            } else {
                self.counters.function_processes_skipped += 1;
            }
        }
    }

    /// Probes what some of the processes use that have changed.
    pub fn follow(&mut self, session: &mut Session, tracker: &mut Tracker, rules: &mut Rules, own: &Own) {
        for _ in 0..SEARCHES {
            let Some(tgid) = self.waiting.pop_front() else { return };
            self.search(session, tracker, rules, own, tgid);
        }
    }

    fn search(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        rules: &mut Rules,
        own: &Own,
        tgid: Tgid,
    ) {
        if own.is(tgid) || !rules.of(tgid, Comm::default(), || tracker.who(tgid)).functions {
            return;
        }
        tracker.learn(tgid);
        let found = self.catalog.scan(tracker.processes(), tgid);
        if found.is_empty() {
            return;
        }
        let places: usize = found.iter().map(Work::places).sum();
        if self.places + places > MAX_PLACES {
            let functions: usize = found.iter().map(|work| work.items.len()).sum();
            warn!(
                "{functions} functions of new files are not traced: over {MAX_PLACES} places would be probed"
            );
            self.catalog.counters().functions_over_limit += functions as u64;
            return;
        }
        self.places += places;
        self.process(tracker, tgid, Comm::default());
        // Whoever uses the file runs into its probes: processes come and go, and each would have to be attached to.
        if let Err(failure) = attach_all(session, &mut self.catalog, &found, None) {
            warn!(reason = %failure, "functions of new files are not traced");
        }
    }

    /// A call, as a span that hangs under its request where there is one. What has no request to wait for is returned.
    pub fn call<O: SpanOutput>(
        &mut self,
        tracker: &mut Tracker,
        call: &Call,
        requests: Option<&mut Requests<O>>,
    ) -> Option<(SpanProcess, descry_assemble::span::Span)> {
        let span = span(call, self.catalog.get(call.function)?, self.began.boot_to_unix);
        let process = self.process(tracker, call.tgid, call.comm);
        let before =
            |parent: u64| UnixNanos(span.start.0.saturating_sub(call.start.0.saturating_sub(parent)));
        let around = call.parent.map(|parent| before(parent.0));
        match requests {
            Some(requests) => {
                requests.call(call, around, process, span);
                None
            }
            None => Some((process, span)),
        }
    }

    /// A call of a process that the rules leave out.
    pub fn exclude(&mut self) {
        self.counters.calls_excluded += 1;
    }

    /// A process has become another one, or is gone.
    pub fn ended(&mut self, tgid: Tgid) {
        if let Some(process) = self.processes.remove(&tgid)
            && self.ended.len() < MAX_PROCESSES
        {
            self.ended.insert(tgid, process);
        }
    }

    /// The sums of processes that have called something since they were told last. Those of processes that are gone are
    /// forgotten.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tell(
        &mut self,
        session: &mut Session,
        tracker: &mut Tracker,
        rules: &mut Rules,
        now: UnixNanos,
    ) -> Result<MetricsRequests, Failure> {
        let mut by_process: BTreeMap<Tgid, Vec<FunctionSums>> = BTreeMap::new();
        let ended = std::mem::take(&mut self.ended);
        for figures in session.functions()? {
            let (tgid, totals) = (Tgid(figures.key.tgid), figures.totals);
            let calls = totals.durations.count + totals.unfinished;
            let has_news = calls != self.told.get(&figures.key).copied().unwrap_or_default();
            // The end of some was not heard of.
            let is_gone = ended.contains_key(&tgid) || !has_news && identity::start_time(tgid).is_err();
            if is_gone {
                session.forget_function(figures.key)?;
                self.told.remove(&figures.key);
            } else {
                self.told.insert(figures.key, calls);
            }
            let Some(traced) = self.catalog.get(FunctionNumber(figures.key.function)) else { continue };
            if has_news && rules.of(tgid, Comm::default(), || tracker.who(tgid)).functions {
                by_process.entry(tgid).or_default().push(FunctionSums {
                    name: traced.name.clone(),
                    file: traced.file.clone(),
                    durations: totals.durations,
                    unfinished: totals.unfinished,
                });
            }
        }
        let named: Vec<(SpanProcess, Vec<FunctionSums>)> = by_process
            .into_iter()
            .map(|(tgid, sums)| {
                let known = ended.get(&tgid).cloned();
                (known.unwrap_or_else(|| self.process(tracker, tgid, Comm::default())), sums)
            })
            .collect();
        let processes: Vec<ProcessMetrics<'_>> = named
            .iter()
            .map(|(process, sums)| ProcessMetrics {
                resource: process.resource(),
                metrics: function::metrics(sums, Temporality::Cumulative),
            })
            .collect();
        let interval = Interval { start: self.began.unix, end: now };
        Ok(metrics_requests(&processes, interval, &OtlpOptions::default(), MAX_REQUEST_BYTES))
    }

    /// Counters so far.
    pub fn counters(&self) -> FunctionCounters {
        self.counters
    }

    /// Counters of what is traced so far.
    pub fn catalog_counters(&self) -> CatalogCounters {
        self.catalog.counted()
    }

    fn process(&mut self, tracker: &mut Tracker, tgid: Tgid, comm: Comm) -> SpanProcess {
        if let Some(process) = self.processes.get(&tgid) {
            return process.clone();
        }
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        let mut resource = tracker.resource(tgid, comm).1;
        add_attributes(&mut resource, &self.attributes);
        let process = SpanProcess::new(resource);
        self.processes.insert(tgid, process.clone());
        process
    }
}
