//! A span: one piece of work with a beginning and an end, as OpenTelemetry defines it (trace API, "Span").

mod attributes;

use std::borrow::Cow;
use std::sync::Arc;

use descry_decode::ids::UnixNanos;

pub use attributes::{AttributeSet, SharedAttributes};

/// The trace that a span belongs to (W3C trace context, "trace-id"). Never all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A span in its trace (W3C trace context, "parent-id"). Never all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

/// What a span has to do with other processes. The numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SpanKind {
    /// Work inside of a process.
    Internal = 1,
    /// Work for a caller elsewhere.
    Server = 2,
    /// Waiting for somebody elsewhere.
    Client = 3,
    /// Handing work to a queue.
    Producer = 4,
    /// Work that came from a queue.
    Consumer = 5,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nobody says that it failed.
    #[default]
    Unset,
    /// Somebody says that it did not.
    Ok,
    /// It failed; the text may be empty.
    Error(Cow<'static, str>),
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text that is known beforehand.
    Static(&'static str),
    /// Text.
    Text(Box<str>),
    /// Text that many spans share.
    Shared(Arc<str>),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Several texts.
    Texts(Box<[Box<str>]>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Text(text) => Some(text),
            Self::Shared(text) => Some(text),
            Self::Int(_) | Self::Double(_) | Self::Bool(_) | Self::Texts(_) => None,
        }
    }
}

/// An attribute: its name in the semantic conventions, and its value.
pub type Attribute = (Cow<'static, str>, Value);

/// Something that happened at one time during a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// When.
    pub time: UnixNanos,
    /// Its name.
    pub name: Cow<'static, str>,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// Another span that this one has to do with.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanLink {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// A span. Whose it is (the Resource) is told beside it: one process has many.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: TraceId,
    /// Its id.
    pub span: SpanId,
    /// The span that caused it; none: it is a root.
    pub parent: Option<SpanId>,
    /// W3C `tracestate`, as it came; empty if none did.
    pub trace_state: Box<str>,
    /// W3C trace flags: bit 0 is "sampled", bit 1 "random".
    pub flags: u8,
    /// Whether the parent is in another process; none: there is no parent.
    pub parent_is_remote: Option<bool>,
    /// What it has to do with other processes.
    pub kind: SpanKind,
    /// What was done, of low cardinality.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: UnixNanos,
    /// When it ended.
    pub end: UnixNanos,
    /// How it ended.
    pub status: Status,
    /// More about it.
    pub attributes: AttributeSet,
    /// What happened during it.
    pub events: Vec<SpanEvent>,
    /// Others that it has to do with.
    pub links: Vec<SpanLink>,
}

/// Attributes that name the protocol, the most precise first (semantic conventions).
const PROTOCOLS: [&str; 5] =
    ["rpc.system.name", "rpc.system", "db.system.name", "messaging.system", "network.protocol.name"];
/// Attributes whose presence tells a protocol that none of [`PROTOCOLS`] names.
const TELLTALES: [(&str, &str); 3] =
    [("http.request.method", "http"), ("dns.question.name", "dns"), ("code.function.name", "function")];

impl Span {
    /// A span of something inside of a process, between two times: so far the root of a trace of its own, without attributes.
    pub fn internal(
        (trace, span): (TraceId, SpanId),
        name: Cow<'static, str>,
        (start, end): (UnixNanos, UnixNanos),
    ) -> Self {
        Self {
            trace,
            span,
            parent: None,
            trace_state: Box::default(),
            flags: 1,
            parent_is_remote: None,
            kind: SpanKind::Internal,
            name,
            start,
            end,
            status: Status::Unset,
            attributes: AttributeSet::default(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The protocol that its attributes tell.
    pub fn protocol(&self) -> Option<&str> {
        let named = PROTOCOLS.iter().find_map(|key| self.attribute(key)?.as_text());
        let told = || TELLTALES.iter().find(|(key, _)| self.attribute(key).is_some());
        named.or_else(|| told().map(|(_, protocol)| *protocol))
    }
}
