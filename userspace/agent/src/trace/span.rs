//! A call of a function as a span.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use descry_assemble::span::{Span, SpanId, TraceId, Value};
use descry_decode::Call;
use descry_decode::ids::{BootNanos, Tgid, UnitId, UnixNanos};

use super::catalog::Traced;

/// W3C trace flags: "sampled" and "random".
const TRACE_FLAGS: u8 = 3;

/// The span of a call. Calls that lie in one outermost call are one trace.
pub fn span(call: &Call, traced: &Traced, boot_to_unix: i64) -> Span {
    let unix = |time: BootNanos| UnixNanos(time.0.saturating_add_signed(boot_to_unix));
    let id = |start: BootNanos| span_id(call, start, boot_to_unix);
    let mut attributes = vec![
        ("code.function.name".into(), Value::Shared(Arc::clone(&traced.name))),
        ("thread.id".into(), Value::Int(call.tid.0.into())),
        ("thread.name".into(), Value::Text(call.comm.to_string().into())),
    ];
    if let Some(source) = &traced.source {
        attributes.push(("code.file.path".into(), Value::Shared(Arc::clone(source))));
    }
    if let Some(line) = traced.line {
        attributes.push(("code.line.number".into(), Value::Int(line.into())));
    }
    let ids = (trace_id(call, boot_to_unix), id(call.start));
    Span {
        parent: call.parent.map(id),
        flags: TRACE_FLAGS,
        parent_is_remote: call.parent.map(|_| false),
        attributes: attributes.into(),
        ..Span::internal(ids, traced.name.to_string().into(), (unix(call.start), unix(call.end)))
    }
}

/// No two outermost calls of a unit begin at one time, and no two units of a machine's uptime have one id at that time.
fn trace_id(call: &Call, boot_to_unix: i64) -> TraceId {
    let part = |salt| hash(salt, call.tgid, call.unit, call.root, boot_to_unix);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&part(1).to_be_bytes());
    id[8..].copy_from_slice(&(part(2) | 1).to_be_bytes());
    TraceId(id)
}

fn span_id(call: &Call, start: BootNanos, boot_to_unix: i64) -> SpanId {
    SpanId((hash(3, call.tgid, call.unit, start, boot_to_unix) | 1).to_be_bytes())
}

fn hash(salt: u8, tgid: Tgid, unit: UnitId, start: BootNanos, boot_to_unix: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, tgid, unit, start, boot_to_unix).hash(&mut hasher);
    hasher.finish()
}
