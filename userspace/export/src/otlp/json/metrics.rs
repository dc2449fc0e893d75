//! Messages of metrics.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    number_data_point,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Double, Fields, Json, object};

object!(ExportMetricsServiceRequest {
    messages "resourceMetrics" resource_metrics,
});
object!(ResourceMetrics {
    message "resource" resource,
    messages "scopeMetrics" scope_metrics,
    text "schemaUrl" schema_url,
});
object!(ScopeMetrics {
    message "scope" scope,
    messages "metrics" metrics,
    text "schemaUrl" schema_url,
});
object!(Gauge {
    messages "dataPoints" data_points,
});
object!(Sum {
    messages "dataPoints" data_points,
    int32 "aggregationTemporality" aggregation_temporality,
    bool "isMonotonic" is_monotonic,
});
object!(Histogram {
    messages "dataPoints" data_points,
    int32 "aggregationTemporality" aggregation_temporality,
});
object!(ExponentialHistogram {
    messages "dataPoints" data_points,
    int32 "aggregationTemporality" aggregation_temporality,
});
object!(Summary {
    messages "dataPoints" data_points,
});
object!(HistogramDataPoint {
    messages "attributes" attributes,
    uint64 "startTimeUnixNano" start_time_unix_nano,
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "count" count,
    optional_double "sum" sum,
    decimals "bucketCounts" bucket_counts,
    doubles "explicitBounds" explicit_bounds,
    messages "exemplars" exemplars,
    uint32 "flags" flags,
    optional_double "min" min,
    optional_double "max" max,
});
object!(ExponentialHistogramDataPoint {
    messages "attributes" attributes,
    uint64 "startTimeUnixNano" start_time_unix_nano,
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "count" count,
    optional_double "sum" sum,
    int32 "scale" scale,
    uint64 "zeroCount" zero_count,
    message "positive" positive,
    message "negative" negative,
    uint32 "flags" flags,
    messages "exemplars" exemplars,
    optional_double "min" min,
    optional_double "max" max,
    double "zeroThreshold" zero_threshold,
});
object!(Buckets {
    int32 "offset" offset,
    decimals "bucketCounts" bucket_counts,
});
object!(SummaryDataPoint {
    messages "attributes" attributes,
    uint64 "startTimeUnixNano" start_time_unix_nano,
    uint64 "timeUnixNano" time_unix_nano,
    uint64 "count" count,
    double "sum" sum,
    messages "quantileValues" quantile_values,
    uint32 "flags" flags,
});
object!(ValueAtQuantile {
    double "quantile" quantile,
    double "value" value,
});

impl Serialize for Json<'_, Metric> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::new(serializer)?;
        fields.text("name", &self.0.name)?;
        fields.text("description", &self.0.description)?;
        fields.text("unit", &self.0.unit)?;
        fields.messages("metadata", &self.0.metadata)?;
        match &self.0.data {
            Some(Data::Gauge(gauge)) => fields.0.serialize_entry("gauge", &Json(gauge))?,
            Some(Data::Sum(sum)) => fields.0.serialize_entry("sum", &Json(sum))?,
            Some(Data::Histogram(histogram)) => fields.0.serialize_entry("histogram", &Json(histogram))?,
            Some(Data::ExponentialHistogram(histogram)) => {
                fields.0.serialize_entry("exponentialHistogram", &Json(histogram))?;
            }
            Some(Data::Summary(summary)) => fields.0.serialize_entry("summary", &Json(summary))?,
            None => {}
        }
        fields.end()
    }
}

impl Serialize for Json<'_, NumberDataPoint> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::new(serializer)?;
        fields.messages("attributes", &self.0.attributes)?;
        fields.uint64("startTimeUnixNano", self.0.start_time_unix_nano)?;
        fields.uint64("timeUnixNano", self.0.time_unix_nano)?;
        // One of several, so it is written even if it is a default.
        match self.0.value {
            Some(number_data_point::Value::AsDouble(number)) => {
                fields.0.serialize_entry("asDouble", &Double(number))?;
            }
            Some(number_data_point::Value::AsInt(number)) => {
                fields.0.serialize_entry("asInt", &number.to_string())?;
            }
            None => {}
        }
        fields.messages("exemplars", &self.0.exemplars)?;
        fields.uint32("flags", self.0.flags)?;
        fields.end()
    }
}

impl Serialize for Json<'_, Exemplar> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::new(serializer)?;
        fields.messages("filteredAttributes", &self.0.filtered_attributes)?;
        fields.uint64("timeUnixNano", self.0.time_unix_nano)?;
        match self.0.value {
            Some(exemplar::Value::AsDouble(number)) => {
                fields.0.serialize_entry("asDouble", &Double(number))?;
            }
            Some(exemplar::Value::AsInt(number)) => fields.0.serialize_entry("asInt", &number.to_string())?,
            None => {}
        }
        fields.hex("spanId", &self.0.span_id)?;
        fields.hex("traceId", &self.0.trace_id)?;
        fields.end()
    }
}
