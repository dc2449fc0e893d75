//! Attributes of a span, which many spans may have in common.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use super::Attribute;

/// Attributes; no name twice. What reads them sees a slice. What changes those that are shared gets its own.
#[derive(Clone, Default)]
pub struct AttributeSet {
    /// Empty where they are shared.
    own: Vec<Attribute>,
    shared: Option<Arc<SharedAttributes>>,
}

/// Attributes that do not change any more.
pub struct SharedAttributes {
    list: Vec<Attribute>,
    written: OnceLock<Box<[u8]>>,
}

impl AttributeSet {
    /// The same, of which a clone costs next to nothing.
    #[must_use]
    pub fn share(self) -> Self {
        let Self { own, shared } = self;
        let share = || Arc::new(SharedAttributes { list: own, written: OnceLock::new() });
        Self { own: Vec::new(), shared: Some(shared.unwrap_or_else(share)) }
    }

    /// Those that are shared.
    pub fn shared(&self) -> Option<&SharedAttributes> {
        self.shared.as_deref()
    }

    /// Adds one.
    pub fn push(&mut self, attribute: Attribute) {
        self.own().push(attribute);
    }

    fn own(&mut self) -> &mut Vec<Attribute> {
        if let Some(shared) = self.shared.take() {
            self.own.clone_from(&shared.list);
        }
        &mut self.own
    }
}

impl SharedAttributes {
    /// The bytes that `write` makes of them, which whoever encodes spans makes once: there is one encoding.
    pub fn written(&self, write: impl FnOnce(&[Attribute]) -> Vec<u8>) -> &[u8] {
        self.written.get_or_init(|| write(&self.list).into())
    }
}

impl Deref for AttributeSet {
    type Target = [Attribute];

    fn deref(&self) -> &[Attribute] {
        self.shared.as_ref().map_or(&self.own, |shared| &shared.list)
    }
}

impl DerefMut for AttributeSet {
    fn deref_mut(&mut self) -> &mut [Attribute] {
        self.own()
    }
}

impl From<Vec<Attribute>> for AttributeSet {
    fn from(list: Vec<Attribute>) -> Self {
        Self { own: list, shared: None }
    }
}

impl PartialEq for AttributeSet {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for AttributeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a AttributeSet {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Value;

    fn attribute(name: &'static str, value: i64) -> Attribute {
        (name.into(), Value::Int(value))
    }

    #[test]
    fn who_changes_what_is_shared_changes_its_own() {
        let shared = AttributeSet::from(vec![attribute("a", 1)]).share();
        let mut other = shared.clone();
        assert!(other.shared().is_some());
        other.push(attribute("b", 2));
        for (_, value) in other.iter_mut() {
            *value = Value::Int(3);
        }
        assert_eq!(*shared, [attribute("a", 1)]);
        assert_eq!(*other, [attribute("a", 3), attribute("b", 3)]);
        assert!(other.shared().is_none());
    }

    #[test]
    fn they_are_written_once() {
        let shared = AttributeSet::from(vec![attribute("a", 1)]).share();
        let written = |byte| shared.clone().shared().map(|shared| shared.written(|_| vec![byte]).to_vec());
        assert_eq!([written(1), written(2)], [Some(vec![1]), Some(vec![1])]);
    }
}
