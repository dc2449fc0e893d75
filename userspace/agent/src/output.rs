//! Where results go: a file, stdout, an OTLP endpoint. Everything is opened before anything is measured, so that what
//! cannot work fails then.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use descry_export::send::{Endpoint, Outcome, Sender, Settings, SettingsError, SignalRequest};

use crate::cli::MeasureArgs;
use crate::failure::Failure;

/// What was opened for a command that sends requests of this kind.
pub struct Output<R> {
    /// Where to write, if anywhere.
    pub destination: Option<Destination>,
    /// Where to send, if anywhere.
    pub sender: Option<Sender<R>>,
}

/// A format as this module needs it.
pub struct FormatChoice {
    /// Its name.
    pub name: &'static str,
    /// Whether it does not belong on a terminal.
    pub is_binary: bool,
    /// Whether the user named it.
    pub is_given: bool,
}

impl<R: SignalRequest> Output<R> {
    /// Opens what the options and the environment name: `-o`, `--otlp-endpoint`, `OTEL_EXPORTER_OTLP_ENDPOINT` and the
    /// signal's own variables.
    ///
    /// # Errors
    /// A file that cannot be written, settings that make no sense, bytes for a terminal.
    pub fn open(args: &MeasureArgs, format: &FormatChoice) -> Result<Self, Failure> {
        let sender = sender(args.otlp_endpoint.as_deref())?;
        let destination = match &args.output {
            // Who sends and names no format wants nothing written.
            None if sender.is_some() && !format.is_given => None,
            output => Some(Destination::open(output.as_deref())?),
        };
        if format.is_binary && destination.as_ref().is_some_and(Destination::is_terminal) {
            return Err(Failure::Usage(format!(
                "{} is binary and stdout is a terminal: name a file with -o, or redirect stdout",
                format.name
            )));
        }
        Ok(Self { destination, sender })
    }
}

/// A file or stdout.
pub struct Destination(Kind);

enum Kind {
    Stdout,
    File { path: PathBuf, file: File, is_new: bool },
}

impl Destination {
    /// Opens what `-o` names: a file, or with `-` or nothing stdout.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open(output: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = output.filter(|path| path.as_os_str() != "-") else {
            return Ok(Self(Kind::Stdout));
        };
        let cannot = || format!("cannot write {}", path.display());
        let is_new = !path.exists();
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        Ok(Self(Kind::File { path: path.to_owned(), file: opened.with_context(cannot)?, is_new }))
    }

    /// Whether a person sees what is written, at once.
    pub fn is_terminal(&self) -> bool {
        matches!(self.0, Kind::Stdout) && io::stdout().is_terminal()
    }

    /// Whether to write with ANSI colors.
    pub fn has_colors(&self) -> bool {
        self.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Columns of the terminal.
    pub fn width(&self) -> Option<usize> {
        let size = self.is_terminal().then(|| console::Term::stdout().size_checked()).flatten();
        size.map(|(_, columns)| columns.into())
    }

    /// For messages.
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Stdout => "stdout".to_owned(),
            Kind::File { path, .. } => path.display().to_string(),
        }
    }

    /// A writer from the start of the file, which loses what it held.
    ///
    /// # Errors
    /// When the file cannot be made empty.
    pub fn writer(&self) -> io::Result<Box<dyn Write + Send>> {
        match &self.0 {
            Kind::Stdout => Ok(Box::new(BufWriter::new(io::stdout()))),
            Kind::File { file, .. } => {
                // Devices and pipes have no length to set.
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                Ok(Box::new(BufWriter::new(file.try_clone()?)))
            }
        }
    }

    /// The file holds a result: it stays, even if it was made for this measurement.
    pub fn keep(&mut self) {
        if let Kind::File { is_new, .. } = &mut self.0 {
            *is_new = false;
        }
    }
}

impl Drop for Destination {
    /// A file that was made for a measurement that failed is not left behind.
    fn drop(&mut self) {
        if let Kind::File { path, is_new: true, .. } = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "cannot remove an empty output file");
        }
    }
}

/// Sends where the option or the environment names an endpoint.
///
/// # Errors
/// Settings that make no sense.
pub fn sender<R: SignalRequest>(endpoint: Option<&str>) -> Result<Option<Sender<R>>, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let settings = match endpoint {
        Some(url) => Settings::with_endpoint(R::SIGNAL, "--otlp-endpoint", url, env),
        None if Settings::endpoint_is_set(R::SIGNAL, env) => Settings::from_env(R::SIGNAL, env),
        None => return Ok(None),
    };
    let usage = |error: SettingsError| Failure::Usage(error.to_string());
    Ok(Some(Sender::new(settings.map_err(usage)?).map_err(usage)?))
}

/// Says on stderr what was sent.
///
/// # Errors
/// What kept the rest from being sent.
pub fn report(items: &str, endpoint: &Endpoint, outcome: Outcome) -> Result<(), Failure> {
    if outcome.sent_requests > 0 {
        say!(
            "descry: sent {} {items} in {} requests ({} B, {} retries) to {endpoint}",
            outcome.sent_items,
            outcome.sent_requests,
            outcome.bytes,
            outcome.retries,
        );
    }
    if outcome.rejected_items > 0 {
        say!("descry: the receiver rejected {} {items}", outcome.rejected_items);
    }
    let dropped = outcome.dropped_items();
    match outcome.first_error {
        Some(error) => Err(Failure::Failed(
            anyhow::Error::new(error).context(format!("{dropped} {items} were not sent")),
        )),
        None => Ok(()),
    }
}
