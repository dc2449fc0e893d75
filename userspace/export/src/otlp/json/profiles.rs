//! Messages of profiles.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesData, ProfilesDictionary,
    ResourceProfiles, Sample, ScopeProfiles, Stack, ValueType,
};
use serde::ser::{Serialize, Serializer};

use super::{Fields, Json, object};

object!(ProfilesData {
    messages "resourceProfiles" resource_profiles,
    message "dictionary" dictionary,
});
object!(ExportProfilesServiceRequest {
    messages "resourceProfiles" resource_profiles,
    message "dictionary" dictionary,
});
object!(ResourceProfiles {
    message "resource" resource,
    messages "scopeProfiles" scope_profiles,
    text "schemaUrl" schema_url,
});
object!(ScopeProfiles {
    message "scope" scope,
    messages "profiles" profiles,
    text "schemaUrl" schema_url,
});
object!(ProfilesDictionary {
    messages "mappingTable" mapping_table,
    messages "locationTable" location_table,
    messages "functionTable" function_table,
    messages "linkTable" link_table,
    texts "stringTable" string_table,
    messages "attributeTable" attribute_table,
    messages "stackTable" stack_table,
});
object!(Profile {
    message "sampleType" sample_type,
    messages "samples" samples,
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "durationNano" duration_nano,
    message "periodType" period_type,
    int64 "period" period,
    hex "profileId" profile_id,
    uint32 "droppedAttributesCount" dropped_attributes_count,
    text "originalPayloadFormat" original_payload_format,
    base64 "originalPayload" original_payload,
    int32s "attributeIndices" attribute_indices,
});
object!(ValueType {
    int32 "typeStrindex" type_strindex,
    int32 "unitStrindex" unit_strindex,
});
object!(Sample {
    int32 "stackIndex" stack_index,
    int32s "attributeIndices" attribute_indices,
    int32 "linkIndex" link_index,
    decimals "values" values,
    decimals "timestampsUnixNano" timestamps_unix_nano,
});
object!(Mapping {
    uint64 "memoryStart" memory_start,
    uint64 "memoryLimit" memory_limit,
    uint64 "fileOffset" file_offset,
    int32 "filenameStrindex" filename_strindex,
    int32s "attributeIndices" attribute_indices,
});
object!(Stack {
    int32s "locationIndices" location_indices,
});
object!(Location {
    int32 "mappingIndex" mapping_index,
    uint64 "address" address,
    messages "lines" lines,
    int32s "attributeIndices" attribute_indices,
});
object!(Line {
    int32 "functionIndex" function_index,
    int64 "line" line,
    int64 "column" column,
});
object!(Function {
    int32 "nameStrindex" name_strindex,
    int32 "systemNameStrindex" system_name_strindex,
    int32 "filenameStrindex" filename_strindex,
    int64 "startLine" start_line,
});
object!(Link {
    hex "traceId" trace_id,
    hex "spanId" span_id,
});
object!(KeyValueAndUnit {
    int32 "keyStrindex" key_strindex,
    message "value" value,
    int32 "unitStrindex" unit_strindex,
});
