//! What the sender must know of one OpenTelemetry signal.
//!
//! A further signal is one more [`Signal`] constant and one more [`SignalRequest`] implementation;
//! transports, retries, settings and accounting are the same for all of them.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use serde::ser::Error;

use descry_spool::Signal;

use crate::otlp::TraceRequest;
use crate::otlp::json::Json;

/// What a receiver says beside "accepted": the `partial_success` field of an export response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Items of the request that the receiver did not keep.
    pub rejected: u64,
    /// The receiver's explanation, or a warning when nothing was rejected. Foreign text.
    pub message: String,
}

/// An OTLP export request that the sender can send.
pub trait SignalRequest {
    /// The signal that it belongs to.
    const SIGNAL: Signal;
    /// The response message of the same service.
    type Response: Message + Default + 'static;
    /// The items in it, in the unit in which the receiver counts rejected ones
    /// (profiles, spans, data points, log records).
    fn items(&self) -> u64;
    /// The request in protobuf's encoding.
    fn into_protobuf(self) -> Bytes;
    /// The request in OTLP's JSON encoding.
    ///
    /// # Errors
    /// If a value has no JSON form.
    fn to_json(&self) -> serde_json::Result<Vec<u8>>;
    /// The `partial_success` field of the response, if it was set.
    fn partial_success(response: Self::Response) -> Option<PartialSuccess>;
}

/// The parts of [`SignalRequest`] that name a signal's messages.
macro_rules! signal {
    ($signal:expr, $response:ty, $rejected:ident) => {
        const SIGNAL: Signal = $signal;
        type Response = $response;

        fn partial_success(response: $response) -> Option<PartialSuccess> {
            response.partial_success.map(|partial| PartialSuccess {
                rejected: u64::try_from(partial.$rejected).unwrap_or(0),
                message: partial.error_message,
            })
        }
    };
}

/// The parts of [`SignalRequest`] of a request that is a message.
macro_rules! message {
    () => {
        fn into_protobuf(self) -> Bytes {
            self.encode_to_vec().into()
        }

        fn to_json(&self) -> serde_json::Result<Vec<u8>> {
            serde_json::to_vec(&Json(self))
        }
    };
}

impl SignalRequest for ExportProfilesServiceRequest {
    signal!(Signal::PROFILES, ExportProfilesServiceResponse, rejected_profiles);
    message!();

    fn items(&self) -> u64 {
        let scopes = self.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
        scopes.map(|scope| scope.profiles.len() as u64).sum()
    }
}

/// Spans are bytes already: JSON is made from what those say.
impl SignalRequest for TraceRequest {
    signal!(Signal::TRACES, ExportTraceServiceResponse, rejected_spans);

    fn items(&self) -> u64 {
        self.spans()
    }

    fn into_protobuf(self) -> Bytes {
        self.into_bytes()
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let message = self.decode().map_err(serde_json::Error::custom)?;
        serde_json::to_vec(&Json(&message))
    }
}

/// Spans that were encoded before and are read again.
impl SignalRequest for ExportTraceServiceRequest {
    signal!(Signal::TRACES, ExportTraceServiceResponse, rejected_spans);
    message!();

    fn items(&self) -> u64 {
        let scopes = self.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len() as u64).sum()
    }
}

impl SignalRequest for ExportMetricsServiceRequest {
    signal!(Signal::METRICS, ExportMetricsServiceResponse, rejected_data_points);
    message!();

    fn items(&self) -> u64 {
        let scopes = self.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics).map(data_points).sum()
    }
}

impl SignalRequest for ExportLogsServiceRequest {
    signal!(Signal::LOGS, ExportLogsServiceResponse, rejected_log_records);
    message!();

    fn items(&self) -> u64 {
        let scopes = self.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        scopes.map(|scope| scope.log_records.len() as u64).sum()
    }
}

fn data_points(metric: &Metric) -> u64 {
    let points = match &metric.data {
        None => 0,
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
    };
    points as u64
}
