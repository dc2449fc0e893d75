//! The HTTP client of descry's own telemetry.
//!
//! OpenTelemetry's processors export from threads of their own, without a runtime; hyper needs one.
//! So the requests run on a runtime in one more thread. hyper and rustls are the ones that the
//! exporters of profiles use, so that the binary has one HTTP stack.

use std::time::Duration;

use async_trait::async_trait;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests on a thread with a runtime, which ends with the [`RuntimeThread`].
#[derive(Clone, Debug)]
pub(crate) struct RuntimeClient {
    runtime: Handle,
    client: HyperClient<HttpsConnector<HttpConnector>>,
}

/// Ends the thread when dropped, without waiting for requests under way.
#[derive(Debug)]
pub(crate) struct RuntimeThread {
    /// Held, never sent on: the thread waits for its end.
    _end: oneshot::Sender<()>,
}

/// Starts the thread.
pub(crate) fn start() -> std::io::Result<(RuntimeClient, RuntimeThread)> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name("descry-own-otlp".to_owned()).spawn(move || {
        // An error is the sender's end, and is what is waited for.
        let _ended = runtime.block_on(ended);
        runtime.shutdown_background();
    })?;
    let provider = rustls::crypto::ring::default_provider;
    let tls = HttpsConnectorBuilder::new();
    let tls = match tls.with_provider_and_native_roots(provider()) {
        Ok(tls) => tls,
        // An image without a CA bundle.
        Err(_) => HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider())
            .map_err(std::io::Error::other)?,
    };
    let client = HyperClient::new(tls.https_or_http().enable_http1().build(), TIMEOUT, None);
    Ok((RuntimeClient { runtime: handle, client }, RuntimeThread { _end: end }))
}

#[async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
