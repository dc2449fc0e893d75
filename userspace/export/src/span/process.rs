//! A process, as its spans and the metrics of them need it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use descry_process::Attributes;
use rustc_hash::FxBuildHasher;

use super::resource_text;
use crate::otlp::EncodedResource;

/// A process. A clone is the same one, and so is one of the same Resource.
#[derive(Clone, Debug)]
pub struct SpanProcess(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resource: Attributes,
    encoded: EncodedResource,
    service: Arc<str>,
    hash: u64,
}

impl SpanProcess {
    /// The process with this Resource. Make one a process and keep it: its Resource is encoded here.
    pub fn new(resource: Attributes) -> Self {
        let encoded = EncodedResource::new(&resource);
        let hash = FxBuildHasher.hash_one(encoded.bytes());
        let service = resource_text(&resource, "service.name").into();
        Self(Arc::new(Inner { resource, encoded, service, hash }))
    }

    /// The process's Resource.
    pub fn resource(&self) -> &Attributes {
        &self.0.resource
    }

    /// The process's Resource, encoded.
    pub fn encoded(&self) -> &EncodedResource {
        &self.0.encoded
    }

    /// `service.name`; empty: the Resource has none.
    pub fn service(&self) -> &Arc<str> {
        &self.0.service
    }
}

impl PartialEq for SpanProcess {
    fn eq(&self, other: &Self) -> bool {
        let same = || self.0.hash == other.0.hash && self.0.encoded.bytes() == other.0.encoded.bytes();
        Arc::ptr_eq(&self.0, &other.0) || same()
    }
}

impl Eq for SpanProcess {}

impl Hash for SpanProcess {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}
