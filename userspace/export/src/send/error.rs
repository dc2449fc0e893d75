//! Why settings were refused, and why data was not delivered.

use std::fmt;
use std::path::PathBuf;

/// Settings that cannot be used.
///
/// No message holds a header's value: those are credentials.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable or option has a value that means nothing.
    #[error("{variable} is invalid: {reason}; {remedy}")]
    Invalid {
        /// The environment variable or command line option.
        variable: String,
        /// What is wrong with its value.
        reason: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A file that a variable names cannot be read.
    #[error("{variable} names {path}, which cannot be read: {source}; give a readable PEM file", path = path.display())]
    Unreadable {
        /// The environment variable.
        variable: String,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A file that a variable names does not hold what it should.
    #[error("{variable} names {path}, which is unusable: {reason}; give a PEM file with {expected}", path = path.display())]
    Unusable {
        /// The environment variable.
        variable: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
        /// What the file should hold.
        expected: &'static str,
    },
    /// The settings were read for another signal than is to be sent.
    #[error("these settings are for {given}, and {wanted} are to be sent; read settings for {wanted}")]
    WrongSignal {
        /// The signal of the settings.
        given: &'static str,
        /// The signal of the requests.
        wanted: &'static str,
    },
    /// The cryptography library refused the configuration.
    #[error("TLS cannot be set up: {source}; check the certificate and key files")]
    Tls {
        /// The library's reason.
        #[source]
        source: rustls::Error,
    },
}

/// Why items were not delivered; the names are stable and serve as counter labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// No connection: unknown host, refused, reset.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// Credentials missing or not sufficient (HTTP 401, 403; gRPC UNAUTHENTICATED, PERMISSION_DENIED).
    Unauthorized,
    /// Something answers there, but not an OTLP receiver for this signal by this protocol.
    WrongEndpoint,
    /// The receiver refused this data and would refuse it again.
    Refused,
    /// The receiver asked to come again until the time was over.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The answer was too large or no answer of the protocol.
    BadResponse,
    /// The message has no JSON form.
    Encoding,
    /// It came faster than the receiver took it.
    QueueFull,
}

impl DropReason {
    /// The counter label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Unauthorized => "unauthorized",
            Self::WrongEndpoint => "wrong_endpoint",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::BadResponse => "bad_response",
            Self::Encoding => "encoding",
            Self::QueueFull => "queue_full",
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => "check that the receiver runs and that host and port are right",
            Self::Tls => {
                "check the scheme (http or https), OTEL_EXPORTER_OTLP_CERTIFICATE for a private CA, and \
                 OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE with _CLIENT_KEY where the receiver wants one"
            }
            Self::Unauthorized => "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
            Self::WrongEndpoint => {
                "check the URL and OTEL_EXPORTER_OTLP_PROTOCOL (receivers mostly take grpc on port 4317, \
                 http/protobuf and http/json on 4318), and that the receiver accepts this signal \
                 (the OpenTelemetry Collector takes profiles with --feature-gates=service.profilesSupport)"
            }
            Self::Refused => "see the receiver's log",
            Self::Unavailable => "look at the receiver's load, or raise OTEL_EXPORTER_OTLP_TIMEOUT",
            Self::Timeout => "raise OTEL_EXPORTER_OTLP_TIMEOUT, or look at the receiver's load",
            Self::BadResponse => "check that the URL is that of an OTLP receiver",
            Self::Encoding => "send by http/protobuf or grpc",
            Self::QueueFull => "measure less, or look at the receiver's speed",
        }
    }

    /// Whether the next request would meet the same fate, so that it is not worth its timeout.
    #[must_use]
    pub const fn concerns_endpoint(self) -> bool {
        match self {
            Self::Unreachable | Self::Tls | Self::Unauthorized | Self::WrongEndpoint => true,
            Self::Unavailable | Self::Timeout => true,
            Self::Refused | Self::BadResponse | Self::Encoding | Self::QueueFull => false,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A request that was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot send {signal} to {endpoint}: {detail} (attempts: {attempts}); {remedy}", remedy = reason.remedy())]
pub struct SendError {
    /// The signal's name.
    pub signal: &'static str,
    /// Where to, without query and credentials.
    pub endpoint: String,
    /// The kind of failure.
    pub reason: DropReason,
    /// What happened in the last attempt that came to an end.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
}
