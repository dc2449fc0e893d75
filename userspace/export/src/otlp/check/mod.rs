//! The rules of the data models, as checkers.
//!
//! Give [`check`] a [`ProfilesData`], [`check_traces`] and [`check_metrics`] a request; get every violation. The rules
//! are the MUSTs and SHOULDs in the comments of profiles.proto (`v1development`), trace.proto, metrics.proto and
//! common.proto; that stacks are leaf first cannot be seen from the data.

mod metrics;
mod reach;
mod tables;
mod traces;

use std::collections::HashSet;
use std::fmt;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ProfilesData, ProfilesDictionary, ResourceProfiles, Sample, ValueType,
};

pub use metrics::check_metrics;
pub use traces::check_traces;

/// A rule of a data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A message with profiles has a dictionary.
    DictionaryPresent,
    /// Each table begins with the zero value of its type.
    ZeroEntry,
    /// No table has two equal entries.
    NoDuplicates,
    /// Every entry but the first is referred to, directly or not, from a profile.
    NoOrphans,
    /// Every index lies in its table.
    IndexInRange,
    /// A resource has scopes, and a scope has profiles, spans or metrics.
    NotEmpty,
    /// A profile says the type and the unit of its values, and of its period where it has one.
    TypesNamed,
    /// A profile's id is unset, or 16 bytes that are not all zero.
    ProfileId,
    /// A payload and its format are set together.
    OriginalPayload,
    /// A sample has values or timestamps, and as many of one as of the other where it has both.
    ValuesOrTimestamps,
    /// All samples of a profile have the same of values, timestamps or both.
    SameShape,
    /// A timestamp lies in [time, time + duration) of its profile.
    TimestampInRange,
    /// No two samples of a profile have the same stack, attributes and link.
    SampleIdentity,
    /// Among attributes that stand together, each key is there once and is not empty.
    AttributeKeys,
    /// A link has 16 bytes of trace id and 8 bytes of span id, neither all zero.
    LinkIds,
    /// A memory range is unset, or its start lies before its limit.
    MappingRange,
    /// An address lies in its mapping's memory range, where that is set.
    AddressInMapping,
    /// Lines and columns are not negative.
    NotNegative,
    /// A request has one entry a Resource.
    ResourceOnce,
    /// A span, link or exemplar has 16 bytes of trace id and 8 bytes of span id, neither all zero; a parent's id, where
    /// there is one, is as long, and not the span's own.
    SpanIds,
    /// A span has a name and a kind.
    SpanNamed,
    /// What ends (or is read) does so no earlier than it began, and both are known.
    EndAfterStart,
    /// Flags have W3C's eight bits, and whether the parent is remote only where that is known.
    SpanFlags,
    /// A status is ok, or an error, which alone has a message.
    SpanStatus,
    /// A metric has a name, which no other one of its scope has, data, and points.
    MetricNamed,
    /// A sum or a histogram says what it is counted from.
    Temporality,
    /// No two points of a metric have the same attributes.
    PointIdentity,
    /// A point has a number.
    PointValue,
    /// The counts of buckets, and of what is near zero, add up to the count; the first and the last bucket hold
    /// something.
    BucketCounts,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Where, as a path of field names.
    pub at: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.rule, self.at, self.found)
    }
}

/// Whether the message keeps every [`Rule`].
///
/// # Errors
///
/// All violations, in the order in which they stand in the message.
pub fn check(data: &ProfilesData) -> Result<(), Vec<Violation>> {
    let nothing = ProfilesDictionary::default();
    let dictionary = data.dictionary.as_ref().unwrap_or(&nothing);
    let mut found = Found::default();
    if data.dictionary.is_none() {
        found.add(Rule::DictionaryPresent, "dictionary", "is not set");
    } else {
        tables::check(dictionary, &mut found);
        reach::check(data, dictionary, &mut found);
    }
    for (index, resource) in data.resource_profiles.iter().enumerate() {
        check_resource(resource, dictionary, &format!("resource_profiles[{index}]"), &mut found);
    }
    found.result()
}

/// The violations so far.
#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, at: &str, found: impl Into<String>) {
        self.0.push(Violation { rule, at: at.to_owned(), found: found.into() });
    }

    fn result(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }

    /// Whether `index` lies in a table of `len` entries.
    fn in_range(&mut self, index: i32, len: usize, at: &str) -> bool {
        let valid = usize::try_from(index).is_ok_and(|index| index < len);
        if !valid {
            self.add(Rule::IndexInRange, at, format!("{index} of {len} entries"));
        }
        valid
    }
}

fn check_resource(resource: &ResourceProfiles, dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    if let Some(resource) = &resource.resource {
        check_key_values(&resource.attributes, dictionary, &format!("{at}.resource"), found);
    }
    if resource.scope_profiles.is_empty() {
        found.add(Rule::NotEmpty, at, "has no scope_profiles");
    }
    for (index, scope) in resource.scope_profiles.iter().enumerate() {
        let at = format!("{at}.scope_profiles[{index}]");
        if let Some(scope) = &scope.scope {
            check_key_values(&scope.attributes, dictionary, &format!("{at}.scope"), found);
        }
        if scope.profiles.is_empty() {
            found.add(Rule::NotEmpty, &at, "has no profiles");
        }
        for (index, profile) in scope.profiles.iter().enumerate() {
            check_profile(profile, dictionary, &format!("{at}.profiles[{index}]"), found);
        }
    }
}

fn check_profile(profile: &Profile, dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    check_type(profile.sample_type.as_ref(), dictionary, &format!("{at}.sample_type"), found);
    if profile.period_type.is_some() || profile.period != 0 {
        check_type(profile.period_type.as_ref(), dictionary, &format!("{at}.period_type"), found);
    }
    let id = &profile.profile_id;
    if !id.is_empty() && (id.len() != 16 || id.iter().all(|byte| *byte == 0)) {
        found.add(Rule::ProfileId, at, format!("{id:02x?}"));
    }
    if profile.original_payload_format.is_empty() != profile.original_payload.is_empty() {
        found.add(Rule::OriginalPayload, at, "one of original_payload and its format is set");
    }
    check_attributes(&profile.attribute_indices, dictionary, at, found);

    let mut identities = HashSet::new();
    let mut shape = None;
    for (index, sample) in profile.samples.iter().enumerate() {
        let at = format!("{at}.samples[{index}]");
        check_sample(sample, profile, dictionary, &at, found);
        let own = (!sample.values.is_empty(), !sample.timestamps_unix_nano.is_empty());
        if *shape.get_or_insert(own) != own {
            found.add(Rule::SameShape, &at, "has other fields than the first sample");
        }
        let mut attributes = sample.attribute_indices.clone();
        attributes.sort_unstable();
        if !identities.insert((sample.stack_index, attributes, sample.link_index)) {
            let identity = (sample.stack_index, &sample.attribute_indices, sample.link_index);
            found.add(Rule::SampleIdentity, &at, format!("{identity:?} again"));
        }
    }
}

fn check_sample(
    sample: &Sample,
    profile: &Profile,
    dictionary: &ProfilesDictionary,
    at: &str,
    found: &mut Found,
) {
    found.in_range(sample.stack_index, dictionary.stack_table.len(), &format!("{at}.stack_index"));
    found.in_range(sample.link_index, dictionary.link_table.len(), &format!("{at}.link_index"));
    check_attributes(&sample.attribute_indices, dictionary, at, found);
    let (values, times) = (sample.values.len(), sample.timestamps_unix_nano.len());
    if (values == 0 && times == 0) || (values != 0 && times != 0 && values != times) {
        found.add(Rule::ValuesOrTimestamps, at, format!("{values} values, {times} timestamps"));
    }
    let start = profile.time_unix_nano;
    for time in &sample.timestamps_unix_nano {
        if time.checked_sub(start).is_none_or(|since| since >= profile.duration_nano) {
            let range = format!("[{start}, {start} + {})", profile.duration_nano);
            found.add(Rule::TimestampInRange, at, format!("{time} is not in {range}"));
        }
    }
}

fn check_type(value_type: Option<&ValueType>, dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    let value_type = value_type.copied().unwrap_or_default();
    for (name, index) in [("type", value_type.type_strindex), ("unit", value_type.unit_strindex)] {
        let valid = found.in_range(index, dictionary.string_table.len(), &format!("{at}.{name}_strindex"));
        if valid && index == 0 {
            found.add(Rule::TypesNamed, at, format!("has no {name}"));
        }
    }
}

/// Attributes by index into the attribute table.
fn check_attributes(indices: &[i32], dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    let mut keys = HashSet::new();
    for (position, &index) in indices.iter().enumerate() {
        let at = format!("{at}.attribute_indices[{position}]");
        if !found.in_range(index, dictionary.attribute_table.len(), &at) {
            continue;
        }
        let attribute = usize::try_from(index).ok().and_then(|index| dictionary.attribute_table.get(index));
        check_key(
            text(dictionary, attribute.map_or(0, |attribute| attribute.key_strindex)),
            &mut keys,
            &at,
            found,
        );
    }
}

/// Attributes of a resource or a scope: their keys stand there, or in the string table.
fn check_key_values(attributes: &[KeyValue], dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    let mut keys = HashSet::new();
    for (position, attribute) in attributes.iter().enumerate() {
        let at = format!("{at}.attributes[{position}]");
        let key = match attribute.key_strindex {
            0 => &attribute.key,
            index => {
                found.in_range(index, dictionary.string_table.len(), &format!("{at}.key_strindex"));
                text(dictionary, index)
            }
        };
        check_key(key, &mut keys, &at, found);
    }
}

fn check_key<'a>(key: &'a str, keys: &mut HashSet<&'a str>, at: &str, found: &mut Found) {
    if key.is_empty() {
        found.add(Rule::AttributeKeys, at, "has no key");
    } else if !keys.insert(key) {
        found.add(Rule::AttributeKeys, at, format!("has the key {key:?} again"));
    }
}

/// A text of the string table; "" where there is none.
fn text(dictionary: &ProfilesDictionary, index: i32) -> &str {
    let text = usize::try_from(index).ok().and_then(|index| dictionary.string_table.get(index));
    text.map_or("", String::as_str)
}
