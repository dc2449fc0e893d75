//! Messages of traces.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde::ser::{Serialize, Serializer};

use super::{Fields, Json, object};

object!(ExportTraceServiceRequest {
    messages "resourceSpans" resource_spans,
});
object!(ResourceSpans {
    message "resource" resource,
    messages "scopeSpans" scope_spans,
    text "schemaUrl" schema_url,
});
object!(ScopeSpans {
    message "scope" scope,
    messages "spans" spans,
    text "schemaUrl" schema_url,
});
object!(Span {
    hex "traceId" trace_id,
    hex "spanId" span_id,
    text "traceState" trace_state,
    hex "parentSpanId" parent_span_id,
    uint32 "flags" flags,
    text "name" name,
    int32 "kind" kind,
    uint64 "startTimeUnixNano" start_time_unix_nano,
    uint64 "endTimeUnixNano" end_time_unix_nano,
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    messages "events" events,
    uint32 "droppedEventsCount" dropped_events_count,
    messages "links" links,
    uint32 "droppedLinksCount" dropped_links_count,
    message "status" status,
});
object!(Event {
    uint64 "timeUnixNano" time_unix_nano,
    text "name" name,
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
});
object!(Link {
    hex "traceId" trace_id,
    hex "spanId" span_id,
    text "traceState" trace_state,
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    uint32 "flags" flags,
});
object!(Status {
    text "message" message,
    int32 "code" code,
});
