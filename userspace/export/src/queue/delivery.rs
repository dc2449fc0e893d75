//! How a request leaves.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;

use super::files::Files;
use super::record::Request;
use crate::send::{DropReason, Sender, Settings, SettingsError, SignalRequest};

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

/// A connection to a receiver, made anew when one of the files that it was made from changes.
pub struct Otlp {
    sender: Sender<ExportProfilesServiceRequest>,
    make: Box<dyn Fn() -> Result<Settings, SettingsError> + Send>,
    files: Vec<(PathBuf, Stamp)>,
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

impl Otlp {
    /// Settings by `make`, which reads `files` (headers, certificates, keys).
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(
        make: impl Fn() -> Result<Settings, SettingsError> + Send + 'static,
        files: Vec<PathBuf>,
    ) -> Result<Self, SettingsError> {
        let files = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        let sender = Sender::new(make()?)?;
        Ok(Self { sender, make: Box::new(make), files })
    }

    async fn send(&mut self, request: &Request) -> Verdict {
        self.refresh();
        let message = match ExportProfilesServiceRequest::decode(request.body.clone()) {
            Ok(message) => message,
            Err(error) => return not_encodable(error.to_string()),
        };
        let outcome = self.sender.send([message]).await;
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
        match (self.make)().and_then(Sender::new) {
            Ok(sender) => self.sender = sender,
            Err(error) => tracing::warn!(%error, "a file of a destination has changed and is not taken over"),
        }
    }
}

/// Without what `make` holds.
impl fmt::Debug for Otlp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Otlp").field("sender", &self.sender).field("files", &self.files).finish()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The JSON form of a request, on one line.
pub(super) fn json(request: &Request) -> Result<Vec<u8>, Verdict> {
    let message = ExportProfilesServiceRequest::decode(request.body.clone());
    let message = message.map_err(|error| not_encodable(error.to_string()))?;
    SignalRequest::to_json(&message).map_err(|error| not_encodable(error.to_string()))
}

fn not_encodable(detail: String) -> Verdict {
    Verdict::Refused { reason: DropReason::Encoding.as_str(), detail, retries: 0 }
}
