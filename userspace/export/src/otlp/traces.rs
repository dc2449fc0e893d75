//! Spans straight to the bytes of export requests (`opentelemetry.proto.collector.trace.v1`).
//!
//! Give a [`TraceWriter`] spans, each with the [`EncodedResource`] of its process; get [`TraceRequest`]s under a size.
//! No message is built in between: a span is written once, and the Resource of a process is encoded once for all of
//! its requests. A request has one `ResourceSpans` a process. It does no I/O and reads no clock.

use std::sync::Arc;

use bytes::Bytes;
use descry_assemble::span::{Attribute, Span, SpanEvent, SpanLink, Status, Value};
use descry_process::Attributes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::encoding::WireType::{LengthDelimited, SixtyFourBit, ThirtyTwoBit, Varint};
use prost::encoding::encoded_len_varint;
use prost::{DecodeError, Message};
use rustc_hash::FxHashMap;

use super::OtlpOptions;
use super::attributes::{resource, scope};
use super::wire::{
    bytes, delimited, delimited_len, fixed64, key, long_message, message, number, text, wide_key,
};

/// Most bytes that the keys and lengths around a process's spans take: a message of 2^32 bytes has a length of five.
const GROUP_OVERHEAD: usize = 2 * (1 + 5);

/// The Resource of a process as every request repeats it. A clone is the same one; make one a process, since spans of
/// two do not share a `ResourceSpans`, even if both say the same.
#[derive(Clone, Debug)]
pub struct EncodedResource(Arc<[u8]>);

impl EncodedResource {
    /// Encodes the Resource.
    pub fn new(attributes: &Attributes) -> Self {
        let mut encoded = Vec::new();
        // ResourceSpans.resource
        prost::encoding::message::encode(1, &resource(attributes), &mut encoded);
        Self(encoded.into())
    }

    /// The encoded field.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same for clones only, while one of them lives.
    fn id(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

/// An `ExportTraceServiceRequest`, or a `TracesData`, which has the same encoding. Several in a row are one message too,
/// as protobuf defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    bytes: Bytes,
    spans: u64,
}

impl TraceRequest {
    /// How many spans it has.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// The encoded message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded message.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// As a message.
    ///
    /// # Errors
    ///
    /// Never for a request that a [`TraceWriter`] made.
    pub fn decode(&self) -> Result<ExportTraceServiceRequest, DecodeError> {
        ExportTraceServiceRequest::decode(self.bytes.as_ref())
    }
}

/// Collects spans into requests of at most so many bytes.
#[derive(Debug)]
pub struct TraceWriter {
    max_bytes: usize,
    /// ScopeSpans.scope
    scope: Vec<u8>,
    groups: Vec<Group>,
    /// Indices into `groups` by [`EncodedResource::id`].
    by_resource: FxHashMap<usize, usize>,
    /// What the request will take at most.
    len: usize,
    spans: u64,
    oversized_spans: u64,
    /// Empty buffers for the spans of the next request's processes: new memory costs more than the writing. They hold
    /// at most twice `max_bytes` together.
    spare: Vec<Vec<u8>>,
}

/// The spans of a process.
#[derive(Debug)]
struct Group {
    resource: EncodedResource,
    spans: Vec<u8>,
}

impl TraceWriter {
    /// For requests of at most `max_bytes` (protobuf, before compression); see
    /// [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES).
    pub fn new(options: &OtlpOptions, max_bytes: usize) -> Self {
        let mut encoded = Vec::new();
        prost::encoding::message::encode(1, &scope(options), &mut encoded);
        Self {
            max_bytes,
            scope: encoded,
            groups: Vec::new(),
            by_resource: FxHashMap::default(),
            len: 0,
            spans: 0,
            oversized_spans: 0,
            spare: Vec::new(),
        }
    }

    /// Adds a span of the process with this Resource. Where it does not fit any more, the request that is full is
    /// given, and the span begins the next one. One that is larger than a whole request is left out and counted.
    pub fn push(&mut self, resource: &EncodedResource, span: &Span) -> Option<TraceRequest> {
        let known = self.by_resource.get(&resource.id()).copied();
        let mut spans = match known.and_then(|index| self.groups.get_mut(index)) {
            Some(group) => std::mem::take(&mut group.spans),
            None => self.spare.pop().unwrap_or_default(),
        };
        let start = spans.len();
        long_message(&mut spans, SCOPE_SPANS_SPANS, |out| write_span(out, span));
        let len = spans.len() - start;
        let alone = GROUP_OVERHEAD + resource.0.len() + self.scope.len() + len;
        let more = if known.is_some() { len } else { alone };
        let is_oversized = alone > self.max_bytes;
        if !is_oversized && self.len + more <= self.max_bytes {
            self.put(known, resource, spans, more);
            self.spans += 1;
            return None;
        }
        let mut first = self.spare.pop().unwrap_or_default();
        first.extend_from_slice(spans.get(start..).unwrap_or_default());
        spans.truncate(start);
        if known.is_some() {
            self.put(known, resource, spans, 0);
        }
        if is_oversized {
            self.oversized_spans += 1;
            return None;
        }
        let full = self.finish();
        self.put(None, resource, first, alone);
        self.spans += 1;
        full
    }

    /// Puts the spans of a process in their place, or in a new one; the request takes so much `more` with them.
    fn put(&mut self, known: Option<usize>, resource: &EncodedResource, spans: Vec<u8>, more: usize) {
        self.len += more;
        if let Some(group) = known.and_then(|index| self.groups.get_mut(index)) {
            group.spans = spans;
            return;
        }
        self.by_resource.insert(resource.id(), self.groups.len());
        self.groups.push(Group { resource: resource.clone(), spans });
    }

    /// Spans that wait for the next request.
    pub fn waiting(&self) -> u64 {
        self.spans
    }

    /// Bytes that a request of them will take at most.
    pub fn waiting_bytes(&self) -> usize {
        self.len
    }

    /// How many spans were left out until now, because one alone with its Resource is over the limit.
    pub fn oversized_spans(&self) -> u64 {
        self.oversized_spans
    }

    /// What was added since the last request; none: nothing was.
    pub fn finish(&mut self) -> Option<TraceRequest> {
        if self.groups.is_empty() {
            return None;
        }
        let mut request = Vec::with_capacity(self.len);
        for group in self.groups.drain(..) {
            let scope_len = self.scope.len() + group.spans.len();
            let resource_len = group.resource.0.len() + delimited_len(scope_len);
            delimited(&mut request, REQUEST_RESOURCE_SPANS, resource_len);
            request.extend_from_slice(&group.resource.0);
            delimited(&mut request, RESOURCE_SPANS_SCOPE_SPANS, scope_len);
            request.extend_from_slice(&self.scope);
            request.extend_from_slice(&group.spans);
            let mut buffer = group.spans;
            if self.spare.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity() <= 2 * self.max_bytes {
                buffer.clear();
                self.spare.push(buffer);
            }
        }
        self.by_resource.clear();
        self.len = 0;
        Some(TraceRequest { bytes: request.into(), spans: std::mem::take(&mut self.spans) })
    }
}

// Numbers of fields: opentelemetry/proto/{collector/trace/v1/trace_service,trace/v1/trace,common/v1/common}.proto.
const REQUEST_RESOURCE_SPANS: u8 = key(1, LengthDelimited);
const RESOURCE_SPANS_SCOPE_SPANS: u8 = key(2, LengthDelimited);
const SCOPE_SPANS_SPANS: u8 = key(2, LengthDelimited);

const SPAN_TRACE_ID: u8 = key(1, LengthDelimited);
const SPAN_SPAN_ID: u8 = key(2, LengthDelimited);
const SPAN_TRACE_STATE: u8 = key(3, LengthDelimited);
const SPAN_PARENT_SPAN_ID: u8 = key(4, LengthDelimited);
const SPAN_NAME: u8 = key(5, LengthDelimited);
const SPAN_KIND: u8 = key(6, Varint);
const SPAN_START: u8 = key(7, SixtyFourBit);
const SPAN_END: u8 = key(8, SixtyFourBit);
const SPAN_ATTRIBUTES: u8 = key(9, LengthDelimited);
const SPAN_EVENTS: u8 = key(11, LengthDelimited);
const SPAN_LINKS: u8 = key(13, LengthDelimited);
const SPAN_STATUS: u8 = key(15, LengthDelimited);
const SPAN_FLAGS: [u8; 2] = wide_key(16, ThirtyTwoBit);

const EVENT_TIME: u8 = key(1, SixtyFourBit);
const EVENT_NAME: u8 = key(2, LengthDelimited);
const EVENT_ATTRIBUTES: u8 = key(3, LengthDelimited);

const LINK_TRACE_ID: u8 = key(1, LengthDelimited);
const LINK_SPAN_ID: u8 = key(2, LengthDelimited);
const LINK_ATTRIBUTES: u8 = key(4, LengthDelimited);

const STATUS_MESSAGE: u8 = key(2, LengthDelimited);
const STATUS_CODE: u8 = key(3, Varint);

const KEY_VALUE_KEY: u8 = key(1, LengthDelimited);
const KEY_VALUE_VALUE: u8 = key(2, LengthDelimited);
const ANY_VALUE_STRING: u8 = key(1, LengthDelimited);
const ANY_VALUE_BOOL: u8 = key(2, Varint);
const ANY_VALUE_INT: u8 = key(3, Varint);
const ANY_VALUE_DOUBLE: u8 = key(4, SixtyFourBit);
const ANY_VALUE_ARRAY: u8 = key(5, LengthDelimited);
const ARRAY_VALUES: u8 = key(1, LengthDelimited);

/// The fields of a `Span` in the order of their numbers; defaults are left out.
fn write_span(out: &mut Vec<u8>, span: &Span) {
    bytes(out, SPAN_TRACE_ID, &span.trace.0);
    bytes(out, SPAN_SPAN_ID, &span.span.0);
    text(out, SPAN_TRACE_STATE, &span.trace_state);
    if let Some(parent) = &span.parent {
        bytes(out, SPAN_PARENT_SPAN_ID, &parent.0);
    }
    text(out, SPAN_NAME, &span.name);
    number(out, SPAN_KIND, span.kind as u64);
    fixed64(out, SPAN_START, span.start.0);
    fixed64(out, SPAN_END, span.end.0);
    match span.attributes.shared() {
        Some(shared) => out.extend_from_slice(shared.written(|attributes| {
            let mut written = Vec::new();
            write_attributes(&mut written, SPAN_ATTRIBUTES, attributes);
            written
        })),
        None => write_attributes(out, SPAN_ATTRIBUTES, &span.attributes),
    }
    for event in &span.events {
        message(out, SPAN_EVENTS, |out| write_event(out, event));
    }
    for link in &span.links {
        message(out, SPAN_LINKS, |out| write_link(out, link));
    }
    write_status(out, &span.status);
    let flags = flags(span);
    if flags != 0 {
        out.extend_from_slice(&SPAN_FLAGS);
        out.extend_from_slice(&flags.to_le_bytes());
    }
}

/// W3C's flags in bits 0 to 7, and in bits 8 and 9 whether the parent is remote.
fn flags(span: &Span) -> u32 {
    let remote = match span.parent_is_remote {
        None => 0,
        Some(false) => SpanFlags::ContextHasIsRemoteMask as u32,
        Some(true) => SpanFlags::ContextHasIsRemoteMask as u32 | SpanFlags::ContextIsRemoteMask as u32,
    };
    u32::from(span.flags) | remote
}

fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    fixed64(out, EVENT_TIME, event.time.0);
    text(out, EVENT_NAME, &event.name);
    write_attributes(out, EVENT_ATTRIBUTES, &event.attributes);
}

fn write_link(out: &mut Vec<u8>, link: &SpanLink) {
    bytes(out, LINK_TRACE_ID, &link.trace.0);
    bytes(out, LINK_SPAN_ID, &link.span.0);
    write_attributes(out, LINK_ATTRIBUTES, &link.attributes);
}

fn write_status(out: &mut Vec<u8>, status: &Status) {
    let (code, description) = match status {
        Status::Unset => return,
        Status::Ok => (StatusCode::Ok, ""),
        Status::Error(description) => (StatusCode::Error, description.as_ref()),
    };
    message(out, SPAN_STATUS, |out| {
        text(out, STATUS_MESSAGE, description);
        number(out, STATUS_CODE, code as u64);
    });
}

/// `KeyValue`s; their lengths are computed beforehand, because they are most of a span.
fn write_attributes(out: &mut Vec<u8>, field: u8, attributes: &[Attribute]) {
    for (name, value) in attributes {
        let name_len = if name.is_empty() { 0 } else { delimited_len(name.len()) };
        let value_len = value_len(value);
        delimited(out, field, name_len + delimited_len(value_len));
        text(out, KEY_VALUE_KEY, name);
        delimited(out, KEY_VALUE_VALUE, value_len);
        write_value(out, value);
    }
}

/// Bytes of an `AnyValue`.
fn value_len(value: &Value) -> usize {
    match value {
        Value::Static(text) => delimited_len(text.len()),
        Value::Text(text) => delimited_len(text.len()),
        Value::Shared(text) => delimited_len(text.len()),
        Value::Int(number) => 1 + encoded_len_varint(number.cast_unsigned()),
        Value::Double(_) => 1 + size_of::<f64>(),
        Value::Bool(_) => 2,
        Value::Texts(texts) => delimited_len(texts_len(texts)),
    }
}

/// Bytes of an `ArrayValue`.
fn texts_len(texts: &[Box<str>]) -> usize {
    texts.iter().map(|text| delimited_len(delimited_len(text.len()))).sum()
}

/// One of an `AnyValue`'s fields, which is written even where it is a default: it says which kind of value it is.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Static(text) => bytes(out, ANY_VALUE_STRING, text.as_bytes()),
        Value::Text(text) => bytes(out, ANY_VALUE_STRING, text.as_bytes()),
        Value::Shared(text) => bytes(out, ANY_VALUE_STRING, text.as_bytes()),
        Value::Int(int) => number(out, ANY_VALUE_INT, int.cast_unsigned()),
        Value::Double(double) => {
            out.push(ANY_VALUE_DOUBLE);
            out.extend_from_slice(&double.to_le_bytes());
        }
        Value::Bool(value) => number(out, ANY_VALUE_BOOL, u64::from(*value)),
        Value::Texts(texts) => {
            delimited(out, ANY_VALUE_ARRAY, texts_len(texts));
            for text in texts {
                delimited(out, ARRAY_VALUES, delimited_len(text.len()));
                bytes(out, ANY_VALUE_STRING, text.as_bytes());
            }
        }
    }
}
