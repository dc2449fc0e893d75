//! What a configuration adds to Resources.

use std::borrow::Cow;
use std::collections::BTreeMap;

use descry_process::{AttributeValue, Attributes};

/// Adds attributes that a Resource has not.
pub fn add_attributes(resource: &mut Attributes, attributes: &BTreeMap<String, String>) {
    for (key, value) in attributes {
        if !resource.iter().any(|(known, _)| known == key) {
            resource.push((Cow::Owned(key.clone()), AttributeValue::Text(value.clone())));
        }
    }
}
