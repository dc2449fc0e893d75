//! How and where to send, from the `OTEL_EXPORTER_OTLP_*` variables.
//!
//! You give a signal and a look-up of environment variables; you get [`Settings`] or the name of the
//! variable that makes no sense. Nothing here opens a file or a socket.
//! The rules are those of the OpenTelemetry specification, "OpenTelemetry Protocol Exporter";
//! where it leaves a choice, the item says which was made.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::error::SettingsError;
use super::headers::Headers;
use descry_spool::Signal;

/// The specification's default for `OTEL_EXPORTER_OTLP_TIMEOUT`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer timeout is a mistake of units.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
const GRPC_PORT: u16 = 4317;
const ENDPOINT_REMEDY: &str = "write it as http://HOST:PORT or https://HOST:PORT";

/// The transports of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`: protobuf over gRPC.
    Grpc,
    /// `http/protobuf`: protobuf over HTTP.
    HttpProtobuf,
    /// `http/json`: JSON over HTTP.
    HttpJson,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// `none`, the default.
    #[default]
    None,
    /// `gzip`, which every OTLP receiver takes.
    Gzip,
    /// `zstd`, which is faster and smaller, and which the OpenTelemetry Collector takes.
    Zstd,
}

/// A checked URL: scheme http or https, a host, no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// PEM files that TLS needs, each with the variable that named it. Used with https only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust instead of the system's, as in OpenTelemetry's other exporters.
    pub certificate: Option<NamedFile>,
    /// The client's certificate chain and its private key, for mutual TLS.
    pub client: Option<(NamedFile, NamedFile)>,
}

/// A file and the variable that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The environment variable.
    pub variable: String,
    /// The file.
    pub path: PathBuf,
}

/// Everything the sender must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The signal that will be sent.
    pub signal: Signal,
    /// The URL that requests go to; for gRPC the method's path is appended.
    pub endpoint: Endpoint,
    /// The transport.
    pub protocol: Protocol,
    /// The compression of requests.
    pub compression: Compression,
    /// Sent with every request.
    pub headers: Headers,
    /// The longest time for one request with all its retries.
    pub timeout: Duration,
    /// Certificates and key.
    pub tls: TlsFiles,
}

impl Settings {
    /// Reads the variables, those of the signal before the general ones. `env` gives a variable's value;
    /// an empty value counts as unset.
    ///
    /// Without `OTEL_EXPORTER_OTLP_PROTOCOL` the protocol is `http/protobuf`, or `grpc` where the URL
    /// has port 4317, which is gRPC's by convention.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] names the variable with a value that means nothing.
    pub fn from_env(signal: Signal, env: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        Variables { signal, env: &env }.settings(None)
    }

    /// As [`Settings::from_env`], with a base URL that takes the place of the endpoint variables:
    /// for HTTP the signal's path is appended to it, as to `OTEL_EXPORTER_OTLP_ENDPOINT`.
    /// `option` names where the URL came from (`--otlp-endpoint`).
    ///
    /// # Errors
    /// As [`Settings::from_env`]; an unusable `url` is an error that names `option`.
    pub fn with_endpoint(
        signal: Signal,
        option: &str,
        url: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let base = Some((option.to_owned(), url.trim().to_owned(), UrlKind::Base));
        Variables { signal, env: &env }.settings(base)
    }

    /// Whether the environment names an endpoint for the signal, so that sending was asked for
    /// without an option.
    pub fn endpoint_is_set(signal: Signal, env: impl Fn(&str) -> Option<String>) -> bool {
        Variables { signal, env: &env }.endpoint().is_some()
    }
}

/// Whether the signal's path is to be appended for HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UrlKind {
    Base,
    AsIs,
}

struct Variables<'a, F> {
    signal: Signal,
    env: &'a F,
}

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    /// The variable's name and trimmed value: the signal's own, else the general one.
    fn find(&self, option: &str) -> Option<(String, String)> {
        self.find_specific(option).or_else(|| self.find_general(option))
    }

    fn find_specific(&self, option: &str) -> Option<(String, String)> {
        self.read(format!("OTEL_EXPORTER_OTLP_{}_{option}", self.signal.variable_infix))
    }

    fn find_general(&self, option: &str) -> Option<(String, String)> {
        self.read(format!("OTEL_EXPORTER_OTLP_{option}"))
    }

    fn read(&self, variable: String) -> Option<(String, String)> {
        let value = (self.env)(&variable)?.trim().to_owned();
        (!value.is_empty()).then_some((variable, value))
    }

    fn endpoint(&self) -> Option<(String, String, UrlKind)> {
        let specific = self.find_specific("ENDPOINT").map(|(name, url)| (name, url, UrlKind::AsIs));
        specific.or_else(|| self.find_general("ENDPOINT").map(|(name, url)| (name, url, UrlKind::Base)))
    }

    fn settings(&self, given: Option<(String, String, UrlKind)>) -> Result<Settings, SettingsError> {
        let endpoint = given.or_else(|| self.endpoint());
        let explicit = self.find("PROTOCOL").map(|found| parse_protocol(&found)).transpose()?;
        let port = endpoint.as_ref().and_then(|(_, url, _)| port_of(url));
        let protocol = match (explicit, port) {
            (Some(protocol), _) => protocol,
            (None, Some(GRPC_PORT)) => Protocol::Grpc,
            (None, _) => Protocol::HttpProtobuf,
        };
        let (variable, url, kind) = endpoint.unwrap_or_else(|| {
            let port = if protocol == Protocol::Grpc { GRPC_PORT } else { 4318 };
            ("the default endpoint".to_owned(), format!("http://localhost:{port}"), UrlKind::Base)
        });
        let endpoint = self.parse_endpoint(&variable, &url, kind, protocol)?;
        Ok(Settings {
            signal: self.signal,
            endpoint,
            protocol,
            compression: self
                .find("COMPRESSION")
                .map_or(Ok(Compression::None), |found| parse_compression(&found))?,
            headers: self
                .find("HEADERS")
                .map_or_else(|| Ok(Headers::default()), |(name, list)| Headers::parse(&name, &list))?,
            timeout: self.find("TIMEOUT").map_or(Ok(DEFAULT_TIMEOUT), |found| parse_timeout(&found))?,
            tls: self.tls_files()?,
        })
    }

    fn parse_endpoint(
        &self,
        variable: &str,
        url: &str,
        kind: UrlKind,
        protocol: Protocol,
    ) -> Result<Endpoint, SettingsError> {
        let error = |reason: &str| invalid(variable, reason.to_owned(), ENDPOINT_REMEDY);
        // HOST:PORT without a scheme is allowed for gRPC, where INSECURE then decides.
        let url = match (url.contains("://"), protocol) {
            (true, _) => url.to_owned(),
            (false, Protocol::Grpc) => {
                let scheme = if self.insecure()? { "http" } else { "https" };
                format!("{scheme}://{url}")
            }
            (false, _) => return Err(error("the URL has no scheme")),
        };
        let uri: Uri = url.parse().map_err(|reason| error(&format!("it is no URL ({reason})")))?;
        let mut parts = uri.into_parts();
        match &parts.scheme {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
            _ => return Err(error("the scheme is neither http nor https")),
        }
        let authority = parts.authority.as_ref().map_or("", Authority::as_str);
        if authority.is_empty() || authority.starts_with(':') {
            return Err(error("the URL has no host"));
        }
        if authority.contains('@') {
            let remedy = "put credentials into OTEL_EXPORTER_OTLP_HEADERS";
            return Err(invalid(variable, "the URL holds credentials".to_owned(), remedy));
        }
        let path = parts.path_and_query.as_ref().map_or("/", |path| path.path());
        let path = match (protocol, kind) {
            // The method's path is put behind it.
            (Protocol::Grpc, _) => Some(format!("/{}", path.trim_matches('/'))),
            (_, UrlKind::Base) => Some(format!("{}{}", path.trim_end_matches('/'), self.signal.http_path)),
            (_, UrlKind::AsIs) => None,
        };
        if let Some(path) = path {
            let path = path.parse().map_err(|reason| error(&format!("its path is unusable ({reason})")))?;
            parts.path_and_query = Some(path);
        }
        let uri = Uri::from_parts(parts).map_err(|reason| error(&format!("it is no URL ({reason})")))?;
        Ok(Endpoint(uri))
    }

    fn insecure(&self) -> Result<bool, SettingsError> {
        let Some((variable, value)) = self.find("INSECURE") else { return Ok(false) };
        match value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(invalid(&variable, format!("{value:?} is no boolean"), "write true or false")),
        }
    }

    fn tls_files(&self) -> Result<TlsFiles, SettingsError> {
        let file = |option| {
            self.find(option).map(|(variable, path)| NamedFile { variable, path: PathBuf::from(path) })
        };
        let lonely = |given: &NamedFile, remedy| {
            invalid(&given.variable, "certificate and key belong together".to_owned(), remedy)
        };
        let client = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(certificate), None) => {
                return Err(lonely(&certificate, "set OTEL_EXPORTER_OTLP_CLIENT_KEY too"));
            }
            (None, Some(key)) => return Err(lonely(&key, "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too")),
            (None, None) => None,
        };
        Ok(TlsFiles { certificate: file("CERTIFICATE"), client })
    }
}

fn invalid(variable: &str, reason: String, remedy: &'static str) -> SettingsError {
    SettingsError::Invalid { variable: variable.to_owned(), reason, remedy }
}

fn port_of(url: &str) -> Option<u16> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next()?.parse::<Authority>().ok()?.port_u16()
}

fn parse_protocol((variable, value): &(String, String)) -> Result<Protocol, SettingsError> {
    match value.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "http/json" => Ok(Protocol::HttpJson),
        _ => {
            let reason = format!("there is no protocol {value:?}");
            Err(invalid(variable, reason, "write grpc, http/protobuf or http/json"))
        }
    }
}

fn parse_compression((variable, value): &(String, String)) -> Result<Compression, SettingsError> {
    match value.as_str() {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => {
            let reason = format!("there is no compression {value:?}");
            Err(invalid(variable, reason, "write none, gzip or zstd"))
        }
    }
}

fn parse_timeout((variable, value): &(String, String)) -> Result<Duration, SettingsError> {
    let timeout = value.parse().ok().map(Duration::from_millis);
    timeout.filter(|timeout| !timeout.is_zero() && *timeout <= LONGEST_TIMEOUT).ok_or_else(|| {
        let remedy = "write whole milliseconds, from 1 to 86400000 (a day), without a unit";
        invalid(variable, format!("{value:?} is no usable time"), remedy)
    })
}

impl Endpoint {
    /// The URL to send to.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }
}

/// The URL without its query, where some receivers take keys.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https() { "https" } else { "http" };
        let authority = self.0.authority().map_or("", Authority::as_str);
        write!(formatter, "{scheme}://{authority}{}", self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Endpoint({self})")
    }
}
