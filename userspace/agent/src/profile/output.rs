//! The profile's file and endpoint.

use std::io;

use anyhow::Context;
use descry_aggregate::profile::Profile;
use descry_export::format::{Format, WriteOptions, write};
use descry_export::otlp::{self, MAX_REQUEST_BYTES, OtlpOptions};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;

use crate::cli::{ProfileArgs, YesNo};
use crate::failure::Failure;
use crate::output::{self, Destination, FormatChoice};

/// Where to write and send, found out before anything is measured.
pub struct Output {
    format: Format,
    to: output::Output<ExportProfilesServiceRequest>,
    options: WriteOptions,
}

impl Output {
    /// Opens what the arguments name.
    pub fn open(args: &ProfileArgs) -> Result<Self, Failure> {
        let by_name = args.measure.output.as_deref().and_then(Format::from_path);
        let format = args.format.or(by_name).unwrap_or(Format::Text);
        let choice = FormatChoice {
            name: format.name(),
            is_binary: format.is_binary(),
            is_given: args.format.is_some(),
        };
        let to = output::Output::open(&args.measure, &choice)?;
        let options = WriteOptions {
            per_thread: args.per_thread,
            kernel: args.kernel == YesNo::Yes,
            inlines: args.inlines == YesNo::Yes,
            color: to.destination.as_ref().is_some_and(Destination::has_colors),
            width: to.destination.as_ref().and_then(Destination::width),
            ..WriteOptions::default()
        };
        Ok(Self { format, to, options })
    }

    /// Whether the times of samples are wanted.
    pub fn wants_timestamps(&self) -> bool {
        self.to.sender.is_some() || matches!(self.format, Format::Otlp | Format::OtlpJson | Format::Firefox)
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
        let Some(destination) = &mut self.to.destination else { return Ok(()) };
        let cannot = || format!("cannot write {}", destination.name());
        let mut out = destination.writer().with_context(cannot)?;
        match write(profile, self.format, &mut *out, &self.options) {
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.source.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.with_context(cannot)?,
        }
        destination.keep();
        Ok(())
    }

    fn send(&self, profile: &Profile) -> Result<(), Failure> {
        let Some(sender) = &self.to.sender else { return Ok(()) };
        let mut requests = otlp::requests(profile, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        let outcome = sender.send_blocking(&mut requests).context("cannot send")?;
        let oversized = requests.oversized_samples();
        if oversized > 0 {
            say!("descry: {oversized} samples were too large for a request and were left out");
        }
        output::report("profiles", &sender.settings().endpoint, outcome)
    }
}
