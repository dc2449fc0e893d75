//! Rules that concern the tables of a dictionary themselves.

use std::collections::HashSet;

use opentelemetry_proto::tonic::profiles::v1development::{Location, Mapping, ProfilesDictionary};
use prost::Message;

use super::{Found, Rule, check_attributes};

pub(super) fn check(dictionary: &ProfilesDictionary, found: &mut Found) {
    let encoded = |message: &dyn Encode| message.bytes();
    unique(&dictionary.string_table, "string_table", |text| text.clone().into_bytes(), found);
    unique(&dictionary.attribute_table, "attribute_table", |entry| encoded(entry), found);
    unique(&dictionary.link_table, "link_table", |entry| encoded(entry), found);
    unique(&dictionary.function_table, "function_table", |entry| encoded(entry), found);
    unique(&dictionary.stack_table, "stack_table", |entry| encoded(entry), found);
    // The order of attributes has no meaning.
    unique(&dictionary.mapping_table, "mapping_table", |entry| encoded(&sorted_mapping(entry)), found);
    unique(&dictionary.location_table, "location_table", |entry| encoded(&sorted_location(entry)), found);

    let strings = dictionary.string_table.len();
    for (index, attribute) in dictionary.attribute_table.iter().enumerate() {
        let at = format!("dictionary.attribute_table[{index}]");
        found.in_range(attribute.key_strindex, strings, &format!("{at}.key_strindex"));
        found.in_range(attribute.unit_strindex, strings, &format!("{at}.unit_strindex"));
    }
    for (index, function) in dictionary.function_table.iter().enumerate() {
        let at = format!("dictionary.function_table[{index}]");
        found.in_range(function.name_strindex, strings, &format!("{at}.name_strindex"));
        found.in_range(function.system_name_strindex, strings, &format!("{at}.system_name_strindex"));
        found.in_range(function.filename_strindex, strings, &format!("{at}.filename_strindex"));
        if function.start_line < 0 {
            found.add(Rule::NotNegative, &at, format!("start_line {}", function.start_line));
        }
    }
    for (index, link) in dictionary.link_table.iter().enumerate().skip(1) {
        let zero = |id: &[u8]| id.iter().all(|byte| *byte == 0);
        if link.trace_id.len() != 16 || link.span_id.len() != 8 || zero(&link.trace_id) || zero(&link.span_id)
        {
            let at = format!("dictionary.link_table[{index}]");
            found.add(Rule::LinkIds, &at, format!("{:02x?} {:02x?}", link.trace_id, link.span_id));
        }
    }
    for (index, stack) in dictionary.stack_table.iter().enumerate() {
        for &location in &stack.location_indices {
            let at = format!("dictionary.stack_table[{index}].location_indices");
            found.in_range(location, dictionary.location_table.len(), &at);
        }
    }
    for (index, mapping) in dictionary.mapping_table.iter().enumerate() {
        let at = format!("dictionary.mapping_table[{index}]");
        found.in_range(mapping.filename_strindex, strings, &format!("{at}.filename_strindex"));
        check_attributes(&mapping.attribute_indices, dictionary, &at, found);
        let range = (mapping.memory_start, mapping.memory_limit);
        if range != (0, 0) && range.0 >= range.1 {
            found.add(Rule::MappingRange, &at, format!("[{:#x}, {:#x})", range.0, range.1));
        }
    }
    for (index, location) in dictionary.location_table.iter().enumerate() {
        check_location(location, dictionary, &format!("dictionary.location_table[{index}]"), found);
    }
}

fn check_location(location: &Location, dictionary: &ProfilesDictionary, at: &str, found: &mut Found) {
    let mappings = dictionary.mapping_table.len();
    found.in_range(location.mapping_index, mappings, &format!("{at}.mapping_index"));
    check_attributes(&location.attribute_indices, dictionary, at, found);
    for line in &location.lines {
        let functions = dictionary.function_table.len();
        found.in_range(line.function_index, functions, &format!("{at}.lines.function_index"));
        if line.line < 0 || line.column < 0 {
            found.add(Rule::NotNegative, at, format!("line {}, column {}", line.line, line.column));
        }
    }
    let mapping = usize::try_from(location.mapping_index).ok();
    let Some(mapping) = mapping.and_then(|index| dictionary.mapping_table.get(index)) else { return };
    let (start, limit) = (mapping.memory_start, mapping.memory_limit);
    // profiles.proto includes the limit.
    if limit != 0 && !(start..=limit).contains(&location.address) {
        let found_address = format!("{:#x} is not in [{start:#x}, {limit:#x}]", location.address);
        found.add(Rule::AddressInMapping, at, found_address);
    }
}

/// Zero entry and duplicates. Two entries are equal when `identity` gives the same bytes; that of a zero entry is empty.
fn unique<T>(table: &[T], name: &str, identity: impl Fn(&T) -> Vec<u8>, found: &mut Found) {
    let at = format!("dictionary.{name}");
    if table.first().is_none_or(|entry| !identity(entry).is_empty()) {
        found.add(Rule::ZeroEntry, &at, if table.is_empty() { "is empty" } else { "[0] is not zero" });
    }
    let mut seen = HashSet::new();
    for (index, entry) in table.iter().enumerate() {
        if !seen.insert(identity(entry)) {
            found.add(Rule::NoDuplicates, &format!("{at}[{index}]"), "is there already");
        }
    }
}

/// A message that can be encoded, as an object.
trait Encode {
    fn bytes(&self) -> Vec<u8>;
}

impl<M: Message> Encode for M {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

fn sorted_mapping(mapping: &Mapping) -> Mapping {
    let mut mapping = mapping.clone();
    mapping.attribute_indices.sort_unstable();
    mapping
}

fn sorted_location(location: &Location) -> Location {
    let mut location = location.clone();
    location.attribute_indices.sort_unstable();
    location
}
