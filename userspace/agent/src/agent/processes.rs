//! What the watched processes take: CPU time and memory, as OTLP metrics and for scraping.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use descry_assemble::span::Value;
use descry_decode::ids::{Tgid, UnixNanos};
use descry_export::otlp::metrics::{
    Interval, Metric, MetricsRequests, Number, NumberPoint, Points, ProcessMetrics, Temporality,
    metrics_requests,
};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions};
use descry_process::AttributeValue;
use descry_process::identity::{self, Attributes, StartTime, Usage};
use lru::LruCache;
use nix::unistd::{SysconfVar, sysconf};

use crate::counted::counters;
use crate::measure::Clocks;

/// Processes at most; those that had samples last are kept.
const MAX_PROCESSES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

counters! {
    /// Counters of the metrics of processes.
    ProcessesCounters = "descry.agent." {
        /// Processes without metrics, because newer ones took their place.
        processes_forgotten,
    }
}

/// The processes that had samples lately.
#[derive(Debug)]
pub struct Processes(Mutex<State>);

#[derive(Debug)]
struct State {
    known: LruCache<Tgid, Known>,
    /// When metrics were made last.
    since: UnixNanos,
    page_bytes: u64,
    counters: ProcessesCounters,
}

#[derive(Debug)]
struct Known {
    start: StartTime,
    resource: Attributes,
    /// What was told last.
    told: Usage,
}

/// A process as it is scraped.
#[derive(Debug)]
pub struct Row {
    /// Its id.
    pub tgid: Tgid,
    /// `service.name`.
    pub service: String,
    /// `process.executable.name`.
    pub executable: String,
    /// CPU time outside of the kernel, and in it.
    pub cpu: [Duration; 2],
    /// Memory that is present (bytes).
    pub resident: u64,
    /// Address space (bytes).
    pub virtual_bytes: u64,
}

impl Processes {
    /// One that knows nobody.
    ///
    /// # Errors
    /// If the system has no clocks.
    pub fn new() -> anyhow::Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
        Ok(Self(Mutex::new(State {
            known: LruCache::new(MAX_PROCESSES),
            since: Clocks::read()?.unix,
            page_bytes: page.context("the system does not tell its page size")?,
            counters: ProcessesCounters::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that had samples. Of one that is gone nothing can be told.
    pub fn note(&self, tgid: Tgid, resource: &Attributes) {
        if resource.is_empty() {
            return;
        }
        let mut state = self.lock();
        let Ok(stat) = identity::stat(tgid) else {
            state.known.pop(&tgid);
            return;
        };
        if let Some(known) = state.known.get_mut(&tgid)
            && known.start == stat.start_time
        {
            known.resource.clone_from(resource);
            return;
        }
        let known = Known { start: stat.start_time, resource: resource.clone(), told: stat.usage };
        if let Some((forgotten, _)) = state.known.push(tgid, known)
            && forgotten != tgid
        {
            state.counters.processes_forgotten += 1;
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> ProcessesCounters {
        self.lock().counters
    }

    /// What each has taken since this was called last, and its memory now.
    ///
    /// # Errors
    /// If the system has no clocks.
    pub fn metrics(&self) -> anyhow::Result<MetricsRequests> {
        let mut state = self.lock();
        let end = Clocks::read()?.unix;
        let interval = Interval { start: std::mem::replace(&mut state.since, end), end };
        let page_bytes = state.page_bytes;
        forget_ended(&mut state);
        let mut points = Vec::new();
        for (tgid, known) in state.known.iter_mut() {
            let Ok(stat) = identity::stat(*tgid) else { continue };
            let before = std::mem::replace(&mut known.told, stat.usage);
            points.push((&known.resource, of_process(before, stat.usage, page_bytes)));
        }
        let processes: Vec<ProcessMetrics<'_>> =
            points.into_iter().map(|(resource, metrics)| ProcessMetrics { resource, metrics }).collect();
        Ok(metrics_requests(&processes, interval, &OtlpOptions::default(), MAX_REQUEST_BYTES))
    }

    /// All that live, as they are now.
    pub fn rows(&self) -> Vec<Row> {
        let mut state = self.lock();
        forget_ended(&mut state);
        let page_bytes = state.page_bytes;
        let rows = state.known.iter().filter_map(|(tgid, known)| {
            let usage = identity::stat(*tgid).ok()?.usage;
            let text = |key| text(&known.resource, key);
            Some(Row {
                tgid: *tgid,
                service: text("service.name"),
                executable: text("process.executable.name"),
                cpu: [usage.user, usage.system],
                resident: usage.resident_pages.saturating_mul(page_bytes),
                virtual_bytes: usage.virtual_bytes,
            })
        });
        rows.collect()
    }
}

fn forget_ended(state: &mut State) {
    let is_there =
        |tgid: Tgid, known: &Known| identity::start_time(tgid).is_ok_and(|start| start == known.start);
    let ended: Vec<Tgid> =
        state.known.iter().filter(|(tgid, known)| !is_there(**tgid, known)).map(|(tgid, _)| *tgid).collect();
    for tgid in ended {
        state.known.pop(&tgid);
    }
}

fn text(resource: &Attributes, key: &str) -> String {
    let value = resource.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    match value {
        Some(AttributeValue::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

/// `process.cpu.time`, `process.memory.usage` and `process.memory.virtual` of the semantic conventions.
fn of_process(before: Usage, now: Usage, page_bytes: u64) -> Vec<Metric> {
    let seconds = |mode: &'static str, before: Duration, now: Duration| NumberPoint {
        attributes: vec![("cpu.mode".into(), Value::Text(mode.into()))],
        value: Number::Double(now.saturating_sub(before).as_secs_f64()),
    };
    let bytes = |name: &'static str, description: &'static str, bytes: u64| Metric {
        name: name.into(),
        description: description.into(),
        points: Points::Sum {
            unit: "By".into(),
            points: vec![NumberPoint {
                attributes: Vec::new(),
                value: Number::Int(i64::try_from(bytes).unwrap_or(i64::MAX)),
            }],
            monotonic: false,
            temporality: Temporality::Cumulative,
        },
    };
    vec![
        Metric {
            name: "process.cpu.time".into(),
            description: "Total CPU seconds broken down by different states.".into(),
            points: Points::Sum {
                unit: "s".into(),
                points: vec![
                    seconds("user", before.user, now.user),
                    seconds("system", before.system, now.system),
                ],
                monotonic: true,
                temporality: Temporality::Delta,
            },
        },
        bytes(
            "process.memory.usage",
            "The amount of physical memory in use.",
            now.resident_pages.saturating_mul(page_bytes),
        ),
        bytes("process.memory.virtual", "The amount of committed virtual memory.", now.virtual_bytes),
    ]
}
