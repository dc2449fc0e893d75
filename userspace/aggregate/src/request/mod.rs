//! Requests added up: how many, how many failed, how long they took (the RED method), by process and by what the semantic
//! conventions tell them apart.
//!
//! Give [`RequestMetrics`] every span with its process, before anything is sampled; read the [`Row`]s now and then, and
//! say so ([`RequestMetrics::told`]). What a row is of, [`Instrument`] says. [`ServiceGraph`] adds up the same spans by
//! who asked whom. It is pure, and keeps a bounded number of rows: what is beyond is added up in one row a process and
//! instrument, as OpenTelemetry's SDKs do ("Cardinality limits" in the metrics SDK's specification).

mod exemplar;
mod graph;
mod instrument;
mod key;

use std::hash::Hash;

use descry_abi::histogram::Histogram;
use descry_assemble::span::{Span, Value};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::histogram::{add, record};
pub use exemplar::{EXEMPLARS, Exemplar};
use exemplar::{Random, Reservoir};
pub use graph::{Connected, Edge, EdgeCounters, Ends, Node, ServiceGraph};
pub use instrument::Instrument;
use key::{Borrowed, Key};

/// What a number that grows is counted from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Since the last time that it was told.
    Delta,
    /// Since it was counted at all.
    #[default]
    Cumulative,
}

/// How much is kept. A row takes some 2 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes.
    pub processes: usize,
    /// Rows of one process and instrument, beside that of all others.
    pub rows: usize,
    /// Rows of all, beside those of all others.
    pub all_rows: usize,
}

impl Default for Limits {
    /// The SDKs' limit for one instrument, and 16 MiB for all.
    fn default() -> Self {
        Self { processes: 1024, rows: 2000, all_rows: 8192 }
    }
}

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests in the row of all others.
    pub overflow: u64,
    /// Requests that are in no row, as their process found no room.
    pub process_dropped: u64,
}

/// Adds requests up. `P` is a process: two are the same where they are equal.
#[derive(Debug)]
pub struct RequestMetrics<P> {
    limits: Limits,
    processes: IndexMap<P, Process, FxBuildHasher>,
    rows: usize,
    random: Random,
    counters: Counters,
}

/// Requests of a process.
#[derive(Debug, Default)]
struct Process {
    rows: IndexMap<Key, Box<Sum>, FxBuildHasher>,
    /// How many rows there are of each instrument.
    count: [usize; Instrument::ALL.len()],
    others: [Option<Box<Sum>>; Instrument::ALL.len()],
    end: End,
}

/// Whether something may still come of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Lives,
    Ended,
    /// It was told since. Spans that waited for their parents came until now.
    Told,
}

/// What is added up.
#[derive(Debug, Default)]
struct Sum {
    durations: Histogram,
    exemplars: Reservoir,
}

/// What was added up of a process's requests.
#[derive(Debug)]
pub struct Row<'a> {
    /// What they are.
    pub instrument: Instrument,
    /// What they have in common, by [`Instrument::attributes`]; `None` for those that found no row of their own.
    pub attributes: Option<&'a [Option<Value>]>,
    /// How long they took (ns).
    pub durations: &'a Histogram,
    /// Some of them since the last time that they were told.
    pub exemplars: Vec<Exemplar>,
}

impl<P: Hash + Eq + Clone> RequestMetrics<P> {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            processes: IndexMap::default(),
            rows: 0,
            random: Random::default(),
            counters: Counters::default(),
        }
    }

    /// Adds a request. One that is no exemplar (its trace will not be kept) is counted all the same. Spans of other work
    /// than [`Instrument`] knows are left out.
    pub fn record(&mut self, process: &P, span: &Span, is_exemplar: bool) {
        self.add(process, span, |sum, random| {
            let duration = span.end.0.saturating_sub(span.start.0);
            record(&mut sum.durations, duration);
            if is_exemplar {
                let exemplar = Exemplar { trace: span.trace, span: span.span, time: span.end, duration };
                sum.exemplars.offer(exemplar, random);
            }
        });
    }

    /// Adds requests that differ from a span in their times only, with some of them whose traces will be kept.
    pub fn record_many(
        &mut self,
        process: &P,
        span: &Span,
        durations: &Histogram,
        exemplars: &[Option<Exemplar>],
    ) {
        self.add(process, span, |sum, random| {
            add(&mut sum.durations, durations);
            exemplars.iter().flatten().for_each(|exemplar| sum.exemplars.offer(*exemplar, random));
        });
    }

    fn add(&mut self, process: &P, span: &Span, add: impl FnOnce(&mut Sum, &mut Random)) {
        let Some(instrument) = Instrument::of(span) else { return };
        let is_full = self.processes.len() >= self.limits.processes;
        let found = match self.processes.get_mut(process) {
            Some(found) => found,
            None if is_full => {
                self.counters.process_dropped += 1;
                return;
            }
            None => self.processes.entry(process.clone()).or_default(),
        };
        let key = Borrowed::new(instrument, span);
        let number = instrument as usize;
        let has_room = found.count[number] < self.limits.rows && self.rows < self.limits.all_rows;
        let sum = match found.rows.get_mut(&key) {
            Some(sum) => sum,
            None if has_room => {
                found.count[number] += 1;
                self.rows += 1;
                found.rows.entry(key.to_owned()).or_default()
            }
            None => {
                self.counters.overflow += 1;
                found.others[number].get_or_insert_default()
            }
        };
        add(sum, &mut self.random);
    }

    /// A process ended: its rows go once they were told twice, since its last spans may wait for their parents.
    pub fn ended(&mut self, process: &P) {
        if let Some(process) = self.processes.get_mut(process) {
            process.end = End::Ended;
        }
    }

    /// Each process with its rows, those of an instrument together; none without requests.
    pub fn rows(&self) -> impl Iterator<Item = (&P, Vec<Row<'_>>)> {
        self.processes
            .iter()
            .map(|(process, sums)| (process, sums.rows()))
            .filter(|(_, rows)| !rows.is_empty())
    }

    /// The rows were told: exemplars begin anew, and with [`Temporality::Delta`] everything does.
    pub fn told(&mut self, temporality: Temporality) {
        self.processes.retain(|_, process| process.end != End::Told);
        for process in self.processes.values_mut() {
            if process.end == End::Ended {
                process.end = End::Told;
            }
            if temporality == Temporality::Delta {
                *process = Process { end: process.end, ..Process::default() };
            }
            let sums = process.others.iter_mut().flatten().chain(process.rows.values_mut());
            sums.for_each(|sum| sum.exemplars.clear());
        }
        self.rows = self.processes.values().map(|process| process.rows.len()).sum();
    }

    /// What found no room.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl Process {
    fn rows(&self) -> Vec<Row<'_>> {
        let of = |instrument: Instrument| {
            let own = self.rows.iter().filter(move |(key, _)| key.instrument == instrument);
            let own = own.map(|(key, sum)| (Some(&*key.values), sum));
            let others = self.others[instrument as usize].as_ref().map(|sum| (None, sum));
            own.chain(others).map(move |(attributes, sum)| Row {
                instrument,
                attributes,
                durations: &sum.durations,
                exemplars: sum.exemplars.kept(),
            })
        };
        Instrument::ALL.into_iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
