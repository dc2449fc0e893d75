//! From the tables of a profile to those of a message.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use descry_aggregate::profile::{Profile, ProfileKind, ProfileMapping, state_name};
use indexmap::IndexMap;
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, Line, Mapping, Profile as ProfileMessage, ProfilesData, ResourceProfiles, Sample,
    ScopeProfiles, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use sha2::{Digest, Sha256};

use super::dictionary::{AttributeContent, Dictionary, LocationContent};
use super::{OtlpOptions, TRUNCATED, attributes};

/// Attributes of a wait: why, and in which state the thread left its CPU. No semantic convention has names for these.
pub(crate) const REASON: &str = "descry.off_cpu.reason";
const STATE: &str = "descry.off_cpu.state";

/// A part of one sample: all of it, or some of its timestamps with their share of the weight.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Index into [`Profile::samples`].
    pub sample: usize,
    /// Of the sample's timestamps.
    pub timestamps: Range<usize>,
    /// How many samples.
    pub count: u64,
    /// Time that they stand for (ns).
    pub weight: u64,
}

impl Piece {
    /// Two pieces of about half the timestamps each; none where there are fewer than two.
    pub fn halves(&self) -> Option<[Self; 2]> {
        if self.timestamps.len() < 2 {
            return None;
        }
        let middle = self.timestamps.start + self.timestamps.len() / 2;
        let count = (self.timestamps.len() / 2) as u64;
        let share = u128::from(self.weight) * u128::from(count) / u128::from(self.count.max(1));
        let weight = u64::try_from(share).unwrap_or(self.weight).min(self.weight);
        Some([
            Self { sample: self.sample, timestamps: self.timestamps.start..middle, count, weight },
            Self {
                sample: self.sample,
                timestamps: middle..self.timestamps.end,
                count: self.count.saturating_sub(count),
                weight: self.weight - weight,
            },
        ])
    }
}

/// A profile with what is the same in each message made from it.
#[derive(Debug)]
pub struct Source<'a> {
    profile: &'a Profile,
    options: OtlpOptions,
    /// Start and length (ns since the epoch, ns): every timestamp lies within.
    window: (u64, u64),
    /// Whether every sample has its timestamps.
    timed: bool,
    /// For each mapping, whether all its locations lie in its memory range.
    ranged: Vec<bool>,
}

impl<'a> Source<'a> {
    /// Looks through the profile once.
    pub fn new(profile: &'a Profile, options: OtlpOptions) -> Self {
        let timed = !profile.samples.is_empty()
            && profile.samples.iter().all(|sample| sample.timestamps.len() as u64 == sample.count);
        let mut start = profile.start.0;
        let mut end = start.saturating_add(u64::try_from(profile.duration.as_nanos()).unwrap_or(u64::MAX));
        for time in profile.samples.iter().flat_map(|sample| &sample.timestamps).filter(|_| timed) {
            start = start.min(time.0);
            end = end.max(time.0.saturating_add(1));
        }
        let mut ranged: Vec<bool> =
            profile.mappings.iter().map(|mapping| mapping.start < mapping.end).collect();
        for location in &profile.locations {
            let Some(index) = location.mapping.map(|index| index as usize) else { continue };
            if let (Some(ranged), Some(mapping)) = (ranged.get_mut(index), profile.mappings.get(index)) {
                *ranged &= (mapping.start..mapping.end).contains(&location.address);
            }
        }
        Self { profile, options, window: (start, end - start), timed, ranged }
    }

    /// All samples, those of one process beside each other.
    pub fn pieces(&self) -> Vec<Piece> {
        let samples = self.profile.samples.iter().enumerate();
        let mut pieces: Vec<Piece> = samples
            .filter(|(_, sample)| sample.count > 0)
            .map(|(index, sample)| Piece {
                sample: index,
                timestamps: if self.timed { 0..sample.timestamps.len() } else { 0..0 },
                count: sample.count,
                weight: sample.weight,
            })
            .collect();
        pieces.sort_by_key(|piece| self.profile.samples.get(piece.sample).map(|sample| sample.process));
        pieces
    }

    /// The message of some pieces; those of one process stand beside each other. `part` tells the messages of one
    /// profile from each other.
    pub fn message(&self, pieces: &[Piece], part: u64) -> ProfilesData {
        let mut builder = Builder::new(self);
        let mut resource_profiles: Vec<_> = pieces
            .chunk_by(|a, b| self.process(a) == self.process(b))
            .map(|pieces| self.resource_profiles(&mut builder, pieces, part))
            .collect();
        if resource_profiles.is_empty() {
            resource_profiles.push(self.resource_profiles(&mut builder, &[], part));
        }
        ProfilesData { resource_profiles, dictionary: Some(builder.dictionary.into_message()) }
    }

    fn process(&self, piece: &Piece) -> Option<u32> {
        self.profile.samples.get(piece.sample).map(|sample| sample.process)
    }

    fn resource_profiles(&self, builder: &mut Builder<'_>, pieces: &[Piece], part: u64) -> ResourceProfiles {
        let process = pieces.first().and_then(|piece| self.process(piece));
        let process = process.and_then(|index| self.profile.processes.get(index as usize));
        let resource = process.map(|process| attributes::resource(&process.resource)).unwrap_or_default();
        let time_type = match self.profile.kind {
            ProfileKind::Cpu => "cpu",
            ProfileKind::OffCpu => "off_cpu",
            ProfileKind::Wall => "wall",
        };
        let merged = builder.merge(pieces);
        let counts = merged.iter().map(|(identity, sum)| Sample {
            values: if self.timed { Vec::new() } else { vec![signed(sum.count)] },
            timestamps_unix_nano: sum.timestamps.clone(),
            ..identity.sample()
        });
        let times = merged
            .iter()
            .map(|(identity, sum)| Sample { values: vec![signed(sum.weight)], ..identity.sample() });
        let profiles =
            [("samples", "count", counts.collect::<Vec<_>>()), (time_type, "nanoseconds", times.collect())];
        let profiles = profiles.into_iter().map(|(name, unit, samples)| {
            let mut profile = ProfileMessage {
                sample_type: Some(builder.value_type(name, unit)),
                samples,
                time_unix_nano: self.window.0,
                duration_nano: self.window.1,
                ..ProfileMessage::default()
            };
            if self.profile.period > 0 {
                profile.period_type = Some(builder.value_type(time_type, "nanoseconds"));
                profile.period = signed(self.profile.period);
            }
            profile.profile_id = profile_id(&resource, name, part, &profile);
            profile
        });
        let scope_profiles = ScopeProfiles {
            scope: Some(attributes::scope(&self.options)),
            profiles: profiles.collect(),
            schema_url: String::new(),
        };
        ResourceProfiles {
            scope_profiles: vec![scope_profiles],
            resource: Some(resource),
            schema_url: String::new(),
        }
    }
}

/// What makes two samples the same one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    stack: i32,
    attributes: Vec<i32>,
}

impl Identity {
    fn sample(&self) -> Sample {
        Sample { stack_index: self.stack, attribute_indices: self.attributes.clone(), ..Sample::default() }
    }
}

/// What is measured at one identity.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    weight: u64,
    timestamps: Vec<u64>,
}

struct Builder<'a> {
    source: &'a Source<'a>,
    dictionary: Dictionary,
    /// Indices into [`Profile::stacks`] to indices into the dictionary.
    stacks: HashMap<u32, i32>,
    /// Indices into [`Profile::locations`] to indices into the dictionary.
    locations: HashMap<u32, i32>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self { source, dictionary: Dictionary::new(), stacks: HashMap::new(), locations: HashMap::new() }
    }

    fn value_type(&mut self, name: &'static str, unit: &'static str) -> ValueType {
        ValueType { type_strindex: self.dictionary.name(name), unit_strindex: self.dictionary.name(unit) }
    }

    fn merge(&mut self, pieces: &[Piece]) -> IndexMap<Identity, Sum> {
        let mut merged: IndexMap<Identity, Sum> = IndexMap::new();
        for piece in pieces {
            let Some(sample) = self.source.profile.samples.get(piece.sample) else { continue };
            let stack = self.stack(sample.stack);
            let mut attributes = Vec::new();
            if let Some((tid, name)) = &sample.thread {
                let id = AttributeContent::Int(i64::from(tid.0));
                attributes.push(self.dictionary.attribute("thread.id", id));
                let name = AttributeContent::Text(name.to_string().into());
                attributes.push(self.dictionary.attribute("thread.name", name));
            }
            if let Some(cpu) = sample.cpu {
                let number = AttributeContent::Int(i64::from(cpu.0));
                attributes.push(self.dictionary.attribute("cpu.logical_number", number));
            }
            if let Some(waited) = sample.waited {
                let reason = AttributeContent::Text(waited.reason.as_str().into());
                attributes.push(self.dictionary.attribute(REASON, reason));
                let state = AttributeContent::Text(state_name(waited.state).into());
                attributes.push(self.dictionary.attribute(STATE, state));
            }
            let sum = merged.entry(Identity { stack, attributes }).or_default();
            sum.count = sum.count.saturating_add(piece.count);
            sum.weight = sum.weight.saturating_add(piece.weight);
            let times = sample.timestamps.get(piece.timestamps.clone()).unwrap_or_default();
            sum.timestamps.extend(times.iter().map(|time| time.0));
        }
        for sum in merged.values_mut() {
            sum.timestamps.sort_unstable();
        }
        merged
    }

    fn stack(&mut self, index: u32) -> i32 {
        if let Some(&known) = self.stacks.get(&index) {
            return known;
        }
        let Some(stack) = self.source.profile.stacks.get(index as usize) else { return 0 };
        let mut locations: Vec<i32> =
            stack.locations.iter().filter_map(|&location| self.location(location)).collect();
        if stack.truncated {
            locations.push(self.truncated_root());
        }
        let known = self.dictionary.stack(locations);
        self.stacks.insert(index, known);
        known
    }

    fn truncated_root(&mut self) -> i32 {
        let name = self.dictionary.name(TRUNCATED);
        let function = Function { name_strindex: name, system_name_strindex: name, ..Function::default() };
        let function_index = self.dictionary.function(function);
        let lines = vec![Line { function_index, line: 0, column: 0 }];
        self.dictionary.location(LocationContent { lines, ..LocationContent::default() })
    }

    /// None: not in the profile.
    fn location(&mut self, index: u32) -> Option<i32> {
        if let Some(&known) = self.locations.get(&index) {
            return Some(known);
        }
        let location = self.source.profile.locations.get(index as usize)?;
        let lines = location.lines.iter().filter_map(|line| {
            let function = self.source.profile.functions.get(line.function as usize)?;
            let function = Function {
                name_strindex: self.dictionary.string(&function.name),
                system_name_strindex: self.dictionary.string(&function.system_name),
                filename_strindex: function.file.as_ref().map_or(0, |file| self.dictionary.string(file)),
                start_line: 0,
            };
            Some(Line {
                function_index: self.dictionary.function(function),
                line: i64::from(line.line),
                column: i64::from(line.column),
            })
        });
        let lines = lines.collect();
        let kind = AttributeContent::Text(Arc::from(location.kind.as_str()));
        let content = LocationContent {
            mapping: location.mapping.map_or(0, |mapping| self.mapping(mapping)),
            address: location.address,
            lines,
            attributes: vec![self.dictionary.attribute("profile.frame.type", kind)],
        };
        let known = self.dictionary.location(content);
        self.locations.insert(index, known);
        Some(known)
    }

    fn mapping(&mut self, index: u32) -> i32 {
        let Some(mapping) = self.source.profile.mappings.get(index as usize) else { return 0 };
        let ranged = self.source.ranged.get(index as usize).copied().unwrap_or(false);
        let (start, limit, offset) =
            if ranged { (mapping.start, mapping.end, mapping.offset) } else { (0, 0, 0) };
        let attribute_indices = self.build_ids(mapping);
        let filename_strindex = self.dictionary.string(&mapping.path);
        self.dictionary.mapping(Mapping {
            memory_start: start,
            memory_limit: limit,
            file_offset: offset,
            filename_strindex,
            attribute_indices,
        })
    }

    fn build_ids(&mut self, mapping: &ProfileMapping) -> Vec<i32> {
        let ids = [
            ("process.executable.build_id.gnu", &mapping.gnu_build_id),
            ("process.executable.build_id.go", &mapping.go_build_id),
            ("process.executable.build_id.htlhash", &mapping.htlhash),
        ];
        ids.into_iter()
            .filter_map(|(key, id)| {
                let id = AttributeContent::Text(Arc::clone(id.as_ref()?));
                Some(self.dictionary.attribute(key, id))
            })
            .collect()
    }
}

/// The same profile always gets the same id, so a receiver can tell a repeated request from another one.
fn profile_id(resource: &Resource, sample_type: &str, part: u64, profile: &ProfileMessage) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(resource.encode_to_vec());
    hash.update(sample_type);
    hash.update(part.to_be_bytes());
    hash.update(profile.encode_to_vec());
    hash.finalize().iter().take(16).copied().collect()
}

/// The format's numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
