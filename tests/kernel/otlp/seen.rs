//! What a reader sees in OTLP profiles: names and values in the place of indices into tables.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{
    Location, Mapping, ProfilesData, ProfilesDictionary, ResourceProfiles, Sample, ValueType,
};

/// Attributes by their keys.
pub type Attributes = BTreeMap<String, Option<Value>>;

/// One `Profile` with what stands around it.
#[derive(Debug, PartialEq)]
pub struct SeenProfile {
    /// Of its process.
    pub resource: Attributes,
    /// Name and version of the instrumentation scope.
    pub scope: (String, String),
    /// Name and unit of what is counted.
    pub sample_type: (String, String),
    /// Name and unit of the period, and its length.
    pub period: (String, String, i64),
    /// Start (ns since the epoch) and length (ns).
    pub window: (u64, u64),
    /// Its id.
    pub id: Vec<u8>,
    /// What was counted.
    pub samples: Vec<SeenSample>,
}

/// One `Sample`.
#[derive(Debug, PartialEq)]
pub struct SeenSample {
    /// From the leaf to the root.
    pub stack: Vec<SeenLocation>,
    /// Its thread and CPU.
    pub attributes: Attributes,
    /// Counts or times.
    pub values: Vec<i64>,
    /// Nanoseconds since the epoch.
    pub timestamps: Vec<u64>,
}

/// One `Location`.
#[derive(Debug, PartialEq)]
pub struct SeenLocation {
    /// The path of the mapped file, and its ids.
    pub mapping: Option<(String, Attributes)>,
    /// In the file.
    pub address: u64,
    /// The kind of the frame.
    pub attributes: Attributes,
    /// The callee first.
    pub lines: Vec<SeenLine>,
}

/// One `Line` and its function.
#[derive(Debug, PartialEq)]
pub struct SeenLine {
    /// As people read it.
    pub function: String,
    /// As the linker knows it.
    pub system_name: String,
    /// The source's path; line and column in it.
    pub place: (String, i64, i64),
}

impl SeenSample {
    /// Whether a function of this name is on its stack.
    pub fn has(&self, function: &str) -> bool {
        self.stack.iter().flat_map(|location| &location.lines).any(|line| line.function == function)
    }
}

/// All profiles of a message, in its order.
///
/// # Errors
/// If an index points nowhere.
pub fn profiles(data: &ProfilesData) -> Result<Vec<SeenProfile>> {
    let tables = Tables(data.dictionary.as_ref().context("no dictionary")?);
    let of_resource = data.resource_profiles.iter().map(|resource| tables.resource(resource));
    Ok(of_resource.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

struct Tables<'a>(&'a ProfilesDictionary);

impl Tables<'_> {
    fn resource(&self, resource: &ResourceProfiles) -> Result<Vec<SeenProfile>> {
        let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
        let attributes: Attributes =
            attributes.map(|pair| (pair.key.clone(), pair.value.clone().and_then(|any| any.value))).collect();
        let mut seen = Vec::new();
        for scope in &resource.scope_profiles {
            let named = scope.scope.clone().unwrap_or_default();
            for profile in &scope.profiles {
                let (period, unit) = self.value_type(profile.period_type)?;
                seen.push(SeenProfile {
                    resource: attributes.clone(),
                    scope: (named.name.clone(), named.version.clone()),
                    sample_type: self.value_type(profile.sample_type)?,
                    period: (period, unit, profile.period),
                    window: (profile.time_unix_nano, profile.duration_nano),
                    id: profile.profile_id.clone(),
                    samples: profile
                        .samples
                        .iter()
                        .map(|sample| self.sample(sample))
                        .collect::<Result<_>>()?,
                });
            }
        }
        Ok(seen)
    }

    fn sample(&self, sample: &Sample) -> Result<SeenSample> {
        let stack = entry(&self.0.stack_table, sample.stack_index)?;
        let locations = stack.location_indices.iter();
        Ok(SeenSample {
            stack: locations
                .map(|&index| self.location(entry(&self.0.location_table, index)?))
                .collect::<Result<_>>()?,
            attributes: self.attributes(&sample.attribute_indices)?,
            values: sample.values.clone(),
            timestamps: sample.timestamps_unix_nano.clone(),
        })
    }

    fn location(&self, location: &Location) -> Result<SeenLocation> {
        let mapping: &Mapping = entry(&self.0.mapping_table, location.mapping_index)?;
        let mapping = match location.mapping_index {
            0 => None,
            _ => Some((self.text(mapping.filename_strindex)?, self.attributes(&mapping.attribute_indices)?)),
        };
        let line = |line: &opentelemetry_proto::tonic::profiles::v1development::Line| {
            let function = entry(&self.0.function_table, line.function_index)?;
            Ok(SeenLine {
                function: self.text(function.name_strindex)?,
                system_name: self.text(function.system_name_strindex)?,
                place: (self.text(function.filename_strindex)?, line.line, line.column),
            })
        };
        Ok(SeenLocation {
            mapping,
            address: location.address,
            attributes: self.attributes(&location.attribute_indices)?,
            lines: location.lines.iter().map(line).collect::<Result<_>>()?,
        })
    }

    fn attributes(&self, indices: &[i32]) -> Result<Attributes> {
        let attribute = |&index: &i32| {
            let attribute = entry(&self.0.attribute_table, index)?;
            let value = attribute.value.clone().and_then(|any| any.value);
            Ok((self.text(attribute.key_strindex)?, value))
        };
        indices.iter().map(attribute).collect()
    }

    fn value_type(&self, value_type: Option<ValueType>) -> Result<(String, String)> {
        let ValueType { type_strindex, unit_strindex } = value_type.context("no type of a value")?;
        Ok((self.text(type_strindex)?, self.text(unit_strindex)?))
    }

    fn text(&self, index: i32) -> Result<String> {
        entry(&self.0.string_table, index).cloned()
    }
}

fn entry<T>(table: &[T], index: i32) -> Result<&T> {
    let entry = usize::try_from(index).ok().and_then(|index| table.get(index));
    entry.with_context(|| format!("index {index} in a table of {}", table.len()))
}
