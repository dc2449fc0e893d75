//! From sums to the finished profile.

use std::sync::Arc;
use std::time::Duration;

use descry_decode::ids::UnixNanos;
use descry_symbol::{SourceFrame, Symbolized};
use rustc_hash::FxHashMap;

use crate::aggregator::{Aggregator, Interner, Key, Total};
use crate::chain::{self, Frame};
use crate::profile::{
    Attributes, FrameKind, Function, Line, Location, Profile, ProfileKind, ProfileMapping, ProfileProcess,
    ProfileSample, Stack, Waited,
};
use crate::prune::prune;
use crate::reason::reason;

/// What a place in code turned out to be.
#[derive(Clone, Debug)]
pub struct KnownCode {
    /// The binary; none: in no file. The `has_*` fields are filled in by [`Aggregator::finish`].
    pub mapping: Option<ProfileMapping>,
    /// The address to show: in the binary's own numbering, or at run time.
    pub address: u64,
    /// Its functions.
    pub symbolized: Symbolized,
}

/// Who a process is.
#[derive(Clone, Debug, Default)]
pub struct KnownProcess {
    /// Its Resource.
    pub resource: Attributes,
}

/// The measurement as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// What was measured.
    pub kind: ProfileKind,
    /// When it began.
    pub start: UnixNanos,
    /// How long it took.
    pub duration: Duration,
    /// Nanoseconds from one sample to the next on one CPU; 0: not sampled.
    pub period: u64,
    /// Whether threads are kept apart.
    pub threads: bool,
    /// Unix time minus boot time (ns): turns the samples' times into Unix times.
    pub boot_to_unix: i64,
}

/// Numbers for values, in the order of first use.
struct Table<T>(Interner<T>);

impl<T: Clone + Eq + std::hash::Hash> Table<T> {
    fn number(&mut self, value: &T) -> u32 {
        self.0.intern(value, usize::MAX, || value.clone()).unwrap_or_default()
    }
}

impl Aggregator {
    /// Builds the profile. `code` and `processes` are parallel to [`Aggregator::code`] and [`Aggregator::processes`];
    /// what is missing at their end stays unknown.
    pub fn finish(self, summary: Summary, code: &[KnownCode], processes: &[KnownProcess]) -> Profile {
        let mut functions = Table(Interner::default());
        let mut mappings: Vec<ProfileMapping> = Vec::new();
        let mut mapping_numbers: FxHashMap<ProfileMapping, u32> = FxHashMap::default();
        // Places that turn out equal (one file under two ids) become one location.
        let mut locations = Table(Interner::default());
        let mut location_of = Vec::with_capacity(code.len());
        for known in code {
            let mapping = known.mapping.as_ref().map(|mapping| {
                *mapping_numbers.entry(mapping.clone()).or_insert_with(|| {
                    mappings.push(mapping.clone());
                    mappings.len() as u32 - 1
                })
            });
            let lines: Vec<Line> =
                known.symbolized.frames.iter().map(|frame| line(frame, &mut functions)).collect();
            if let Some(mapping) = mapping.and_then(|number| mappings.get_mut(number as usize)) {
                let frames = &known.symbolized.frames;
                mapping.has_functions |= !frames.is_empty();
                mapping.has_filenames |= frames.iter().any(|frame| frame.file.is_some());
                mapping.has_lines |= frames.iter().any(|frame| frame.line.is_some());
                mapping.has_inlines |= frames.iter().any(|frame| frame.inlined);
            }
            let location = Location { mapping, address: known.address, kind: known.symbolized.kind, lines };
            location_of.push(locations.number(&location));
        }

        let chains = Chains { aggregator: &self, code, location_of: &location_of };
        let (samples, stacks) = self.samples(&summary, &chains);
        let mut profile = Profile {
            kind: summary.kind,
            start: summary.start,
            duration: summary.duration,
            period: summary.period,
            processes: self.known_processes(processes),
            samples,
            mappings,
            functions: functions.0.values,
            locations: locations.0.values,
            stacks,
        };
        prune(&mut profile);
        profile
    }

    fn known_processes(&self, known: &[KnownProcess]) -> Vec<ProfileProcess> {
        let process = |(number, (tgid, name)): (usize, &(_, Arc<str>))| ProfileProcess {
            tgid: *tgid,
            name: Arc::clone(name),
            resource: known.get(number).map(|process| process.resource.clone()).unwrap_or_default(),
        };
        self.processes.values.iter().enumerate().map(process).collect()
    }

    /// The samples, sorted, so that equal measurements give equal files, and their stacks.
    fn samples(&self, summary: &Summary, chains: &Chains<'_>) -> (Vec<ProfileSample>, Vec<Stack>) {
        let unix = |boot: u64| UnixNanos(boot.saturating_add_signed(summary.boot_to_unix));
        let mut stacks = Table(Interner::default());
        let mut shown: FxHashMap<_, (u32, Option<Waited>)> = FxHashMap::default();
        let mut merged: FxHashMap<_, ProfileSample> = FxHashMap::default();
        // In the order of the stacks, so that equal measurements number them equally.
        let mut totals: Vec<(&Key, &Total)> = self.totals.iter().collect();
        totals.sort_unstable_by_key(|(key, _)| (key.stack, key.wait.map(|wait| wait.waker), key.process));
        for (key, total) in totals {
            let (stack, waited) = *shown.entry((key.stack, key.wait)).or_insert_with(|| {
                let (stack, waited) = chains.of(key);
                (stacks.number(&stack), waited)
            });
            let thread = key.thread.filter(|_| summary.threads);
            let sample = merged
                .entry((key.process, thread, key.cpu, stack, key.timed, waited))
                .or_insert_with(|| ProfileSample {
                    process: key.process,
                    thread,
                    cpu: key.cpu,
                    stack,
                    waited,
                    count: 0,
                    weight: 0,
                    longest: 0,
                    timestamps: Vec::new(),
                });
            sample.count += total.count;
            sample.weight = sample.weight.saturating_add(total.weight);
            sample.longest = sample.longest.max(total.longest);
            sample.timestamps.extend(total.times.iter().map(|time| unix(time.0)));
        }
        let mut samples: Vec<ProfileSample> = merged.into_values().collect();
        for sample in &mut samples {
            sample.timestamps.sort_unstable();
        }
        samples.sort_unstable_by_key(|sample| {
            let untimed = sample.timestamps.is_empty();
            (sample.process, sample.thread, sample.cpu, sample.stack, sample.waited, untimed)
        });
        (samples, stacks.0.values)
    }
}

/// Stacks with names, as they are shown.
struct Chains<'a> {
    aggregator: &'a Aggregator,
    code: &'a [KnownCode],
    location_of: &'a [u32],
}

impl<'a> Chains<'a> {
    /// The stack of a sample or wait, and what kind of wait it is.
    fn of(&self, key: &Key) -> (Stack, Option<Waited>) {
        let (codes, truncated) = self.stack(key.stack);
        let Some(wait) = key.wait else {
            return (Stack { locations: self.locations(codes).collect(), truncated }, None);
        };
        let kernel = self.frames(codes).take_while(|frame| frame.kind == FrameKind::Kernel);
        let reason = reason(&wait.circumstances, kernel.map(|frame| frame.name));
        let waited = Waited { reason, state: wait.circumstances.state };
        let own = codes.get(chain::measuring(self.frames(codes))..).unwrap_or_default();
        let mut locations = Vec::with_capacity(own.len());
        if let Some((waker, label)) = wait.waker {
            let (codes, _) = self.stack(waker);
            let codes = codes.get(chain::measuring(self.frames(codes))..).unwrap_or_default();
            let until = chain::until_interrupt(self.frames(codes));
            let label = if until == codes.len() { Some(label) } else { self.aggregator.interrupt };
            // Turned round, so that what was called last stands beside the thread that it woke.
            locations.extend(self.locations(codes.get(..until).unwrap_or_default()).rev());
            locations.extend(self.locations(label.as_slice()));
        }
        locations.extend(self.locations(own));
        (Stack { locations, truncated }, Some(waited))
    }

    fn stack(&self, number: u32) -> (&'a [u32], bool) {
        let known = self.aggregator.stacks.values.get(number as usize);
        known.map_or((&[], false), |(codes, truncated)| (codes, *truncated))
    }

    fn frames(&self, codes: &'a [u32]) -> impl Iterator<Item = Frame<'a>> + Clone {
        let code = self.code;
        codes.iter().filter_map(move |number| {
            let known = &code.get(*number as usize)?.symbolized;
            let name = known.frames.last().map(|frame| &*frame.function);
            Some(Frame { kind: known.kind, name })
        })
    }

    fn locations(&self, codes: &[u32]) -> impl DoubleEndedIterator<Item = u32> {
        codes.iter().filter_map(|code| self.location_of.get(*code as usize).copied())
    }
}

fn line(frame: &SourceFrame, functions: &mut Table<Function>) -> Line {
    let name = Arc::clone(&frame.function);
    let system_name = frame.system_name.clone().unwrap_or_else(|| Arc::clone(&name));
    let function = functions.number(&Function { name, system_name, file: frame.file.clone() });
    Line { function, line: frame.line.unwrap_or_default(), column: frame.column.unwrap_or_default() }
}
