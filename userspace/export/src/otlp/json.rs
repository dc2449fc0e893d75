//! OTLP's JSON encoding of profile messages.
//!
//! The rules are those of the OTLP specification, "JSON Protobuf Encoding", on top of proto3's JSON mapping: names in
//! lowerCamelCase, 64-bit integers as decimal strings, trace, span and profile ids in hex, other bytes in base64,
//! fields with default values left out. `opentelemetry-proto`'s own serde support writes 64-bit integers of profiles as
//! numbers and the ids of links as lists, so this is not built on it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, EntityRef, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesData, ProfilesDictionary,
    ResourceProfiles, Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A message that serializes as OTLP's JSON encoding says.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a, T>(pub &'a T);

/// The fields of an object, those with default values left out.
struct Fields<S: Serializer>(S::SerializeMap);

impl<S: Serializer> Fields<S> {
    fn new(serializer: S) -> Result<Self, S::Error> {
        serializer.serialize_map(None).map(Self)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }

    fn text(&mut self, name: &'static str, text: &str) -> Result<(), S::Error> {
        if text.is_empty() { Ok(()) } else { self.0.serialize_entry(name, text) }
    }

    fn texts(&mut self, name: &'static str, texts: &[String]) -> Result<(), S::Error> {
        if texts.is_empty() { Ok(()) } else { self.0.serialize_entry(name, texts) }
    }

    fn int32(&mut self, name: &'static str, number: i32) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number) }
    }

    fn int32s(&mut self, name: &'static str, numbers: &[i32]) -> Result<(), S::Error> {
        if numbers.is_empty() { Ok(()) } else { self.0.serialize_entry(name, numbers) }
    }

    fn uint32(&mut self, name: &'static str, number: u32) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number) }
    }

    fn int64(&mut self, name: &'static str, number: i64) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number.to_string()) }
    }

    fn uint64(&mut self, name: &'static str, number: u64) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number.to_string()) }
    }

    fn decimals<N: ToString>(&mut self, name: &'static str, numbers: &[N]) -> Result<(), S::Error> {
        if numbers.is_empty() { Ok(()) } else { self.0.serialize_entry(name, &Decimals(numbers)) }
    }

    fn hex(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), S::Error> {
        self.text(name, &hex(bytes))
    }

    fn base64(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), S::Error> {
        self.text(name, &BASE64.encode(bytes))
    }

    fn message<T>(&mut self, name: &'static str, message: &Option<T>) -> Result<(), S::Error>
    where
        for<'a> Json<'a, T>: Serialize,
    {
        message.as_ref().map_or(Ok(()), |message| self.0.serialize_entry(name, &Json(message)))
    }

    fn messages<T>(&mut self, name: &'static str, messages: &[T]) -> Result<(), S::Error>
    where
        for<'a> Json<'a, T>: Serialize,
    {
        if messages.is_empty() { Ok(()) } else { self.0.serialize_entry(name, &List(messages)) }
    }
}

struct List<'a, T>(&'a [T]);

impl<T> Serialize for List<'_, T>
where
    for<'a> Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for message in self.0 {
            list.serialize_element(&Json(message))?;
        }
        list.end()
    }
}

struct Decimals<'a, N>(&'a [N]);

impl<N: ToString> Serialize for Decimals<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `Serialize` for the message of a type, as calls of [`Fields`].
macro_rules! object {
    ($type:ty { $($method:ident $name:literal $field:ident),* $(,)? }) => {
        impl Serialize for Json<'_, $type> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut fields = Fields::new(serializer)?;
                $(object!(@ fields $method $name self.0.$field);)*
                fields.end()
            }
        }
    };
    (@ $fields:ident text $name:literal $value:expr) => { $fields.text($name, &$value)? };
    (@ $fields:ident texts $name:literal $value:expr) => { $fields.texts($name, &$value)? };
    (@ $fields:ident int32s $name:literal $value:expr) => { $fields.int32s($name, &$value)? };
    (@ $fields:ident decimals $name:literal $value:expr) => { $fields.decimals($name, &$value)? };
    (@ $fields:ident hex $name:literal $value:expr) => { $fields.hex($name, &$value)? };
    (@ $fields:ident base64 $name:literal $value:expr) => { $fields.base64($name, &$value)? };
    (@ $fields:ident message $name:literal $value:expr) => { $fields.message($name, &$value)? };
    (@ $fields:ident messages $name:literal $value:expr) => { $fields.messages($name, &$value)? };
    (@ $fields:ident $number:ident $name:literal $value:expr) => { $fields.$number($name, $value)? };
}

object!(ProfilesData {
    messages "resourceProfiles" resource_profiles,
    message "dictionary" dictionary,
});
object!(ExportProfilesServiceRequest {
    messages "resourceProfiles" resource_profiles,
    message "dictionary" dictionary,
});
object!(ResourceProfiles {
    message "resource" resource,
    messages "scopeProfiles" scope_profiles,
    text "schemaUrl" schema_url,
});
object!(ScopeProfiles {
    message "scope" scope,
    messages "profiles" profiles,
    text "schemaUrl" schema_url,
});
object!(ProfilesDictionary {
    messages "mappingTable" mapping_table,
    messages "locationTable" location_table,
    messages "functionTable" function_table,
    messages "linkTable" link_table,
    texts "stringTable" string_table,
    messages "attributeTable" attribute_table,
    messages "stackTable" stack_table,
});
object!(Profile {
    message "sampleType" sample_type,
    messages "samples" samples,
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "durationNano" duration_nano,
    message "periodType" period_type,
    int64 "period" period,
    hex "profileId" profile_id,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    text "originalPayloadFormat" original_payload_format,
    base64 "originalPayload" original_payload,
    int32s "attributeIndices" attribute_indices,
});
object!(ValueType {
    int32 "typeStrindex" type_strindex,
    int32 "unitStrindex" unit_strindex,
});
object!(Sample {
    int32 "stackIndex" stack_index,
    int32s "attributeIndices" attribute_indices,
    int32 "linkIndex" link_index,
    decimals "values" values,
    decimals "timestampsUnixNano" timestamps_unix_nano,
});
object!(Mapping {
    uint64 "memoryStart" memory_start,
    uint64 "memoryLimit" memory_limit,
    uint64 "fileOffset" file_offset,
    int32 "filenameStrindex" filename_strindex,
    int32s "attributeIndices" attribute_indices,
});
object!(Stack {
    int32s "locationIndices" location_indices,
});
object!(Location {
    int32 "mappingIndex" mapping_index,
    uint64 "address" address,
    messages "lines" lines,
    int32s "attributeIndices" attribute_indices,
});
object!(Line {
    int32 "functionIndex" function_index,
    int64 "line" line,
    int64 "column" column,
});
object!(Function {
    int32 "nameStrindex" name_strindex,
    int32 "systemNameStrindex" system_name_strindex,
    int32 "filenameStrindex" filename_strindex,
    int64 "startLine" start_line,
});
object!(Link {
    hex "traceId" trace_id,
    hex "spanId" span_id,
});
object!(KeyValueAndUnit {
    int32 "keyStrindex" key_strindex,
    message "value" value,
    int32 "unitStrindex" unit_strindex,
});
object!(Resource {
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    messages "entityRefs" entity_refs,
});
object!(EntityRef {
    text "schemaUrl" schema_url,
    text "type" r#type,
    texts "idKeys" id_keys,
    texts "descriptionKeys" description_keys,
});
object!(InstrumentationScope {
    text "name" name,
    text "version" version,
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
});
object!(KeyValue {
    text "key" key,
    message "value" value,
    int32 "keyStrindex" key_strindex,
});

impl Serialize for Json<'_, AnyValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.value {
            // A value that is set is written even when it is a default: its name says which kind it is.
            Some(Value::StringValue(text)) => map.serialize_entry("stringValue", text)?,
            Some(Value::BoolValue(value)) => map.serialize_entry("boolValue", value)?,
            Some(Value::IntValue(number)) => map.serialize_entry("intValue", &number.to_string())?,
            Some(Value::DoubleValue(number)) => map.serialize_entry("doubleValue", number)?,
            Some(Value::ArrayValue(list)) => {
                map.serialize_entry("arrayValue", &Values(&List(&list.values)))?;
            }
            Some(Value::KvlistValue(list)) => {
                map.serialize_entry("kvlistValue", &Values(&List(&list.values)))?;
            }
            Some(Value::BytesValue(bytes)) => map.serialize_entry("bytesValue", &BASE64.encode(bytes))?,
            Some(Value::StringValueStrindex(index)) => map.serialize_entry("stringValueStrindex", index)?,
            None => {}
        }
        map.end()
    }
}

/// `{"values": [...]}`.
struct Values<'a, T>(&'a T);

impl<T: Serialize> Serialize for Values<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("values", self.0)?;
        map.end()
    }
}
