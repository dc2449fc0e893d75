//! Connects that failed, as spans: nobody's protocol tells of them.

use std::borrow::Cow;

use descry_decode::ConnectFailed;
use descry_decode::ids::{BootNanos, UnixNanos};
use descry_decode::syscall::error_name;

use crate::connection::{NEW_TRACE, ids};
use crate::span::{Attribute, Span, SpanKind, Status, Value};

/// Name of the span.
const NAME: &str = "connect";
/// `error.type` of one that the process gave up: it closed the socket before there was an answer.
const GIVEN_UP: &str = "abandoned";

/// What a connect that failed was, in the names of the conventions.
pub fn attributes(failed: &ConnectFailed) -> Vec<Attribute> {
    let (address, port) = (failed.remote.ip().to_canonical(), i64::from(failed.remote.port()));
    let host = || Value::Text(address.to_string().into());
    let attributes = [
        ("network.transport", Value::Static("tcp")),
        ("network.type", Value::Static(if address.is_ipv4() { "ipv4" } else { "ipv6" })),
        ("server.address", host()),
        ("server.port", Value::Int(port)),
        ("network.peer.address", host()),
        ("network.peer.port", Value::Int(port)),
        ("error.type", Value::Text(error(failed).into())),
    ];
    attributes.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// Why, as `error.type` has it.
pub fn error(failed: &ConnectFailed) -> Cow<'static, str> {
    failed.error.map_or(Cow::Borrowed(GIVEN_UP), error_name)
}

/// The span of a connect that failed, a trace of its own until it is joined to a request. `unix_offset`: Unix time minus
/// boot time (ns).
pub fn span(failed: &ConnectFailed, unix_offset: i64) -> Span {
    let unix = |time: BootNanos| UnixNanos(time.0.saturating_add_signed(unix_offset));
    // A thread has one connect begin at a time.
    let begin = failed.start.0.rotate_left(32) ^ u64::from(failed.tid.0);
    let (trace, span) = ids(begin, failed.remote.port().into());
    Span {
        trace,
        span,
        parent: None,
        trace_state: "".into(),
        flags: NEW_TRACE,
        parent_is_remote: None,
        kind: SpanKind::Client,
        name: Cow::Borrowed(NAME),
        start: unix(failed.start),
        end: unix(failed.end.max(failed.start)),
        status: Status::Error(Cow::Borrowed("")),
        attributes: attributes(failed).into(),
        events: Vec::new(),
        links: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use descry_decode::ids::{RequestId, Tgid, Tid, UnitId};

    use super::*;

    fn check(remote: &str, error: Option<u32>, expected: [&str; 4]) {
        let failed = ConnectFailed {
            start: BootNanos(1_000),
            end: BootNanos(3_000),
            tgid: Tgid(1),
            tid: Tid(2),
            unit: UnitId(2),
            request: RequestId(0),
            remote: remote.parse().unwrap(),
            error,
        };
        let span = span(&failed, 10_000);
        let text = |name| match span.attribute(name) {
            Some(Value::Int(number)) => number.to_string(),
            other => other.and_then(Value::as_text).unwrap_or_default().to_owned(),
        };
        let found = ["network.type", "server.address", "server.port", "error.type"].map(text);
        assert_eq!(found, expected);
        assert_eq!((span.start, span.end), (UnixNanos(11_000), UnixNanos(13_000)));
        assert!(matches!(span.status, Status::Error(_)) && span.kind == SpanKind::Client);
    }

    #[test]
    fn the_error_is_named_as_programs_know_it() {
        check("10.0.0.1:80", Some(111), ["ipv4", "10.0.0.1", "80", "ECONNREFUSED"]);
        check("[::1]:81", Some(110), ["ipv6", "::1", "81", "ETIMEDOUT"]);
        check("[::ffff:10.0.0.1]:80", Some(113), ["ipv4", "10.0.0.1", "80", "EHOSTUNREACH"]);
        check("10.0.0.1:80", None, ["ipv4", "10.0.0.1", "80", "abandoned"]);
    }
}
