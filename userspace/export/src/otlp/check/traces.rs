//! The rules of traces.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesDictionary;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};

use super::{Found, Rule, Violation, check_key_values};

/// Whether a request with spans keeps every [`Rule`] that is about them.
///
/// # Errors
///
/// All violations, in the order in which they stand in the message.
pub fn check_traces(request: &ExportTraceServiceRequest) -> Result<(), Vec<Violation>> {
    let mut found = Found::default();
    let mut resources = Vec::new();
    for (index, resource_spans) in request.resource_spans.iter().enumerate() {
        let at = format!("resource_spans[{index}]");
        check_resource(resource_spans.resource.as_ref(), &mut resources, &at, &mut found);
        if resource_spans.scope_spans.is_empty() {
            found.add(Rule::NotEmpty, &at, "has no scope_spans");
        }
        for (index, scope) in resource_spans.scope_spans.iter().enumerate() {
            let at = format!("{at}.scope_spans[{index}]");
            if scope.spans.is_empty() {
                found.add(Rule::NotEmpty, &at, "has no spans");
            }
            for (index, span) in scope.spans.iter().enumerate() {
                check_span(span, &format!("{at}.spans[{index}]"), &mut found);
            }
        }
    }
    found.result()
}

fn check_span(span: &Span, at: &str, found: &mut Found) {
    let nothing = ProfilesDictionary::default();
    check_ids(&span.trace_id, &span.span_id, at, found);
    let parent = &span.parent_span_id;
    if !parent.is_empty() && (!is_id(parent, 8) || *parent == span.span_id) {
        found.add(Rule::SpanIds, at, format!("has the parent {parent:02x?}"));
    }
    if span.name.is_empty() || SpanKind::try_from(span.kind).is_ok_and(|kind| kind == SpanKind::Unspecified) {
        found.add(Rule::SpanNamed, at, format!("has the name {:?} and the kind {}", span.name, span.kind));
    }
    check_times(span.start_time_unix_nano, span.end_time_unix_nano, at, found);
    check_flags(span, at, found);
    if let Some(status) = &span.status {
        check_status(status, at, found);
    }
    check_key_values(&span.attributes, &nothing, at, found);
    for (index, event) in span.events.iter().enumerate() {
        let at = format!("{at}.events[{index}]");
        if event.name.is_empty() || event.time_unix_nano == 0 {
            found.add(Rule::SpanNamed, &at, "has no name or no time");
        }
        check_key_values(&event.attributes, &nothing, &at, found);
    }
    for (index, link) in span.links.iter().enumerate() {
        let at = format!("{at}.links[{index}]");
        check_ids(&link.trace_id, &link.span_id, &at, found);
        check_key_values(&link.attributes, &nothing, &at, found);
    }
}

fn check_flags(span: &Span, at: &str, found: &mut Found) {
    let (known, remote) = (SpanFlags::ContextHasIsRemoteMask as u32, SpanFlags::ContextIsRemoteMask as u32);
    let flags = span.flags;
    if flags > 0xff | known | remote || (flags & remote != 0 && flags & known == 0) {
        found.add(Rule::SpanFlags, at, format!("has the flags {flags:#x}"));
    }
}

fn check_status(status: &Status, at: &str, found: &mut Found) {
    let code = StatusCode::try_from(status.code);
    if code.is_err() || (code != Ok(StatusCode::Error) && !status.message.is_empty()) {
        found.add(Rule::SpanStatus, at, format!("{status:?}"));
    }
}

/// A Resource, with those before it in the request.
pub(super) fn check_resource<'a>(
    resource: Option<&'a Resource>,
    before: &mut Vec<&'a Resource>,
    at: &str,
    found: &mut Found,
) {
    let Some(resource) = resource else { return };
    check_key_values(&resource.attributes, &ProfilesDictionary::default(), &format!("{at}.resource"), found);
    if before.contains(&resource) {
        found.add(Rule::ResourceOnce, at, "has the Resource of one before it");
    }
    before.push(resource);
}

/// A beginning and an end.
pub(super) fn check_times(start: u64, end: u64, at: &str, found: &mut Found) {
    if start == 0 || end < start {
        found.add(Rule::EndAfterStart, at, format!("from {start} to {end}"));
    }
}

/// The ids of a span.
pub(super) fn check_ids(trace: &[u8], span: &[u8], at: &str, found: &mut Found) {
    if !is_id(trace, 16) || !is_id(span, 8) {
        found.add(Rule::SpanIds, at, format!("has the ids {trace:02x?} and {span:02x?}"));
    }
}

fn is_id(id: &[u8], len: usize) -> bool {
    id.len() == len && id.iter().any(|byte| *byte != 0)
}
