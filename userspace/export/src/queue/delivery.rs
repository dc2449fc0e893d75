//! How a request leaves.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use descry_spool::Request;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::ser::Error;

use super::breaker::Breaker;
use super::files::Files;
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
    Sent { rejected: u64 },
    /// It will not be taken at any time.
    Refused { reason: &'static str, detail: String },
    /// It may be taken later.
    Later { detail: String },
}

/// What it took to send a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    /// Attempts after the first.
    pub retries: u64,
    /// Endpoints that were given up for a while.
    pub circuits_opened: u64,
}

/// Which of several endpoints a request goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// The first that works.
    #[default]
    Failover,
    /// One after the other, those that work.
    RoundRobin,
}

/// Receivers of the same data. Connections are made anew when one of the files that they were made from changes.
#[derive(Debug)]
pub struct Otlp {
    endpoints: Vec<Endpoint>,
    balancing: Balancing,
    /// How many requests were sent: whose turn it is.
    turn: usize,
    files: Vec<(PathBuf, Stamp)>,
}

/// One of them.
struct Endpoint {
    senders: Senders,
    make: Make,
    breaker: Breaker,
}

/// Makes the settings of a signal.
pub type Make = Box<dyn Fn(Signal) -> Result<Settings, SettingsError> + Send>;

/// One for each signal that can wait.
#[derive(Debug)]
struct Senders {
    profiles: Sender<Encoded<ExportProfilesServiceRequest>>,
    metrics: Sender<Encoded<ExportMetricsServiceRequest>>,
    traces: Sender<Encoded<ExportTraceServiceRequest>>,
    logs: Sender<Encoded<ExportLogsServiceRequest>>,
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
    pub(super) async fn send(&mut self, request: &Request, effort: &mut Effort) -> Verdict {
        match self {
            Self::Otlp(otlp) => otlp.send(request, effort).await,
            Self::Files(files) => files.write(request),
        }
    }
}

impl Senders {
    fn new(make: &Make) -> Result<Self, SettingsError> {
        Ok(Self {
            profiles: Sender::new(make(Signal::PROFILES)?)?,
            metrics: Sender::new(make(Signal::METRICS)?)?,
            traces: Sender::new(make(Signal::TRACES)?)?,
            logs: Sender::new(make(Signal::LOGS)?)?,
        })
    }

    async fn send(&self, request: &Request, effort: &mut Effort) -> Verdict {
        match request.signal {
            Signal::METRICS => deliver(&self.metrics, request, effort).await,
            Signal::TRACES => deliver(&self.traces, request, effort).await,
            Signal::LOGS => deliver(&self.logs, request, effort).await,
            _ => deliver(&self.profiles, request, effort).await,
        }
    }
}

impl Otlp {
    /// One endpoint, with settings by `make`, which reads `files` (headers, certificates, keys).
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(
        make: impl Fn(Signal) -> Result<Settings, SettingsError> + Send + 'static,
        files: Vec<PathBuf>,
    ) -> Result<Self, SettingsError> {
        Self::balanced(vec![Box::new(make)], Balancing::Failover, files)
    }

    /// Several endpoints, in the order in which they are preferred.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn balanced(
        makes: Vec<Make>,
        balancing: Balancing,
        files: Vec<PathBuf>,
    ) -> Result<Self, SettingsError> {
        let files = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        let endpoint =
            |make: Make| Ok(Endpoint { senders: Senders::new(&make)?, make, breaker: Breaker::default() });
        let endpoints = makes.into_iter().map(endpoint).collect::<Result<_, SettingsError>>()?;
        Ok(Self { endpoints, balancing, turn: 0, files })
    }

    /// Tries the endpoints that are worth it until one answers; where none is, the one that will be first.
    async fn send(&mut self, request: &Request, effort: &mut Effort) -> Verdict {
        self.refresh();
        let (count, now) = (self.endpoints.len().max(1), Instant::now());
        let first = if self.balancing == Balancing::RoundRobin { self.turn % count } else { 0 };
        self.turn = self.turn.wrapping_add(1);
        let order = (0..count).map(|step| (first + step) % count);
        let breaker = |index: usize| self.endpoints.get(index).map(|it| it.breaker).unwrap_or_default();
        let mut worth: Vec<usize> = order.clone().filter(|index| breaker(*index).is_closed(now)).collect();
        if worth.is_empty() {
            worth.extend(order.min_by_key(|index| breaker(*index).until(now)));
        }
        let mut verdict = Verdict::Later { detail: "there is no endpoint".to_owned() };
        for (tries, index) in worth.into_iter().enumerate() {
            let Some(endpoint) = self.endpoints.get_mut(index) else { continue };
            effort.retries += u64::from(tries > 0);
            verdict = endpoint.senders.send(request, effort).await;
            if !matches!(verdict, Verdict::Later { .. }) {
                endpoint.breaker.succeeded();
                break;
            }
            // Of a single one the queue's own delays take care.
            if count > 1 {
                endpoint.breaker.failed(Instant::now());
                effort.circuits_opened += 1;
            }
        }
        verdict
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
        for endpoint in &mut self.endpoints {
            match Senders::new(&endpoint.make) {
                Ok(senders) => endpoint.senders = senders,
                Err(error) => {
                    tracing::warn!(%error, "a file of a destination has changed and is not taken over");
                }
            }
        }
    }
}

async fn deliver<R>(sender: &Sender<Encoded<R>>, request: &Request, effort: &mut Effort) -> Verdict
where
    R: SignalRequest + Message + Default,
{
    let encoded = Encoded { body: request.body.clone(), items: request.items, kind: PhantomData };
    let outcome = sender.send([encoded]).await;
    effort.retries += outcome.retries;
    let Some(error) = outcome.first_error else {
        return Verdict::Sent { rejected: outcome.rejected_items };
    };
    let detail = error.to_string();
    match error.reason {
        DropReason::Unreachable | DropReason::Tls | DropReason::Unavailable | DropReason::Timeout => {
            Verdict::Later { detail }
        }
        // What the OTLP specification does not let anybody send again ("Failures").
        reason => Verdict::Refused { reason: reason.as_str(), detail },
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
impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("senders", &self.senders)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The JSON form of a request, on one line.
pub(super) fn json(request: &Request) -> serde_json::Result<Vec<u8>> {
    match request.signal {
        Signal::METRICS => json_of::<ExportMetricsServiceRequest>(request),
        Signal::TRACES => json_of::<ExportTraceServiceRequest>(request),
        Signal::LOGS => json_of::<ExportLogsServiceRequest>(request),
        _ => json_of::<ExportProfilesServiceRequest>(request),
    }
}

fn json_of<R: SignalRequest + Message + Default>(request: &Request) -> serde_json::Result<Vec<u8>> {
    R::decode(request.body.clone()).map_err(serde_json::Error::custom)?.to_json()
}
