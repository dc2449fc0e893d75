//! What all signals' messages have in common: Resources, the scope, attributes.

use std::borrow::Cow;

use descry_assemble::span::{Attribute, Value as SpanValue};
use descry_process::{AttributeValue, Attributes};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{OtlpOptions, SCOPE_NAME};

/// A process.
pub fn resource(attributes: &Attributes) -> Resource {
    let attribute = |(key, value): &(Cow<'static, str>, AttributeValue)| {
        key_value(
            key,
            match value {
                AttributeValue::Text(value) => Value::StringValue(value.clone()),
                AttributeValue::Int(number) => Value::IntValue(*number),
                AttributeValue::List(values) => texts(values),
            },
        )
    };
    Resource { attributes: attributes.iter().map(attribute).collect(), ..Resource::default() }
}

/// descry, as the scope of what it measured.
pub fn scope(options: &OtlpOptions) -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE_NAME.to_owned(),
        version: options.scope_version.clone(),
        ..InstrumentationScope::default()
    }
}

/// Attributes of a data point or a record.
pub fn key_values(attributes: &[Attribute]) -> Vec<KeyValue> {
    let attribute = |(key, value): &Attribute| {
        key_value(
            key,
            match value {
                SpanValue::Static(text) => Value::StringValue((*text).to_owned()),
                SpanValue::Text(text) => Value::StringValue(text.to_string()),
                SpanValue::Shared(text) => Value::StringValue(text.to_string()),
                SpanValue::Int(number) => Value::IntValue(*number),
                SpanValue::Double(number) => Value::DoubleValue(*number),
                SpanValue::Bool(value) => Value::BoolValue(*value),
                SpanValue::Texts(values) => texts(values),
            },
        )
    };
    attributes.iter().map(attribute).collect()
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

fn texts<T: ToString>(texts: &[T]) -> Value {
    let text = |text: &T| AnyValue { value: Some(Value::StringValue(text.to_string())) };
    Value::ArrayValue(ArrayValue { values: texts.iter().map(text).collect() })
}
