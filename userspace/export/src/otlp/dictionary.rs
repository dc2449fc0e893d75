//! The tables that the profiles of one message share: every entry once, the zero entry first.

use std::hash::Hash;
use std::sync::Arc;

use indexmap::IndexSet;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, ProfilesDictionary, Stack,
};

/// A table without duplicates.
#[derive(Debug)]
struct Table<T>(IndexSet<T>);

impl<T: Hash + Eq + Default> Table<T> {
    fn new() -> Self {
        Self(IndexSet::from([T::default()]))
    }

    /// Index of `item`, which is added where it is new. Indices over the range of the format's `int32` become 0, the
    /// "not set" of the format; a table that long does not fit into memory before.
    fn index(&mut self, item: T) -> i32 {
        i32::try_from(self.0.insert_full(item).0).unwrap_or(0)
    }
}

/// An attribute before it is a message: messages have neither hash nor equality.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Attribute {
    key: i32,
    value: AttributeContent,
}

/// Value of an attribute of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AttributeContent {
    /// None: that of the zero entry.
    #[default]
    Unset,
    /// Text.
    Text(Arc<str>),
    /// A whole number.
    Int(i64),
}

/// A location before it is a message.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct LocationContent {
    /// Index into the mapping table.
    pub mapping: i32,
    /// Address.
    pub address: u64,
    /// Functions, callee first.
    pub lines: Vec<Line>,
    /// Indices into the attribute table.
    pub attributes: Vec<i32>,
}

/// The tables.
#[derive(Debug)]
pub struct Dictionary {
    strings: Table<Arc<str>>,
    attributes: Table<Attribute>,
    mappings: Table<Mapping>,
    functions: Table<Function>,
    locations: Table<LocationContent>,
    stacks: Table<Stack>,
}

impl Dictionary {
    /// Tables with their zero entries.
    pub fn new() -> Self {
        Self {
            strings: Table::new(),
            attributes: Table::new(),
            mappings: Table::new(),
            functions: Table::new(),
            locations: Table::new(),
            stacks: Table::new(),
        }
    }

    /// Index of a text.
    pub fn string(&mut self, text: &Arc<str>) -> i32 {
        match self.strings.0.get_index_of(text.as_ref()) {
            Some(index) => i32::try_from(index).unwrap_or(0),
            None => self.strings.index(Arc::clone(text)),
        }
    }

    /// Index of a text that is part of the program.
    pub fn name(&mut self, text: &'static str) -> i32 {
        match self.strings.0.get_index_of(text) {
            Some(index) => i32::try_from(index).unwrap_or(0),
            None => self.strings.index(Arc::from(text)),
        }
    }

    /// Index of an attribute.
    pub fn attribute(&mut self, key: &'static str, value: AttributeContent) -> i32 {
        let key = self.name(key);
        self.attributes.index(Attribute { key, value })
    }

    /// Index of a mapping.
    pub fn mapping(&mut self, mapping: Mapping) -> i32 {
        self.mappings.index(mapping)
    }

    /// Index of a function.
    pub fn function(&mut self, function: Function) -> i32 {
        self.functions.index(function)
    }

    /// Index of a location.
    pub fn location(&mut self, location: LocationContent) -> i32 {
        self.locations.index(location)
    }

    /// Index of a stack.
    pub fn stack(&mut self, location_indices: Vec<i32>) -> i32 {
        self.stacks.index(Stack { location_indices })
    }

    /// The message.
    pub fn into_message(self) -> ProfilesDictionary {
        let attributes = self.attributes.0.into_iter().map(|attribute| KeyValueAndUnit {
            key_strindex: attribute.key,
            value: match attribute.value {
                AttributeContent::Unset => None,
                AttributeContent::Text(text) => {
                    Some(AnyValue { value: Some(Value::StringValue(text.as_ref().to_owned())) })
                }
                AttributeContent::Int(number) => Some(AnyValue { value: Some(Value::IntValue(number)) }),
            },
            unit_strindex: 0,
        });
        let locations = self.locations.0.into_iter().map(|location| Location {
            mapping_index: location.mapping,
            address: location.address,
            lines: location.lines,
            attribute_indices: location.attributes,
        });
        ProfilesDictionary {
            mapping_table: self.mappings.0.into_iter().collect(),
            location_table: locations.collect(),
            function_table: self.functions.0.into_iter().collect(),
            link_table: vec![Link::default()],
            string_table: self.strings.0.into_iter().map(|text| text.as_ref().to_owned()).collect(),
            attribute_table: attributes.collect(),
            stack_table: self.stacks.0.into_iter().collect(),
        }
    }
}
