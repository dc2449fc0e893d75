//! How a request leaves.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;
use serde::ser::Error;

use super::files::Files;
use super::record::Request;
use crate::send::{DropReason, PartialSuccess, Sender, Settings, SettingsError, Signal, SignalRequest};

/// What a queue sends to.
#[derive(Debug)]
pub enum Delivery {
    /// A receiver.
    Otlp(Box<Otlp>),
    /// Files in a directory.
    Files(Files),
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is there.
    Sent { rejected: u64, retries: u64 },
    /// It will not be taken at any time.
    Refused { reason: &'static str, detail: String, retries: u64 },
    /// It may be taken later.
    Later { detail: String, retries: u64 },
}

/// Connections to a receiver, made anew when one of the files that they were made from changes.
pub struct Otlp {
    senders: Senders,
    make: Box<Make>,
    files: Vec<(PathBuf, Stamp)>,
}

/// Makes the settings of a signal.
type Make = dyn Fn(Signal) -> Result<Settings, SettingsError> + Send;

/// One for each signal that can wait.
#[derive(Debug)]
struct Senders {
    profiles: Sender<Encoded<ExportProfilesServiceRequest>>,
    metrics: Sender<Encoded<ExportMetricsServiceRequest>>,
}

/// A request of that kind which is encoded already.
#[derive(Debug)]
struct Encoded<R> {
    body: Bytes,
    items: u64,
    kind: PhantomData<fn(R)>,
}

/// What tells one state of a file from another; none: it is not there.
type Stamp = Option<(SystemTime, u64)>;

impl Delivery {
    pub(super) async fn send(&mut self, request: &Request) -> Verdict {
        match self {
            Self::Otlp(otlp) => otlp.send(request).await,
            Self::Files(files) => files.write(request),
        }
    }
}

impl Senders {
    fn new(make: &Make) -> Result<Self, SettingsError> {
        Ok(Self {
            profiles: Sender::new(make(Signal::PROFILES)?)?,
            metrics: Sender::new(make(Signal::METRICS)?)?,
        })
    }
}

impl Otlp {
    /// Settings by `make`, which reads `files` (headers, certificates, keys).
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(
        make: impl Fn(Signal) -> Result<Settings, SettingsError> + Send + 'static,
        files: Vec<PathBuf>,
    ) -> Result<Self, SettingsError> {
        let files = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        Ok(Self { senders: Senders::new(&make)?, make: Box::new(make), files })
    }

    async fn send(&mut self, request: &Request) -> Verdict {
        self.refresh();
        if request.signal == Signal::METRICS {
            deliver(&self.senders.metrics, request).await
        } else {
            deliver(&self.senders.profiles, request).await
        }
    }

    /// Takes over files that have changed. Where that fails, what was before them stays.
    fn refresh(&mut self) {
        let mut is_changed = false;
        for (path, known) in &mut self.files {
            let now = stamp(path);
            is_changed |= now != *known;
            *known = now;
        }
        if !is_changed {
            return;
        }
        match Senders::new(&*self.make) {
            Ok(senders) => self.senders = senders,
            Err(error) => tracing::warn!(%error, "a file of a destination has changed and is not taken over"),
        }
    }
}

async fn deliver<R>(sender: &Sender<Encoded<R>>, request: &Request) -> Verdict
where
    R: SignalRequest + Message + Default,
{
    let encoded = Encoded { body: request.body.clone(), items: request.items, kind: PhantomData };
    let outcome = sender.send([encoded]).await;
    let retries = outcome.retries;
    let Some(error) = outcome.first_error else {
        return Verdict::Sent { rejected: outcome.rejected_items, retries };
    };
    let detail = error.to_string();
    match error.reason {
        DropReason::Unreachable | DropReason::Tls | DropReason::Unavailable | DropReason::Timeout => {
            Verdict::Later { detail, retries }
        }
        // What the OTLP specification does not let anybody send again ("Failures").
        reason => Verdict::Refused { reason: reason.as_str(), detail, retries },
    }
}

impl<R: SignalRequest + Message + Default> SignalRequest for Encoded<R> {
    const SIGNAL: Signal = R::SIGNAL;
    type Response = R::Response;

    fn items(&self) -> u64 {
        self.items
    }

    fn into_protobuf(self) -> Bytes {
        self.body
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        R::decode(self.body.clone()).map_err(serde_json::Error::custom)?.to_json()
    }

    fn partial_success(response: R::Response) -> Option<PartialSuccess> {
        R::partial_success(response)
    }
}

/// Without what `make` holds.
impl fmt::Debug for Otlp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Otlp").field("senders", &self.senders).field("files", &self.files).finish()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The JSON form of a request, on one line.
pub(super) fn json(request: &Request) -> serde_json::Result<Vec<u8>> {
    let (body, items) = (request.body.clone(), request.items);
    if request.signal == Signal::METRICS {
        Encoded::<ExportMetricsServiceRequest> { body, items, kind: PhantomData }.to_json()
    } else {
        Encoded::<ExportProfilesServiceRequest> { body, items, kind: PhantomData }.to_json()
    }
}
