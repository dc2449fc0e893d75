//! The checker of the profiles data model finds each way to break it, and nothing in what is right.

use crate::support;

use descry_export::otlp::{self, OtlpOptions, Rule};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Link, Location, Mapping, Profile, ProfilesData, ProfilesDictionary, Sample,
    Stack, ValueType,
};

/// A message with something in each table, links as well.
fn right() -> ProfilesData {
    let mut data = otlp::profiles_data(&support::timed(), &OtlpOptions::default());
    tables(&mut data).link_table.push(Link { trace_id: vec![1; 16], span_id: vec![2; 8] });
    first_sample(&mut data).link_index = 1;
    data
}

fn tables(data: &mut ProfilesData) -> &mut ProfilesDictionary {
    data.dictionary.as_mut().unwrap()
}

fn first_profile(data: &mut ProfilesData) -> &mut Profile {
    &mut data.resource_profiles[0].scope_profiles[0].profiles[0]
}

fn first_sample(data: &mut ProfilesData) -> &mut Sample {
    &mut first_profile(data).samples[0]
}

fn attribute(key: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::BoolValue(true)) }),
        key_strindex: 0,
    }
}

/// `change` makes a message break `rule`.
fn check(rule: Rule, change: impl FnOnce(&mut ProfilesData)) {
    let mut data = right();
    change(&mut data);
    let violations = otlp::check(&data).expect_err(&format!("{rule:?} was not found"));
    assert!(violations.iter().any(|violation| violation.rule == rule), "{rule:?} is not in {violations:#?}");
}

/// `change` makes a message that breaks `rule` and no other one.
fn only(rule: Rule, change: impl FnOnce(&mut ProfilesData)) {
    let mut data = right();
    change(&mut data);
    let violations = otlp::check(&data).expect_err(&format!("{rule:?} was not found"));
    assert!(violations.iter().all(|violation| violation.rule == rule), "not only {rule:?}: {violations:#?}");
}

#[test]
fn what_is_right_passes() {
    assert_eq!(otlp::check(&right()), Ok(()));
    let mut by_index = right();
    tables(&mut by_index).string_table.extend(["tenant".to_owned(), "blue".to_owned()]);
    let last = tables(&mut by_index).string_table.len() as i32 - 1;
    by_index.resource_profiles[0].resource.as_mut().unwrap().attributes.push(KeyValue {
        key: String::new(),
        value: Some(AnyValue { value: Some(Value::StringValueStrindex(last)) }),
        key_strindex: last - 1,
    });
    assert_eq!(otlp::check(&by_index), Ok(()), "keys and values may stand in the string table");
}

#[test]
fn tables_begin_with_zero() {
    only(Rule::DictionaryPresent, |data| {
        data.dictionary = None;
        data.resource_profiles.clear();
    });
    only(Rule::ZeroEntry, |data| {
        tables(data).link_table[0] = Link { trace_id: vec![0; 16], span_id: vec![0; 8] }
    });
    check(Rule::ZeroEntry, |data| tables(data).mapping_table[0].memory_start = 1);
    check(Rule::ZeroEntry, |data| tables(data).location_table[0].address = 1);
    check(Rule::ZeroEntry, |data| tables(data).function_table[0].start_line = 1);
    check(Rule::ZeroEntry, |data| tables(data).string_table[0] = "x".to_owned());
    check(Rule::ZeroEntry, |data| tables(data).attribute_table[0].unit_strindex = 1);
    check(Rule::ZeroEntry, |data| tables(data).stack_table[0].location_indices.push(1));
    check(Rule::ZeroEntry, |data| tables(data).stack_table.clear());
}

#[test]
fn entries_are_unique() {
    check(Rule::NoDuplicates, |data| tables(data).string_table.push("samples".to_owned()));
    check(Rule::NoDuplicates, |data| tables(data).link_table.push(Link::default()));
    check(Rule::NoDuplicates, |data| tables(data).stack_table.push(Stack::default()));
    check(Rule::NoDuplicates, |data| {
        // Attributes in another order are the same.
        let table = &mut tables(data).mapping_table;
        let mut again: Mapping =
            table.iter().find(|mapping| mapping.attribute_indices.len() > 1).unwrap().clone();
        again.attribute_indices.reverse();
        table.push(again);
    });
    for again in ["location", "function", "attribute"] {
        check(Rule::NoDuplicates, |data| {
            let tables = tables(data);
            match again {
                "location" => tables.location_table.push(tables.location_table[1].clone()),
                "function" => tables.function_table.push(tables.function_table[1]),
                _ => tables.attribute_table.push(tables.attribute_table[1].clone()),
            }
        });
    }
}

#[test]
fn entries_are_referred_to() {
    only(Rule::NoOrphans, |data| tables(data).string_table.push("nobody".to_owned()));
    only(Rule::NoOrphans, |data| {
        tables(data).link_table.push(Link { trace_id: vec![3; 16], span_id: vec![4; 8] });
    });
    only(Rule::NoOrphans, |data| {
        tables(data).mapping_table.push(Mapping { filename_strindex: 1, ..Mapping::default() })
    });
    only(Rule::NoOrphans, |data| {
        tables(data).location_table.push(Location { address: 9, ..Location::default() })
    });
    only(Rule::NoOrphans, |data| {
        tables(data).function_table.push(Function { start_line: 9, ..Function::default() })
    });
    only(Rule::NoOrphans, |data| tables(data).stack_table.push(Stack { location_indices: vec![1] }));
    only(Rule::NoOrphans, |data| {
        tables(data).attribute_table.push(KeyValueAndUnit { key_strindex: 1, ..KeyValueAndUnit::default() });
    });
    // What only an orphan refers to is one.
    check(Rule::NoOrphans, |data| {
        tables(data).string_table.push("nobody".to_owned());
        let name_strindex = tables(data).string_table.len() as i32 - 1;
        tables(data).function_table.push(Function { name_strindex, ..Function::default() });
    });
}

#[test]
fn indices_are_in_range() {
    for wrong in [-1, 10_000, i32::MAX, i32::MIN] {
        check(Rule::IndexInRange, |data| first_sample(data).stack_index = wrong);
        check(Rule::IndexInRange, |data| first_sample(data).link_index = wrong);
        check(Rule::IndexInRange, |data| first_sample(data).attribute_indices.push(wrong));
        check(Rule::IndexInRange, |data| first_profile(data).attribute_indices.push(wrong));
        check(Rule::IndexInRange, |data| {
            first_profile(data).sample_type = Some(ValueType { type_strindex: wrong, unit_strindex: 1 });
        });
        check(Rule::IndexInRange, |data| tables(data).stack_table[1].location_indices.push(wrong));
        check(Rule::IndexInRange, |data| tables(data).location_table[1].mapping_index = wrong);
        check(Rule::IndexInRange, |data| tables(data).location_table[1].attribute_indices.push(wrong));
        check(Rule::IndexInRange, |data| tables(data).location_table[1].lines[0].function_index = wrong);
        check(Rule::IndexInRange, |data| tables(data).function_table[1].name_strindex = wrong);
        check(Rule::IndexInRange, |data| tables(data).function_table[1].system_name_strindex = wrong);
        check(Rule::IndexInRange, |data| tables(data).function_table[1].filename_strindex = wrong);
        check(Rule::IndexInRange, |data| tables(data).mapping_table[1].filename_strindex = wrong);
        check(Rule::IndexInRange, |data| tables(data).attribute_table[1].key_strindex = wrong);
        check(Rule::IndexInRange, |data| tables(data).attribute_table[1].unit_strindex = wrong);
        check(Rule::IndexInRange, |data| {
            let key_strindex = if wrong == 0 { 1 } else { wrong };
            let attributes = &mut data.resource_profiles[0].resource.as_mut().unwrap().attributes;
            attributes.push(KeyValue { key_strindex, ..attribute("") });
        });
    }
}

#[test]
fn profiles_are_complete() {
    only(Rule::NotEmpty, |data| data.resource_profiles.push(Default::default()));
    only(Rule::NotEmpty, |data| data.resource_profiles[0].scope_profiles.push(Default::default()));
    only(Rule::TypesNamed, |data| first_profile(data).sample_type = None);
    only(Rule::TypesNamed, |data| first_profile(data).period_type = None);
    only(Rule::ProfileId, |data| first_profile(data).profile_id = vec![0; 16]);
    only(Rule::ProfileId, |data| first_profile(data).profile_id = vec![1; 8]);
    only(Rule::OriginalPayload, |data| first_profile(data).original_payload = vec![1]);
    only(Rule::OriginalPayload, |data| first_profile(data).original_payload_format = "pprof".to_owned());
}

#[test]
fn samples_have_values_or_timestamps() {
    check(Rule::ValuesOrTimestamps, |data| first_sample(data).timestamps_unix_nano.clear());
    check(Rule::ValuesOrTimestamps, |data| first_sample(data).values = vec![1]);
    only(Rule::SameShape, |data| {
        let sample = first_sample(data);
        sample.values = sample.timestamps_unix_nano.iter().map(|_| 1).collect();
    });
    let last = support::START + 10_000_000_000;
    only(Rule::TimestampInRange, |data| first_sample(data).timestamps_unix_nano[0] = support::START - 1);
    only(Rule::TimestampInRange, |data| first_sample(data).timestamps_unix_nano[0] = last);
    let mut edge = right();
    first_sample(&mut edge).timestamps_unix_nano[0] = last - 1;
    assert_eq!(otlp::check(&edge), Ok(()));
    only(Rule::SampleIdentity, |data| {
        let mut again = first_sample(data).clone();
        again.attribute_indices.reverse();
        first_profile(data).samples.push(again);
    });
}

#[test]
fn attributes_have_keys_once() {
    only(Rule::AttributeKeys, |data| {
        let attributes = &mut first_sample(data).attribute_indices;
        attributes.push(attributes[0]);
    });
    only(Rule::AttributeKeys, |data| first_sample(data).attribute_indices.push(0));
    only(Rule::AttributeKeys, |data| {
        let attributes = &mut data.resource_profiles[0].resource.as_mut().unwrap().attributes;
        attributes.push(attribute("host.name"));
    });
    only(Rule::AttributeKeys, |data| {
        let scope = data.resource_profiles[0].scope_profiles[0].scope.as_mut().unwrap();
        scope.attributes = vec![attribute("a"), attribute("a")];
    });
    only(Rule::AttributeKeys, |data| {
        data.resource_profiles[0].resource.as_mut().unwrap().attributes.push(attribute(""));
    });
}

#[test]
fn ids_ranges_and_lines_are_sensible() {
    only(Rule::LinkIds, |data| tables(data).link_table[1].trace_id = vec![1; 8]);
    only(Rule::LinkIds, |data| tables(data).link_table[1].span_id = vec![0; 8]);
    let kernel = |data: &mut ProfilesData| {
        tables(data).mapping_table.iter().position(|mapping| mapping.memory_limit != 0).unwrap()
    };
    only(Rule::AddressInMapping, |data| {
        let kernel = kernel(data) as i32;
        let mut locations = tables(data).location_table.iter_mut();
        locations.find(|location| location.mapping_index == kernel).unwrap().address = 1;
    });
    check(Rule::MappingRange, |data| {
        let kernel = kernel(data);
        let mapping = &mut tables(data).mapping_table[kernel];
        mapping.memory_limit = mapping.memory_start;
    });
    only(Rule::NotNegative, |data| tables(data).location_table[1].lines[0].line = -1);
    only(Rule::NotNegative, |data| tables(data).location_table[1].lines[0].column = -1);
    only(Rule::NotNegative, |data| tables(data).function_table[1].start_line = -1);
}

#[test]
fn violations_say_where() {
    let mut data = right();
    first_sample(&mut data).stack_index = 77_777;
    let found = otlp::check(&data).unwrap_err();
    let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        text.contains("resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index"),
        "{text}"
    );
}
