//! The one connection that all transports share: hyper over TCP or rustls.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::body::Body;

use super::error::SettingsError;
use super::settings::{Protocol, Settings};
use super::tls;

/// The largest response that is read; a true one has some hundred bytes.
pub(super) const LARGEST_RESPONSE_BYTES: usize = 64 << 10;

/// Names the exporter, as the OTLP exporter specification asks ("User Agent").
pub(super) const USER_AGENT: &str = concat!("descry/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust");

/// A client that keeps its connection between requests.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Builds the client; connects when the first request is sent.
pub(super) fn client(settings: &Settings) -> Result<HttpClient, SettingsError> {
    let tls = if settings.endpoint.is_https() {
        tls::client_config(&settings.tls)?
    } else {
        // Never used: without https in the URL no handshake is made, and no file is read for it.
        tls::without_roots()?
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(settings.timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let grpc = settings.protocol == Protocol::Grpc;
    let connector = if grpc {
        connector.enable_http2().wrap_connector(tcp)
    } else {
        connector.enable_all_versions().wrap_connector(tcp)
    };
    let client = Client::builder(TokioExecutor::new())
        .http2_only(grpc)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(1)
        .build(connector);
    Ok(client)
}
