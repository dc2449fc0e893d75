//! Which entries of a dictionary the profiles refer to, directly or through other entries.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development::{ProfilesData, ProfilesDictionary, ValueType};

use super::{Found, Rule};

pub(super) fn check(data: &ProfilesData, dictionary: &ProfilesDictionary, found: &mut Found) {
    let mut reached = Reached::new(dictionary);
    for resource in &data.resource_profiles {
        reached.key_values(resource.resource.iter().flat_map(|resource| &resource.attributes));
        for scope in &resource.scope_profiles {
            reached.key_values(scope.scope.iter().flat_map(|scope| &scope.attributes));
            for profile in &scope.profiles {
                reached.value_type(profile.sample_type.as_ref());
                reached.value_type(profile.period_type.as_ref());
                reached.attributes(&profile.attribute_indices);
                for sample in &profile.samples {
                    reached.stack(sample.stack_index);
                    reached.attributes(&sample.attribute_indices);
                    reached.links.add(sample.link_index);
                }
            }
        }
    }
    let tables = [
        ("mapping_table", &reached.mappings),
        ("location_table", &reached.locations),
        ("function_table", &reached.functions),
        ("link_table", &reached.links),
        ("string_table", &reached.strings),
        ("attribute_table", &reached.attributes),
        ("stack_table", &reached.stacks),
    ];
    for (name, marks) in tables {
        for (index, _) in marks.0.iter().enumerate().skip(1).filter(|(_, reached)| !**reached) {
            found.add(Rule::NoOrphans, &format!("dictionary.{name}[{index}]"), "nothing refers to it");
        }
    }
}

/// Whether each entry of a table was reached.
struct Marks(Vec<bool>);

impl Marks {
    /// Marks an entry; its index where it is new. Indices out of range are another rule's.
    fn add(&mut self, index: i32) -> Option<usize> {
        let index = usize::try_from(index).ok()?;
        let mark = self.0.get_mut(index)?;
        (!std::mem::replace(mark, true)).then_some(index)
    }
}

struct Reached<'a> {
    dictionary: &'a ProfilesDictionary,
    mappings: Marks,
    locations: Marks,
    functions: Marks,
    links: Marks,
    strings: Marks,
    attributes: Marks,
    stacks: Marks,
}

impl<'a> Reached<'a> {
    fn new(dictionary: &'a ProfilesDictionary) -> Self {
        let marks = |len| Marks(vec![false; len]);
        Self {
            dictionary,
            mappings: marks(dictionary.mapping_table.len()),
            locations: marks(dictionary.location_table.len()),
            functions: marks(dictionary.function_table.len()),
            links: marks(dictionary.link_table.len()),
            strings: marks(dictionary.string_table.len()),
            attributes: marks(dictionary.attribute_table.len()),
            stacks: marks(dictionary.stack_table.len()),
        }
    }

    fn value_type(&mut self, value_type: Option<&ValueType>) {
        if let Some(value_type) = value_type {
            self.strings.add(value_type.type_strindex);
            self.strings.add(value_type.unit_strindex);
        }
    }

    fn key_values<'b>(&mut self, attributes: impl Iterator<Item = &'b KeyValue>) {
        for attribute in attributes {
            self.strings.add(attribute.key_strindex);
            self.value(attribute.value.as_ref());
        }
    }

    fn value(&mut self, value: Option<&AnyValue>) {
        // Lists nest as deep as the decoder lets them, which is 100.
        match value.and_then(|value| value.value.as_ref()) {
            Some(Value::StringValueStrindex(index)) => {
                self.strings.add(*index);
            }
            Some(Value::ArrayValue(list)) => list.values.iter().for_each(|value| self.value(Some(value))),
            Some(Value::KvlistValue(list)) => self.key_values(list.values.iter()),
            _ => {}
        }
    }

    fn attributes(&mut self, indices: &[i32]) {
        for &index in indices {
            let Some(index) = self.attributes.add(index) else { continue };
            let dictionary = self.dictionary;
            if let Some(attribute) = dictionary.attribute_table.get(index) {
                self.strings.add(attribute.key_strindex);
                self.strings.add(attribute.unit_strindex);
                self.value(attribute.value.as_ref());
            }
        }
    }

    fn stack(&mut self, index: i32) {
        let dictionary = self.dictionary;
        let stack = self.stacks.add(index).and_then(|index| dictionary.stack_table.get(index));
        for &location in stack.iter().flat_map(|stack| &stack.location_indices) {
            self.location(location);
        }
    }

    fn location(&mut self, index: i32) {
        let dictionary = self.dictionary;
        let location = self.locations.add(index).and_then(|index| dictionary.location_table.get(index));
        let Some(location) = location else { return };
        self.attributes(&location.attribute_indices);
        for line in &location.lines {
            let function = self.functions.add(line.function_index);
            let Some(function) = function.and_then(|index| dictionary.function_table.get(index)) else {
                continue;
            };
            self.strings.add(function.name_strindex);
            self.strings.add(function.system_name_strindex);
            self.strings.add(function.filename_strindex);
        }
        let mapping = self.mappings.add(location.mapping_index);
        if let Some(mapping) = mapping.and_then(|index| dictionary.mapping_table.get(index)) {
            self.strings.add(mapping.filename_strindex);
            self.attributes(&mapping.attribute_indices);
        }
    }
}
