//! Messages of logs.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use serde::ser::{Serialize, Serializer};

use super::{Fields, Json, object};

object!(ExportLogsServiceRequest {
    messages "resourceLogs" resource_logs,
});
object!(ResourceLogs {
    message "resource" resource,
    messages "scopeLogs" scope_logs,
    text "schemaUrl" schema_url,
});
object!(ScopeLogs {
    message "scope" scope,
    messages "logRecords" log_records,
    text "schemaUrl" schema_url,
});
object!(LogRecord {
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "observedTimeUnixNano" observed_time_unix_nano,
    int32 "severityNumber" severity_number,
    text "severityText" severity_text,
    message "body" body,
    messages "attributes" attributes,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    uint32 "flags" flags,
    hex "traceId" trace_id,
    hex "spanId" span_id,
    text "eventName" event_name,
});
