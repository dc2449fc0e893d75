//! An OTLP profile for people.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{ProfilesData, ResourceProfiles};

/// What an OTLP profile holds, in lines for people.
pub(super) fn of(data: &ProfilesData, bytes: usize) -> String {
    let mut text = format!("    {bytes} bytes");
    if let Some(dictionary) = &data.dictionary {
        text += &format!(
            ": {} stacks, {} locations, {} functions, {} mappings, {} strings",
            dictionary.stack_table.len(),
            dictionary.location_table.len(),
            dictionary.function_table.len(),
            dictionary.mapping_table.len(),
            dictionary.string_table.len(),
        );
    }
    text.push('\n');
    for resource in &data.resource_profiles {
        text += &resource_summary(resource, data);
    }
    text
}

fn resource_summary(resource: &ResourceProfiles, data: &ProfilesData) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let known: Vec<String> = attributes
        .filter_map(|attribute| {
            let value = match attribute.value.as_ref()?.value.as_ref()? {
                Value::StringValue(value) => value.clone(),
                Value::IntValue(value) => value.to_string(),
                _ => return None,
            };
            let shown = ["service.name", "process.executable.name", "process.pid", "host.name"];
            shown.contains(&attribute.key.as_str()).then(|| format!("{}={value}", attribute.key))
        })
        .collect();
    let mut text = format!("    resource {}\n", known.join(" "));
    for profile in resource.scope_profiles.iter().flat_map(|scope| &scope.profiles) {
        let (kind, unit) = profile.sample_type.as_ref().map_or(("?", "?"), |kind| {
            let name = |index: i32| {
                let strings = data.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.string_table);
                usize::try_from(index).ok().and_then(|index| strings.get(index)).map_or("?", String::as_str)
            };
            (name(kind.type_strindex), name(kind.unit_strindex))
        });
        let total: i64 = profile.samples.iter().flat_map(|sample| &sample.values).sum();
        let taken: usize = profile.samples.iter().map(|sample| sample.timestamps_unix_nano.len()).sum();
        text += &format!(
            "      {kind}: {total} {unit} in {} samples ({taken} timestamps) over {:.1} s\n",
            profile.samples.len(),
            profile.duration_nano as f64 / 1e9,
        );
    }
    text
}
