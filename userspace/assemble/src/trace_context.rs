//! Trace context in headers: W3C `traceparent` and `tracestate` (W3C Trace Context, level 2), and Zipkin's B3 in one
//! header or in several. What breaks the rules counts as not there. W3C goes before B3.

use crate::protocol::TraceContext;
use crate::span::{SpanId, TraceId};

/// Bytes of `tracestate` that are kept: the specification asks for 512 at least. Whole members are left out, the last
/// first.
const MAX_STATE: usize = 512;
/// Members of `tracestate` (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// `traceparent` of version 00: 2 + 1 + 32 + 1 + 16 + 1 + 2 (section 3.2.2).
const PARENT_LEN: usize = 55;
/// Trace flag "sampled".
const SAMPLED: u8 = 1;

/// Collects the headers of one request.
#[derive(Clone, Debug, Default)]
pub struct ContextReader {
    parent: Seen<(TraceId, SpanId, u8)>,
    state: String,
    state_is_broken: bool,
    b3: Option<TraceContext>,
    b3_trace: Option<TraceId>,
    b3_span: Option<SpanId>,
    b3_sampled: Option<bool>,
}

/// A header that may be there once.
#[derive(Clone, Copy, Debug, Default)]
enum Seen<T> {
    #[default]
    Never,
    Once(T),
    Wrong,
}

impl ContextReader {
    /// `traceparent`. Two of them are none.
    pub fn traceparent(&mut self, value: &[u8]) {
        self.parent = match (&self.parent, parent(value.trim_ascii())) {
            (Seen::Never, Some(parent)) => Seen::Once(parent),
            _ => Seen::Wrong,
        };
    }

    /// `tracestate`; several are one list.
    pub fn tracestate(&mut self, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else {
            self.state_is_broken = true;
            return;
        };
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            let is_member = member.split_once('=').is_some_and(|(key, value)| {
                let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
                !key.is_empty() && !value.is_empty() && member.bytes().all(printable)
            });
            if !is_member {
                self.state_is_broken = true;
                return;
            }
            let members = self.state.split(',').count();
            if self.state.len() + 1 + member.len() > MAX_STATE || members >= MAX_MEMBERS {
                return;
            }
            if !self.state.is_empty() {
                self.state.push(',');
            }
            self.state.push_str(member);
        }
    }

    /// `b3`: `TRACE-SPAN[-SAMPLED[-PARENT]]`.
    pub fn b3(&mut self, value: &[u8]) {
        let mut parts = value.trim_ascii().split(|byte| *byte == b'-');
        let (Some(trace), Some(span)) = (parts.next().and_then(b3_trace), parts.next().and_then(span_id))
        else {
            return;
        };
        let sampled = parts.next().is_none_or(|value| is_sampled(value).unwrap_or(true));
        self.b3 = Some(context(trace, span, sampled));
    }

    /// `x-b3-traceid`.
    pub fn b3_trace(&mut self, value: &[u8]) {
        self.b3_trace = b3_trace(value.trim_ascii());
    }

    /// `x-b3-spanid`.
    pub fn b3_span(&mut self, value: &[u8]) {
        self.b3_span = span_id(value.trim_ascii());
    }

    /// `x-b3-sampled`.
    pub fn b3_sampled(&mut self, value: &[u8]) {
        self.b3_sampled = is_sampled(value.trim_ascii());
    }

    /// `x-b3-flags`: 1 is "debug", which means sampled.
    pub fn b3_flags(&mut self, value: &[u8]) {
        if value.trim_ascii() == b"1" {
            self.b3_sampled = Some(true);
        }
    }

    /// What they say.
    pub fn finish(self) -> Option<TraceContext> {
        if let Seen::Once((trace, parent, flags)) = self.parent {
            let state = if self.state_is_broken { String::new() } else { self.state };
            return Some(TraceContext { trace, parent, flags, state: state.into() });
        }
        let several = || Some(context(self.b3_trace?, self.b3_span?, self.b3_sampled.unwrap_or(true)));
        self.b3.clone().or_else(several)
    }
}

fn context(trace: TraceId, parent: SpanId, sampled: bool) -> TraceContext {
    TraceContext { trace, parent, flags: if sampled { SAMPLED } else { 0 }, state: "".into() }
}

/// `VERSION-TRACE-PARENT-FLAGS`; versions after 00 may have more behind it.
fn parent(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte) || *byte == b'-';
    let (known, rest) = value.split_at_checked(PARENT_LEN)?;
    let mut parts = known.split(|byte| *byte == b'-');
    let [version] = hex::<1>(parts.next()?)?;
    let (trace, span) = (trace_id(parts.next()?)?, span_id(parts.next()?)?);
    let [flags] = hex::<1>(parts.next()?)?;
    let is_end = match rest.first() {
        None => true,
        Some(byte) => version != 0 && *byte == b'-',
    };
    (known.iter().all(lower) && is_end && version != 0xff && parts.next().is_none())
        .then_some((trace, span, flags))
}

fn is_sampled(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// 32 digits, or 16 that stand for the right half.
fn b3_trace(value: &[u8]) -> Option<TraceId> {
    match span_id(value) {
        Some(SpanId(half)) => {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&half);
            Some(TraceId(id))
        }
        None => trace_id(value),
    }
}

fn trace_id(value: &[u8]) -> Option<TraceId> {
    hex(value).filter(|id| *id != [0; 16]).map(TraceId)
}

fn span_id(value: &[u8]) -> Option<SpanId> {
    hex(value).filter(|id| *id != [0; 8]).map(SpanId)
}

fn hex<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; N];
    if value.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(value.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Headers to `TRACE-PARENT-FLAGS[ STATE]`.
    fn check(headers: &[(&str, &str)], expected: &str) {
        let mut reader = ContextReader::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            match *name {
                "traceparent" => reader.traceparent(value),
                "tracestate" => reader.tracestate(value),
                "b3" => reader.b3(value),
                "x-b3-traceid" => reader.b3_trace(value),
                "x-b3-spanid" => reader.b3_span(value),
                "x-b3-sampled" => reader.b3_sampled(value),
                "x-b3-flags" => reader.b3_flags(value),
                other => panic!("{other}"),
            }
        }
        let found = reader.finish().map_or_else(String::new, |context| {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let text = format!("{}-{}-{:02x}", hex(&context.trace.0), hex(&context.parent.0), context.flags);
            if context.state.is_empty() { text } else { format!("{text} {}", context.state) }
        });
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn w3c() {
        let known = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        check(&[], "");
        check(&[("traceparent", W3C)], known);
        check(&[("traceparent", W3C), ("traceparent", W3C)], "");
        check(&[("traceparent", &W3C.to_uppercase())], "");
        check(&[("traceparent", &format!("{W3C}-more"))], "");
        check(&[("traceparent", &W3C.replacen("00", "01", 1))], known);
        check(&[("traceparent", &format!("{}-more", W3C.replacen("00", "01", 1)))], known);
        check(&[("traceparent", &format!("{}x", W3C.replacen("00", "01", 1)))], "");
        check(&[("traceparent", &W3C.replacen("00", "ff", 1))], "");
        check(&[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")], "");
        check(&[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01")], "");
        check(&[("traceparent", &W3C[..54])], "");
    }

    #[test]
    fn states_are_one_list() {
        let known = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        check(
            &[("traceparent", W3C), ("tracestate", "a=1, b=2"), ("tracestate", "c=3,")],
            &format!("{known} a=1,b=2,c=3"),
        );
        check(&[("traceparent", W3C), ("tracestate", "a=1,nonsense")], known);
        check(&[("tracestate", "a=1")], "");
        let long = format!("a=1,b={}", "x".repeat(MAX_STATE));
        check(&[("traceparent", W3C), ("tracestate", &long)], &format!("{known} a=1"));
    }

    #[test]
    fn b3_in_one_header_or_several() {
        let (trace, span) = ("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        let known = format!("{trace}-{span}");
        check(&[("b3", &known)], &format!("{known}-01"));
        check(&[("b3", &format!("{known}-0"))], &format!("{known}-00"));
        check(&[("b3", &format!("{known}-d-05e3ac9a4f6e3b90"))], &format!("{known}-01"));
        check(&[("b3", "0")], "");
        let several = [("x-b3-traceid", trace), ("x-b3-spanid", span)];
        check(&several, &format!("{known}-01"));
        check(&[several[0], several[1], ("x-b3-sampled", "0")], &format!("{known}-00"));
        check(&[several[0], several[1], ("x-b3-flags", "1")], &format!("{known}-01"));
        check(&several[..1], "");
        check(
            &[("b3", &format!("64fe8b2a57d3eff7-{span}"))],
            &format!("000000000000000064fe8b2a57d3eff7-{span}-01"),
        );
        check(
            &[("b3", &known), ("traceparent", W3C)],
            "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    }
}
