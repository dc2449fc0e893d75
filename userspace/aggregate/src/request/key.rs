//! What tells rows apart: an instrument and the values of its attributes. A span's are compared where they are, so that
//! nothing is copied for a request whose row is there.

use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use descry_assemble::span::{Span, Value};
use indexmap::Equivalent;

use super::instrument::{Instrument, MAX_ATTRIBUTES};

/// What a row is of.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) instrument: Instrument,
    /// By the names of the instrument.
    pub(super) values: Box<[Option<Value>]>,
}

/// The same of a span.
pub(super) struct Borrowed<'a> {
    instrument: Instrument,
    values: [Option<&'a Value>; MAX_ATTRIBUTES],
}

impl<'a> Borrowed<'a> {
    pub(super) fn new(instrument: Instrument, span: &'a Span) -> Self {
        let mut values = [None; MAX_ATTRIBUTES];
        for (value, name) in values.iter_mut().zip(instrument.attributes()) {
            *value = span.attribute(name).or_else(|| instrument.without(name));
        }
        Self { instrument, values }
    }

    pub(super) fn to_owned(&self) -> Key {
        let values = self.values().map(Option::<&Value>::cloned).collect();
        Key { instrument: self.instrument, values }
    }

    fn values(&self) -> impl Iterator<Item = Option<&'a Value>> {
        self.values.iter().copied().take(self.instrument.attributes().len())
    }
}

impl Hash for Borrowed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.instrument, self.values(), state);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.instrument, self.values.iter().map(Option::as_ref), state);
    }
}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.instrument == key.instrument
            && self.values().zip(&key.values).all(|(ours, theirs)| same(ours, theirs.as_ref()))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let mut values = self.values.iter().zip(&other.values);
        self.instrument == other.instrument
            && values.all(|(ours, theirs)| same(ours.as_ref(), theirs.as_ref()))
    }
}

impl Eq for Key {}

fn hash<'a, H: Hasher>(
    instrument: Instrument,
    values: impl Iterator<Item = Option<&'a Value>>,
    state: &mut H,
) {
    instrument.hash(state);
    for value in values {
        match value {
            None => state.write_u8(0),
            Some(Value::Int(number)) => number.hash(state),
            Some(Value::Bool(value)) => value.hash(state),
            Some(Value::Double(number)) => number.to_bits().hash(state),
            Some(Value::Texts(texts)) => texts.hash(state),
            Some(text) => text.as_text().hash(state),
        }
    }
}

/// Whether both say the same; texts may be kept differently.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    match (one.as_text(), other.as_text()) {
        (Some(one), Some(other)) => one == other,
        (None, None) => match (one, other) {
            (Value::Double(one), Value::Double(other)) => one.to_bits() == other.to_bits(),
            _ => discriminant(one) == discriminant(other) && one == other,
        },
        _ => false,
    }
}
