//! OTLP's JSON encoding of messages.
//!
//! The rules are those of the OTLP specification, "JSON Protobuf Encoding", on top of proto3's JSON mapping: names in
//! lowerCamelCase, 64-bit integers as decimal strings, trace, span and profile ids in hex, other bytes in base64,
//! fields with default values left out. `opentelemetry-proto`'s own serde support writes 64-bit integers of profiles as
//! numbers, the ids of links as lists and defaults of some fields, so this is not built on it.

mod logs;
mod metrics;
mod profiles;
mod traces;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, EntityRef, InstrumentationScope, KeyValue, any_value::Value,
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

    fn bool(&mut self, name: &'static str, value: bool) -> Result<(), S::Error> {
        if value { self.0.serialize_entry(name, &value) } else { Ok(()) }
    }

    fn double(&mut self, name: &'static str, number: f64) -> Result<(), S::Error> {
        if number == 0.0 { Ok(()) } else { self.0.serialize_entry(name, &Double(number)) }
    }

    /// A field that may be unset; one that is set is written even if it is a default.
    fn optional_double(&mut self, name: &'static str, number: Option<f64>) -> Result<(), S::Error> {
        number.map_or(Ok(()), |number| self.0.serialize_entry(name, &Double(number)))
    }

    fn int64(&mut self, name: &'static str, number: i64) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number.to_string()) }
    }

    fn uint64(&mut self, name: &'static str, number: u64) -> Result<(), S::Error> {
        if number == 0 { Ok(()) } else { self.0.serialize_entry(name, &number.to_string()) }
    }

    fn doubles(&mut self, name: &'static str, numbers: &[f64]) -> Result<(), S::Error> {
        let doubles: Vec<Double> = numbers.iter().copied().map(Double).collect();
        if numbers.is_empty() { Ok(()) } else { self.0.serialize_entry(name, &doubles) }
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

/// Numbers that JSON does not know are texts (proto3's JSON mapping).
struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            number if number.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            number => serializer.serialize_f64(number),
        }
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
    (@ $fields:ident doubles $name:literal $value:expr) => { $fields.doubles($name, &$value)? };
    (@ $fields:ident decimals $name:literal $value:expr) => { $fields.decimals($name, &$value)? };
    (@ $fields:ident hex $name:literal $value:expr) => { $fields.hex($name, &$value)? };
    (@ $fields:ident base64 $name:literal $value:expr) => { $fields.base64($name, &$value)? };
    (@ $fields:ident message $name:literal $value:expr) => { $fields.message($name, &$value)? };
    (@ $fields:ident messages $name:literal $value:expr) => { $fields.messages($name, &$value)? };
    (@ $fields:ident $number:ident $name:literal $value:expr) => { $fields.$number($name, $value)? };
}

pub(in crate::otlp::json) use object;

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
            Some(Value::DoubleValue(number)) => map.serialize_entry("doubleValue", &Double(*number))?,
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
