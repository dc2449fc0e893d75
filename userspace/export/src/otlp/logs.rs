//! Log records as export requests (`opentelemetry.proto.logs.v1`).
//!
//! Give a [`LogWriter`] records, each with the Resource of its process; get requests under a size. Records of one process
//! that come one after the other share a `ResourceLogs`. It does no I/O and reads no clock.

use std::borrow::Cow;

use descry_assemble::span::Attribute;
use descry_decode::ids::UnixNanos;
use descry_process::Attributes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{self as message, ResourceLogs, ScopeLogs, SeverityNumber};
use prost::Message;

use super::OtlpOptions;
use super::attributes::{key_values, resource, scope};

/// Most bytes of the keys and lengths around a record and its Resource: those of four messages.
const AROUND: usize = 4 * (1 + 5);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Perhaps not.
    Warn,
    /// Something failed.
    Error,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// When.
    pub time: UnixNanos,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is: `process.exit`.
    pub event: &'static str,
    /// A sentence for people.
    pub body: Cow<'static, str>,
    /// More about it; no name twice.
    pub attributes: Vec<Attribute>,
}

/// Collects records into requests of at most so many bytes.
#[derive(Debug)]
pub struct LogWriter {
    options: OtlpOptions,
    max_bytes: usize,
    resources: Vec<(Attributes, ResourceLogs)>,
    /// What the request will take at most.
    len: usize,
    records: u64,
    oversized_records: u64,
}

impl LogWriter {
    /// For requests of at most `max_bytes` (protobuf, before compression).
    pub fn new(options: &OtlpOptions, max_bytes: usize) -> Self {
        let options = options.clone();
        Self { options, max_bytes, resources: Vec::new(), len: 0, records: 0, oversized_records: 0 }
    }

    /// Adds a record, which was seen when it happened. Where it does not fit any more, the request that is full is
    /// given. One that is larger than a whole request is left out and counted.
    pub fn push(&mut self, of: &Attributes, record: &LogRecord) -> Option<ExportLogsServiceRequest> {
        let encoded = encode(record);
        let own = encoded.encoded_len() + AROUND;
        let is_last = self.resources.last().is_some_and(|(known, _)| known == of);
        let empty = ResourceLogs {
            resource: Some(resource(of)),
            scope_logs: vec![ScopeLogs { scope: Some(scope(&self.options)), ..ScopeLogs::default() }],
            schema_url: String::new(),
        };
        let alone = own + empty.encoded_len();
        if alone > self.max_bytes {
            self.oversized_records += 1;
            return None;
        }
        let more = if is_last { own } else { alone };
        let full = if self.len + more > self.max_bytes { self.finish() } else { None };
        if !is_last || full.is_some() {
            self.resources.push((of.clone(), empty));
            self.len += alone;
        } else {
            self.len += own;
        }
        let scopes = self.resources.last_mut().map(|(_, logs)| logs.scope_logs.as_mut_slice());
        if let Some([scope, ..]) = scopes {
            scope.log_records.push(encoded);
            self.records += 1;
        }
        full
    }

    /// How many records were left out until now, because one alone with its Resource is over the limit.
    pub fn oversized_records(&self) -> u64 {
        self.oversized_records
    }

    /// What was added since the last request; none: nothing was.
    pub fn finish(&mut self) -> Option<ExportLogsServiceRequest> {
        if self.records == 0 {
            return None;
        }
        (self.len, self.records) = (0, 0);
        Some(ExportLogsServiceRequest {
            resource_logs: self.resources.drain(..).map(|(_, logs)| logs).collect(),
        })
    }
}

fn encode(record: &LogRecord) -> message::LogRecord {
    let (severity, text) = match record.severity {
        Severity::Info => (SeverityNumber::Info, "INFO"),
        Severity::Warn => (SeverityNumber::Warn, "WARN"),
        Severity::Error => (SeverityNumber::Error, "ERROR"),
    };
    message::LogRecord {
        time_unix_nano: record.time.0,
        observed_time_unix_nano: record.time.0,
        severity_number: severity as i32,
        severity_text: text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.body.clone().into_owned())) }),
        attributes: key_values(&record.attributes),
        event_name: record.event.to_owned(),
        ..message::LogRecord::default()
    }
}
