//! Where the profile goes: a file, stdout, an OTLP endpoint.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use descry_aggregate::profile::Profile;
use descry_export::format::{Format, WriteOptions, write};
use descry_export::otlp::{self, MAX_REQUEST_BYTES, OtlpOptions};
use descry_export::send::{Sender, Settings, Signal};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;

use crate::cli::{ProfileArgs, YesNo};
use crate::failure::Failure;

/// Where to write, found out before anything is measured.
pub struct Output {
    format: Format,
    destination: Option<Destination>,
    sender: Option<Sender<ExportProfilesServiceRequest>>,
    options: WriteOptions,
}

enum Destination {
    Stdout,
    File { path: PathBuf, file: File, is_new: bool },
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Output {
    /// Opens what the arguments name: an output that cannot be written fails here, not after the measurement.
    pub fn open(args: &ProfileArgs) -> Result<Self, Failure> {
        let by_name = args.measure.output.as_deref().and_then(Format::from_path);
        let format = args.format.or(by_name).unwrap_or(Format::Text);
        let sender = sender(args)?;
        let destination = match &args.measure.output {
            Some(path) if path.as_os_str() == "-" => Some(Destination::Stdout),
            Some(path) => Some(open_file(path)?),
            // Who sends and names no format wants nothing written.
            None if sender.is_some() && args.format.is_none() => None,
            None => Some(Destination::Stdout),
        };
        let to_terminal = matches!(destination, Some(Destination::Stdout)) && io::stdout().is_terminal();
        if format.is_binary() && to_terminal {
            return Err(Failure::Usage(format!(
                "{format} is binary and stdout is a terminal: name a file with -o, or redirect stdout"
            )));
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = to_terminal.then(|| console::Term::stdout().size_checked()).flatten();
        let options = WriteOptions {
            per_thread: args.per_thread,
            kernel: args.kernel == YesNo::Yes,
            inlines: args.inlines == YesNo::Yes,
            color: to_terminal && !no_color,
            width: width.map(|(_, columns)| columns.into()),
            ..WriteOptions::default()
        };
        Ok(Self { format, destination, sender, options })
    }

    /// Whether the times of samples are wanted.
    pub fn wants_timestamps(&self) -> bool {
        self.sender.is_some() || matches!(self.format, Format::Otlp | Format::OtlpJson | Format::Firefox)
    }

    /// Whether threads are wanted, beside what the user asked for.
    pub fn wants_threads(&self) -> bool {
        self.wants_timestamps() || matches!(self.format, Format::Pprof)
    }

    /// Writes and sends: neither failure keeps the other from being done.
    pub fn finish(&mut self, profile: &Profile) -> Result<(), Failure> {
        let written = self.write(profile);
        self.send(profile)?;
        written
    }

    fn write(&mut self, profile: &Profile) -> Result<(), Failure> {
        match &mut self.destination {
            None => {}
            Some(Destination::Stdout) => {
                let mut out = BufWriter::new(io::stdout().lock());
                let written = write(profile, self.format, &mut out, &self.options);
                // A reader that has seen enough (`| head`) is no failure.
                match written {
                    Err(error) if error.source.kind() == io::ErrorKind::BrokenPipe => {}
                    other => other.context("stdout")?,
                }
            }
            Some(Destination::File { path, file, is_new }) => {
                let whole = (|| -> anyhow::Result<()> {
                    // Devices and pipes have no length to set.
                    if file.metadata()?.is_file() {
                        file.set_len(0)?;
                    }
                    let mut out = BufWriter::new(&*file);
                    write(profile, self.format, &mut out, &self.options)?;
                    Ok(out.flush()?)
                })();
                whole.with_context(|| format!("cannot write {}", path.display()))?;
                *is_new = false;
            }
        }
        Ok(())
    }

    fn send(&self, profile: &Profile) -> Result<(), Failure> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let mut requests = otlp::requests(profile, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        let outcome = sender.send_blocking(&mut requests).context("cannot send")?;
        let oversized = requests.oversized_samples();
        if outcome.sent_requests > 0 {
            eprintln!(
                "descry: sent {} profiles in {} requests ({} B, {} retries) to {}",
                outcome.sent_items,
                outcome.sent_requests,
                outcome.bytes,
                outcome.retries,
                sender.settings().endpoint,
            );
        }
        if oversized > 0 {
            eprintln!("descry: {oversized} samples were too large for a request and were left out");
        }
        if outcome.rejected_items > 0 {
            eprintln!("descry: the receiver rejected {} profiles", outcome.rejected_items);
        }
        match outcome.first_error {
            Some(error) => {
                let dropped: u64 = outcome.dropped_items_by_reason.values().sum();
                Err(Failure::Failed(
                    anyhow::Error::new(error).context(format!("{dropped} profiles were not sent")),
                ))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Output {
    /// A file that was made for a measurement that failed is not left behind.
    fn drop(&mut self) {
        if let Some(Destination::File { path, is_new: true, .. }) = &self.destination
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "cannot remove an empty output file");
        }
    }
}

fn open_file(path: &Path) -> Result<Destination, Failure> {
    let cannot = || format!("cannot write {}", path.display());
    let is_new = !path.exists();
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(cannot)?;
    Ok(Destination::File { path: path.to_owned(), file, is_new })
}

/// Sends where the option or the environment names an endpoint.
fn sender(args: &ProfileArgs) -> Result<Option<Sender<ExportProfilesServiceRequest>>, Failure> {
    let settings = match &args.measure.otlp_endpoint {
        Some(url) => Settings::with_endpoint(Signal::PROFILES, "--otlp-endpoint", url, env),
        None if Settings::endpoint_is_set(Signal::PROFILES, env) => Settings::from_env(Signal::PROFILES, env),
        None => return Ok(None),
    };
    let usage = |error: descry_export::send::SettingsError| Failure::Usage(error.to_string());
    Ok(Some(Sender::new(settings.map_err(usage)?).map_err(usage)?))
}
