//! The result of one attempt, in the words of both protocols.

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy;

use super::error::DropReason;
use super::signal::PartialSuccess;

/// Longest piece of foreign text that goes into a message or a log line, in characters.
const FOREIGN_TEXT_CHARACTERS: usize = 300;

/// A request that the receiver acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) partial: Option<PartialSuccess>,
    /// Whether the answer was an OTLP response.
    pub(super) confirmed: bool,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// After the back-off's own delay.
    Backoff,
    /// After what the receiver asked for.
    After(Duration),
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: DropReason,
    pub(super) retry: Retry,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(reason: DropReason, retry: Retry, detail: impl Into<String>) -> Self {
        Self { reason, retry, detail: detail.into() }
    }

    /// Reads a transport error's chain of causes: what failed, and can it pass?
    pub(super) fn of_transport(error: &(dyn Error + 'static)) -> Self {
        let mut causes = Vec::new();
        collect_causes(error, &mut causes);
        let detail = || {
            // The outer layers only say "client error"; the innermost text says what happened.
            let innermost = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
            foreign_text(&innermost)
        };
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            let hint = match tls {
                rustls::Error::InvalidMessage(_) => " (the server may speak plain http)",
                _ => "",
            };
            return Self::new(DropReason::Tls, Retry::Never, format!("TLS failed: {tls}{hint}"));
        }
        // HTTP/2 keeps only the kind and the text of the TLS error that ended its connection (a server that
        // refuses the client's certificate says so after the handshake); TCP itself has no InvalidData.
        let mut io = causes.iter().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        if let Some(tls) = io.find(|io| io.kind() == std::io::ErrorKind::InvalidData) {
            let detail = format!("TLS failed: {}", foreign_text(&tls.to_string()));
            return Self::new(DropReason::Tls, Retry::Never, detail);
        }
        let h2 = causes.iter().find_map(|cause| cause.downcast_ref::<h2::Error>());
        if let Some(reason) = h2.and_then(h2::Error::reason)
            && matches!(
                reason,
                h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR | h2::Reason::HTTP_1_1_REQUIRED
            )
        {
            let detail = format!("the server does not speak HTTP/2 as gRPC needs it ({reason})");
            return Self::new(DropReason::WrongEndpoint, Retry::Never, detail);
        }
        if causes.iter().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse)
        {
            let detail = format!("the server does not answer in HTTP/1.1 ({})", detail());
            return Self::new(DropReason::WrongEndpoint, Retry::Never, detail);
        }
        let connecting = causes
            .iter()
            .filter_map(|cause| cause.downcast_ref::<legacy::Error>())
            .any(legacy::Error::is_connect);
        let detail = if connecting {
            format!("cannot connect: {}", detail())
        } else {
            // A server of another protocol closes the connection or talks out of turn; so does one that is restarted.
            let hint = "if this goes on, the port may be another protocol's: see OTEL_EXPORTER_OTLP_PROTOCOL";
            format!("the connection broke: {} ({hint})", detail())
        };
        Self::new(DropReason::Unreachable, Retry::Backoff, detail)
    }
}

/// The error and its causes, outermost first. An [`std::io::Error`] hides what it wraps from
/// [`Error::source`], so it is opened here: TLS errors travel in one.
fn collect_causes<'a>(error: &'a (dyn Error + 'static), causes: &mut Vec<&'a (dyn Error + 'static)>) {
    const DEEPEST: usize = 16;
    if causes.len() == DEEPEST {
        return;
    }
    causes.push(error);
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(wrapped) = wrapped {
        collect_causes(wrapped, causes);
    } else if let Some(source) = error.source() {
        collect_causes(source, causes);
    }
}

/// Text from outside, cut and without control characters, fit for a message.
pub(super) fn foreign_text(text: &str) -> String {
    let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(FOREIGN_TEXT_CHARACTERS).collect()
}
