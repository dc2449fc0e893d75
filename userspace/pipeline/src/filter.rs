//! What is sent and what is not, by attributes.

use std::fmt::Write;

use descry_assemble::span::{Attribute, Value};
use descry_process::{AttributeValue, Attributes};
use glob::Pattern;

/// What is done with what a filter fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is sent.
    Keep,
    /// It is not.
    Drop,
}

/// Fits by one attribute.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The attribute's name.
    pub attribute: String,
    /// Its value as text; none: any.
    pub value: Option<Pattern>,
    /// What is done.
    pub action: Action,
}

/// Whether a span or record with these attributes, of a process with this Resource, is sent: the first filter that fits
/// decides.
pub fn keeps(filters: &[Filter], attributes: &[Attribute], resource: &Attributes) -> bool {
    let first = filters.iter().find(|filter| filter.fits(attributes, resource));
    first.is_none_or(|filter| filter.action == Action::Keep)
}

impl Filter {
    fn fits(&self, attributes: &[Attribute], resource: &Attributes) -> bool {
        let own = attributes.iter().find(|(name, _)| *name == self.attribute);
        if let Some((_, value)) = own {
            return self.fits_value(|text| write_value(value, text));
        }
        let of_process = resource.iter().find(|(name, _)| *name == self.attribute);
        of_process.is_some_and(|(_, value)| self.fits_value(|text| write_process_value(value, text)))
    }

    fn fits_value(&self, write: impl FnOnce(&mut String)) -> bool {
        let Some(pattern) = &self.value else { return true };
        let mut text = String::new();
        write(&mut text);
        pattern.matches(&text)
    }
}

fn write_value(value: &Value, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Static(value) => text.write_str(value),
        Value::Text(value) => text.write_str(value),
        Value::Shared(value) => text.write_str(value),
        Value::Int(number) => write!(text, "{number}"),
        Value::Double(number) => write!(text, "{number}"),
        Value::Bool(value) => write!(text, "{value}"),
        Value::Texts(values) => text.write_str(&values.join(",")),
    };
}

fn write_process_value(value: &AttributeValue, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = match value {
        AttributeValue::Text(value) => text.write_str(value),
        AttributeValue::Int(number) => write!(text, "{number}"),
        AttributeValue::List(values) => text.write_str(&values.join(",")),
    };
}
