//! pprof's format: a gzip-compressed `perftools.profiles.Profile`.
//!
//! Two values a sample: `samples`/`count`, and the time (`cpu`, `offcpu` or `wall`/`nanoseconds`), which is shown at
//! first. Labels: `process`, `pid`, and `thread`, `tid`, `cpu` where known, of waits `reason` and `state`. Addresses are those of the ELF file, so a
//! mapping spans the whole address space, which readers take to mean just that; the kernel's keeps its range. A
//! truncated stack ends, at its root, in a function `[truncated]`.

use std::hash::Hash;
use std::io::{self, Write};
use std::sync::Arc;

use descry_aggregate::profile::{AttributeValue, Profile, ProfileKind, state_name};
use descry_proto::pprof;
use flate2::{Compression, GzBuilder};
use indexmap::{IndexMap, IndexSet};
use prost::Message;

use crate::otlp::TRUNCATED;

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    // Without a time of its own in the header, equal profiles give equal files.
    let mut compressed = GzBuilder::new().write(out, Compression::default());
    compressed.write_all(&Builder::new(profile).message().encode_to_vec())?;
    compressed.finish().map(|_| ())
}

/// Entries with ids from 1, in the order in which they came, without duplicates.
#[derive(Debug)]
struct Numbered<T>(IndexSet<T>);

impl<T: Hash + Eq> Numbered<T> {
    fn id(&mut self, entry: T) -> u64 {
        self.0.insert_full(entry).0 as u64 + 1
    }

    /// Entries with their ids.
    fn entries(self) -> impl Iterator<Item = (u64, T)> {
        self.0.into_iter().zip(1u64..).map(|(entry, id)| (id, entry))
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(IndexSet::new())
    }
}

/// Name, system name and file of a function.
type FunctionKey = (i64, i64, i64);
/// Mapping, address and lines of a location.
type LocationKey = (u64, u64, Vec<pprof::Line>);
/// Locations and labels: what makes two samples the same one.
type SampleKey = (Vec<u64>, Vec<pprof::Label>);

struct Builder<'a> {
    profile: &'a Profile,
    strings: IndexSet<Arc<str>>,
    mappings: Numbered<u32>,
    functions: Numbered<FunctionKey>,
    locations: Numbered<LocationKey>,
}

impl<'a> Builder<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            strings: IndexSet::from([Arc::from("")]),
            mappings: Numbered::default(),
            functions: Numbered::default(),
            locations: Numbered::default(),
        }
    }

    fn message(mut self) -> pprof::Profile {
        let profile = self.profile;
        self.add_main_binary();
        let time_type = match profile.kind {
            ProfileKind::Cpu => "cpu",
            ProfileKind::OffCpu => "offcpu",
            ProfileKind::Wall => "wall",
        };
        let counts = self.value_type("samples", "count");
        let times = self.value_type(time_type, "nanoseconds");
        let samples = self.samples();
        pprof::Profile {
            sample_type: vec![counts, times],
            sample: samples,
            mapping: self.mapping_messages(),
            location: self
                .locations
                .entries()
                .map(|(id, (mapping_id, address, line))| pprof::Location {
                    id,
                    mapping_id,
                    address,
                    line,
                    is_folded: false,
                })
                .collect(),
            function: self
                .functions
                .entries()
                .map(|(id, (name, system_name, filename))| pprof::Function {
                    id,
                    name,
                    system_name,
                    filename,
                    start_line: 0,
                })
                .collect(),
            string_table: self.strings.iter().map(|text| text.as_ref().to_owned()).collect(),
            time_nanos: signed(profile.start.0),
            duration_nanos: i64::try_from(profile.duration.as_nanos()).unwrap_or(i64::MAX),
            period_type: (profile.period > 0).then_some(times),
            period: signed(profile.period),
            default_sample_type: times.r#type,
            ..pprof::Profile::default()
        }
    }

    /// Readers take the first mapping for the program; else it would be that of the first leaf, often the kernel's.
    fn add_main_binary(&mut self) {
        let first = self.profile.processes.first().into_iter().flat_map(|process| &process.resource);
        let path = first.into_iter().find_map(|(key, value)| match value {
            AttributeValue::Text(path) if key == "process.executable.path" => Some(path.as_str()),
            _ => None,
        });
        let main =
            path.and_then(|path| self.profile.mappings.iter().position(|mapping| &*mapping.path == path));
        if let Some(index) = main.and_then(|index| u32::try_from(index).ok()) {
            self.mappings.id(index);
        }
    }

    fn samples(&mut self) -> Vec<pprof::Sample> {
        let mut merged: IndexMap<SampleKey, (u64, u64)> = IndexMap::new();
        for sample in &self.profile.samples {
            let locations = self.stack(sample.stack);
            let mut labels = Vec::new();
            if let Some(process) = self.profile.processes.get(sample.process as usize) {
                labels.push(self.text_label("process", &process.name));
                labels.push(self.number_label("pid", process.tgid.0));
            }
            if let Some((tid, name)) = &sample.thread {
                labels.push(self.text_label("thread", &Arc::from(name.to_string())));
                labels.push(self.number_label("tid", tid.0));
            }
            if let Some(cpu) = sample.cpu {
                labels.push(self.number_label("cpu", cpu.0));
            }
            if let Some(waited) = sample.waited {
                labels.push(self.text_label("reason", &Arc::from(waited.reason.as_str())));
                labels.push(self.text_label("state", &Arc::from(state_name(waited.state))));
            }
            let (count, weight) = merged.entry((locations, labels)).or_default();
            *count = count.saturating_add(sample.count);
            *weight = weight.saturating_add(sample.weight);
        }
        let samples = merged.into_iter();
        let samples = samples.map(|((location_id, label), (count, weight))| pprof::Sample {
            location_id,
            value: vec![signed(count), signed(weight)],
            label,
        });
        samples.collect()
    }

    fn stack(&mut self, index: u32) -> Vec<u64> {
        let Some(stack) = self.profile.stacks.get(index as usize) else { return Vec::new() };
        let mut ids: Vec<u64> =
            stack.locations.iter().filter_map(|&location| self.location(location)).collect();
        if stack.truncated {
            let name = self.string(&Arc::from(TRUNCATED));
            let line = pprof::Line { function_id: self.functions.id((name, name, 0)), line: 0, column: 0 };
            ids.push(self.locations.id((0, 0, vec![line])));
        }
        ids
    }

    fn location(&mut self, index: u32) -> Option<u64> {
        let location = self.profile.locations.get(index as usize)?;
        let lines = location.lines.iter().filter_map(|line| {
            let function = self.profile.functions.get(line.function as usize)?;
            let key = (
                self.string(&function.name),
                self.string(&function.system_name),
                function.file.as_ref().map_or(0, |file| self.string(file)),
            );
            Some(pprof::Line {
                function_id: self.functions.id(key),
                line: i64::from(line.line),
                column: i64::from(line.column),
            })
        });
        let lines = lines.collect();
        let known = |index: &u32| (*index as usize) < self.profile.mappings.len();
        let mapping = location.mapping.filter(known).map_or(0, |mapping| self.mappings.id(mapping));
        Some(self.locations.id((mapping, location.address, lines)))
    }

    fn mapping_messages(&mut self) -> Vec<pprof::Mapping> {
        let profile = self.profile;
        let mut messages = Vec::new();
        for (id, index) in std::mem::take(&mut self.mappings).entries() {
            let Some(mapping) = profile.mappings.get(index as usize) else { continue };
            let build_id = mapping.gnu_build_id.as_ref().or(mapping.go_build_id.as_ref());
            let mut of_mapping =
                profile.locations.iter().filter(|location| location.mapping == Some(index)).peekable();
            let ranged = of_mapping.peek().is_some()
                && of_mapping.all(|location| (mapping.start..mapping.end).contains(&location.address));
            let (memory_start, memory_limit, file_offset) =
                if ranged { (mapping.start, mapping.end, mapping.offset) } else { (0, u64::MAX, 0) };
            messages.push(pprof::Mapping {
                id,
                memory_start,
                memory_limit,
                file_offset,
                filename: self.string(&mapping.path),
                build_id: build_id.map_or(0, |build_id| self.string(build_id)),
                has_functions: mapping.has_functions,
                has_filenames: mapping.has_filenames,
                has_line_numbers: mapping.has_lines,
                has_inline_frames: mapping.has_inlines,
            });
        }
        messages
    }

    fn text_label(&mut self, key: &str, text: &Arc<str>) -> pprof::Label {
        pprof::Label { key: self.string(&Arc::from(key)), str: self.string(text), num: 0, num_unit: 0 }
    }

    fn number_label(&mut self, key: &str, number: u32) -> pprof::Label {
        let key = self.string(&Arc::from(key));
        pprof::Label { key, str: 0, num: i64::from(number), num_unit: 0 }
    }

    fn value_type(&mut self, name: &str, unit: &str) -> pprof::ValueType {
        pprof::ValueType { r#type: self.string(&Arc::from(name)), unit: self.string(&Arc::from(unit)) }
    }

    fn string(&mut self, text: &Arc<str>) -> i64 {
        let index = match self.strings.get_index_of(text.as_ref()) {
            Some(index) => index,
            None => self.strings.insert_full(Arc::clone(text)).0,
        };
        signed(index as u64)
    }
}

/// The format's numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
