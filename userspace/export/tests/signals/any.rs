//! Any span that the types can hold.

use std::borrow::Cow;
use std::sync::Arc;

use descry_assemble::span::{Attribute, Span, SpanEvent, SpanId, SpanKind, SpanLink, Status, TraceId, Value};
use descry_decode::ids::UnixNanos;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![4 => ".{0,20}", 1 => ".{100,300}"];
    prop_oneof![
        prop_oneof![Just(""), Just("GET"), Just("größe")].prop_map(Value::Static),
        text().prop_map(|text| Value::Text(text.into())),
        text().prop_map(|text| Value::Shared(Arc::from(text))),
        prop_oneof![any::<i64>(), -2..300_i64].prop_map(Value::Int),
        prop_oneof![
            any::<f64>().prop_filter("equal to itself", |number| !number.is_nan()),
            Just(0.0),
            Just(-0.0)
        ]
        .prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        vec(text().prop_map(Box::from), 0..4).prop_map(|texts| Value::Texts(texts.into())),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec(("[a-z.]{0,12}".prop_map(Cow::Owned), value()), 0..6)
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    ".{0,30}".prop_map(Cow::Owned)
}

fn events() -> impl Strategy<Value = Vec<SpanEvent>> {
    let event = (any::<u64>(), text(), attributes());
    vec(
        event.prop_map(|(time, name, attributes)| SpanEvent { time: UnixNanos(time), name, attributes }),
        0..3,
    )
}

fn links() -> impl Strategy<Value = Vec<SpanLink>> {
    let link = (any::<[u8; 16]>(), any::<[u8; 8]>(), attributes());
    vec(
        link.prop_map(|(trace, span, attributes)| SpanLink {
            trace: TraceId(trace),
            span: SpanId(span),
            attributes,
        }),
        0..3,
    )
}

/// Any span, with all that its types can hold.
pub fn any_span() -> impl Strategy<Value = Span> {
    let kind = prop_oneof![
        Just(SpanKind::Internal),
        Just(SpanKind::Server),
        Just(SpanKind::Client),
        Just(SpanKind::Producer),
        Just(SpanKind::Consumer)
    ];
    let status = prop_oneof![Just(Status::Unset), Just(Status::Ok), text().prop_map(Status::Error)];
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), option::of(any::<[u8; 8]>()));
    let context = (".{0,10}", any::<u8>(), option::of(any::<bool>()));
    let times = (prop_oneof![any::<u64>(), Just(0)], any::<u64>());
    let more = (attributes(), events(), links());
    (ids, context, kind, text(), times, status, more).prop_map(
        |((trace, span, parent), (state, flags, remote), kind, name, (start, end), status, more)| Span {
            trace: TraceId(trace),
            span: SpanId(span),
            parent: parent.map(SpanId),
            trace_state: state.into(),
            flags,
            parent_is_remote: remote,
            kind,
            name,
            start: UnixNanos(start),
            end: UnixNanos(end),
            status,
            attributes: more.0.into(),
            events: more.1,
            links: more.2,
        },
    )
}
