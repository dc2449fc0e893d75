//! Sends OTLP requests to a receiver.
//!
//! You give [`Sender::send`] export requests, each already small enough for a receiver (4 MiB before
//! compression); you get an [`Outcome`] that accounts for every item. It sends by gRPC, HTTP/protobuf
//! or HTTP/JSON as [`Settings`] say, one request after the other, retries what the OTLP specification
//! lets it retry, and spends on each request no more than the configured timeout.
//! It never keeps a request back for later, follows no redirect, and logs no header. [`Background`] sends on a thread of
//! its own while something is measured.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

mod attempt;
mod background;
mod error;
mod grpc;
mod headers;
mod http;
mod metrics;
mod outcome;
mod retry;
mod settings;
mod signal;
mod tls;
mod transport;

pub use background::Background;
pub use descry_spool::Signal;
pub use error::{DropReason, SendError, SettingsError};
pub use headers::Headers;
pub use metrics::MetricSettings;
pub use outcome::Outcome;
pub use settings::{Compression, Endpoint, NamedFile, Protocol, Settings, TlsFiles};
pub use signal::{PartialSuccess, SignalRequest};

use attempt::{Accepted, Failure, Retry, foreign_text};
use transport::HttpClient;

/// A connection to one receiver for one signal. Connects when it first sends and keeps the
/// connection while its runtime lives.
#[derive(Debug)]
pub struct Sender<R> {
    settings: Settings,
    client: HttpClient,
    requests: PhantomData<fn(R)>,
}

/// A request as it will be sent.
struct Payload {
    /// For HTTP compressed; for gRPC not yet.
    body: Bytes,
    /// Before compression.
    encoded_bytes: u64,
}

/// How a request ended.
struct Delivery {
    result: Result<Accepted, Failure>,
    attempts: u32,
}

impl<R: SignalRequest> Sender<R> {
    /// Reads the certificates, where the endpoint is https, and prepares the connection.
    ///
    /// # Errors
    /// [`SettingsError`] when a certificate or key file cannot be used, or the settings are those
    /// of another signal.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        if settings.signal != R::SIGNAL {
            return Err(SettingsError::WrongSignal { given: settings.signal.name, wanted: R::SIGNAL.name });
        }
        let client = transport::client(&settings)?;
        Ok(Self { settings, client, requests: PhantomData })
    }

    /// Sends the requests in their order and accounts for all of them. Must run in a tokio runtime
    /// with I/O and time.
    ///
    /// After a failure that the next request would meet too (see [`DropReason::concerns_endpoint`])
    /// the rest is dropped at once under the same reason, so that a dead endpoint costs one timeout.
    pub async fn send(&self, requests: impl IntoIterator<Item = R>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut gone: Option<DropReason> = None;
        for request in requests {
            let items = request.items();
            if let Some(reason) = gone {
                outcome.drop_items(reason, items);
                continue;
            }
            let (bytes, delivery) = match self.payload(request) {
                Ok(payload) => (payload.encoded_bytes, self.deliver(&payload).await),
                Err(failure) => (0, Delivery { result: Err(failure), attempts: 0 }),
            };
            outcome.retries += u64::from(delivery.attempts.saturating_sub(1));
            match delivery.result {
                Ok(accepted) => self.note_accepted(&mut outcome, &accepted, items, bytes),
                Err(failure) => {
                    outcome.drop_items(failure.reason, items);
                    gone = failure.reason.concerns_endpoint().then_some(failure.reason);
                    outcome.first_error.get_or_insert_with(|| SendError {
                        signal: R::SIGNAL.name,
                        endpoint: self.settings.endpoint.to_string(),
                        reason: failure.reason,
                        detail: failure.detail,
                        attempts: delivery.attempts,
                    });
                }
            }
        }
        outcome
    }

    /// As [`Sender::send`], for callers without a runtime; it makes one for the call. Panics inside of a runtime,
    /// as tokio does.
    ///
    /// # Errors
    /// If the system refuses what a runtime needs (an epoll instance).
    pub fn send_blocking(&self, requests: impl IntoIterator<Item = R>) -> std::io::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(runtime.block_on(self.send(requests)))
    }

    /// The settings that it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    fn note_accepted(&self, outcome: &mut Outcome, accepted: &Accepted, items: u64, bytes: u64) {
        outcome.sent_requests += 1;
        outcome.sent_items += items;
        outcome.bytes += bytes;
        let (signal, endpoint) = (R::SIGNAL.name, &self.settings.endpoint);
        if !accepted.confirmed {
            outcome.unconfirmed_requests += 1;
            tracing::warn!(signal, %endpoint, "the server took the data but did not answer as an OTLP receiver does");
        }
        if let Some(PartialSuccess { rejected, message }) = &accepted.partial {
            // A receiver cannot reject more than it was given.
            outcome.rejected_items += (*rejected).min(items);
            if *rejected > 0 || !message.is_empty() {
                let reason = foreign_text(message);
                tracing::warn!(signal, %endpoint, rejected, reason, "the receiver did not accept everything");
            }
        }
    }

    fn payload(&self, request: R) -> Result<Payload, Failure> {
        let failed = |detail: String| Failure::new(DropReason::Encoding, Retry::Never, detail);
        let encoded = match self.settings.protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => request.into_protobuf(),
            Protocol::HttpJson => {
                let json = request.to_json();
                Bytes::from(json.map_err(|error| failed(format!("it has no JSON form: {error}")))?)
            }
        };
        let encoded_bytes = encoded.len() as u64;
        let body = match self.settings.protocol {
            Protocol::Grpc => encoded,
            Protocol::HttpProtobuf | Protocol::HttpJson => http::compress(encoded, self.settings.compression)
                .map_err(|error| failed(format!("it cannot be compressed: {error}")))?,
        };
        Ok(Payload { body, encoded_bytes })
    }

    /// Tries until the receiver has it, refuses it, or the time is over.
    async fn deliver(&self, payload: &Payload) -> Delivery {
        let deadline = Instant::now() + self.settings.timeout;
        let mut delays = retry::backoff();
        let mut last_failure: Option<Failure> = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Ok(result) = timeout_at(deadline, self.attempt(payload, deadline)).await else {
                let failure = last_failure.unwrap_or_else(|| {
                    let detail = format!("no answer within {:?}", self.settings.timeout);
                    Failure::new(DropReason::Timeout, Retry::Never, detail)
                });
                return Delivery { result: Err(failure), attempts };
            };
            let failure = match result {
                Ok(accepted) => return Delivery { result: Ok(accepted), attempts },
                Err(failure) => failure,
            };
            let delay = match failure.retry {
                Retry::Never => return Delivery { result: Err(failure), attempts },
                Retry::Backoff => delays.next().unwrap_or(retry::SHORTEST_DELAY),
                Retry::After(asked) => asked.max(retry::SHORTEST_DELAY),
            };
            if delay >= deadline.saturating_duration_since(Instant::now()) {
                return Delivery { result: Err(self.out_of_time(failure, delay)), attempts };
            }
            tracing::debug!(detail = failure.detail, ?delay, "sending failed, will be tried again");
            last_failure = Some(failure);
            sleep(delay).await;
        }
    }

    fn out_of_time(&self, failure: Failure, delay: Duration) -> Failure {
        let timeout = self.settings.timeout;
        let detail = match failure.retry {
            Retry::After(_) => {
                format!("{}; it asked to come again in {delay:?}, the timeout is {timeout:?}", failure.detail)
            }
            _ => format!("{}; tried for {timeout:?}", failure.detail),
        };
        Failure { detail, ..failure }
    }

    async fn attempt(&self, payload: &Payload, deadline: Instant) -> Result<Accepted, Failure> {
        let body = payload.body.clone();
        match self.settings.protocol {
            Protocol::Grpc => {
                let remaining = deadline.saturating_duration_since(Instant::now());
                grpc::attempt::<R>(&self.client, &self.settings, body, remaining).await
            }
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                http::attempt::<R>(&self.client, &self.settings, body).await
            }
        }
    }
}
