//! From sums to the finished profile.

use std::sync::Arc;
use std::time::Duration;

use descry_decode::ids::UnixNanos;
use descry_symbol::{SourceFrame, Symbolized};
use rustc_hash::FxHashMap;

use crate::aggregator::{Aggregator, Interner};
use crate::profile::{
    Attributes, Function, Line, Location, Profile, ProfileKind, ProfileMapping, ProfileProcess,
    ProfileSample, Stack,
};

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

        let mut stacks = Table(Interner::default());
        let mut stack_of = Vec::with_capacity(self.stacks.values.len());
        for (frames, truncated) in &self.stacks.values {
            let frames = frames.iter().filter_map(|code| location_of.get(*code as usize).copied()).collect();
            stack_of.push(stacks.number(&Stack { locations: frames, truncated: *truncated }));
        }

        Profile {
            kind: summary.kind,
            start: summary.start,
            duration: summary.duration,
            period: summary.period,
            processes: self.known_processes(processes),
            samples: self.samples(&summary, &stack_of),
            mappings,
            functions: functions.0.values,
            locations: locations.0.values,
            stacks: stacks.0.values,
        }
    }

    fn known_processes(&self, known: &[KnownProcess]) -> Vec<ProfileProcess> {
        let process = |(number, (tgid, name)): (usize, &(_, Arc<str>))| ProfileProcess {
            tgid: *tgid,
            name: Arc::clone(name),
            resource: known.get(number).map(|process| process.resource.clone()).unwrap_or_default(),
        };
        self.processes.values.iter().enumerate().map(process).collect()
    }

    /// The samples, sorted, so that equal measurements give equal files.
    fn samples(&self, summary: &Summary, stack_of: &[u32]) -> Vec<ProfileSample> {
        let unix = |boot: u64| UnixNanos(boot.saturating_add_signed(summary.boot_to_unix));
        let mut merged: FxHashMap<_, ProfileSample> = FxHashMap::default();
        for (key, total) in &self.totals {
            let Some(&stack) = stack_of.get(key.stack as usize) else { continue };
            let sample =
                merged.entry((key.process, key.thread, key.cpu, stack, key.timed)).or_insert_with(|| {
                    ProfileSample {
                        process: key.process,
                        thread: key.thread,
                        cpu: key.cpu,
                        stack,
                        count: 0,
                        weight: 0,
                        timestamps: Vec::new(),
                    }
                });
            sample.count += total.count;
            sample.weight = sample.weight.saturating_add(total.weight);
            sample.timestamps.extend(total.times.iter().map(|time| unix(time.0)));
        }
        let mut samples: Vec<ProfileSample> = merged.into_values().collect();
        for sample in &mut samples {
            sample.timestamps.sort_unstable();
        }
        samples.sort_unstable_by_key(|sample| {
            (sample.process, sample.thread, sample.cpu, sample.stack, sample.timestamps.is_empty())
        });
        samples
    }
}

fn line(frame: &SourceFrame, functions: &mut Table<Function>) -> Line {
    let name = Arc::clone(&frame.function);
    let system_name = frame.system_name.clone().unwrap_or_else(|| Arc::clone(&name));
    let function = functions.number(&Function { name, system_name, file: frame.file.clone() });
    Line { function, line: frame.line.unwrap_or_default(), column: frame.column.unwrap_or_default() }
}
