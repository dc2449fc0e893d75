//! A profile as a file.
//!
//! Give it a [`Profile`], a [`Format`] and a writer; get the bytes of that format, the same for the same profile. A
//! profile without samples gives a valid file of each format. It opens no file and reads no clock.

mod escape;
mod firefox;
mod flamegraph;
mod folded;
mod json_line;
mod pprof;
mod reasons;
mod speedscope;
mod summary;
mod text;
mod view;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use descry_aggregate::profile::Profile;
use prost::Message;
use thiserror::Error;

pub use escape::{printable, printable_frame};
pub(crate) use json_line::line;
pub(crate) use summary::{duration, grouped};
pub(crate) use text::{columns, padded};

use crate::otlp::{self, OtlpOptions, json::Json};

/// What a profile can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A table of hot functions.
    Text,
    /// A line a stack: frames from the root, `;` between them, a space, a count.
    Folded,
    /// A flame graph to look at in a browser (SVG).
    Flamegraph,
    /// pprof's format, gzip-compressed.
    Pprof,
    /// One OTLP `ProfilesData` message (protobuf).
    Otlp,
    /// The same message as JSON.
    OtlpJson,
    /// The Firefox Profiler's processed format (JSON).
    Firefox,
    /// speedscope's format (JSON).
    Speedscope,
}

/// Formats with their names and the endings of their files, longer endings before those that end alike.
const FORMATS: [(Format, &str, &str); 8] = [
    (Format::OtlpJson, "otlp-json", ".otlp.json"),
    (Format::Firefox, "firefox", ".firefox.json"),
    (Format::Speedscope, "speedscope", ".speedscope.json"),
    (Format::Pprof, "pprof", ".pb.gz"),
    (Format::Flamegraph, "flamegraph", ".svg"),
    (Format::Otlp, "otlp", ".otlp"),
    (Format::Folded, "folded", ".folded"),
    (Format::Text, "text", ".txt"),
];

impl Format {
    /// Every format's name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FORMATS.iter().map(|(_, name, _)| *name)
    }

    /// By the ending of a file's name.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        FORMATS.iter().find(|(_, _, ending)| name.ends_with(ending)).map(|(format, _, _)| *format)
    }

    /// The name that [`FromStr`] takes.
    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(format, _, _)| *format == self).map_or("", |(_, name, _)| name)
    }

    /// Whether the bytes are no text: they do not belong on a terminal.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Pprof | Self::Otlp)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No format has this name.
#[derive(Debug, Error)]
#[error("unknown format {name:?}; use one of: {}", Format::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = FORMATS.iter().find(|(_, known, _)| *known == name);
        found.map(|(format, _, _)| *format).ok_or_else(|| UnknownFormat { name: name.to_owned() })
    }
}

/// How to write.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Threads apart: the thread's name is the second frame of a stack, a column of the table.
    pub per_thread: bool,
    /// With the kernel's frames.
    pub kernel: bool,
    /// With inlined functions.
    pub inlines: bool,
    /// With ANSI colors, in the table.
    pub color: bool,
    /// Most functions in the table.
    pub top: usize,
    /// Columns of the terminal, for the table; none: rows are as long as they need to be.
    pub width: Option<usize>,
    /// For the OTLP formats.
    pub otlp: OtlpOptions,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            per_thread: false,
            kernel: true,
            inlines: true,
            color: false,
            top: 40,
            width: None,
            otlp: OtlpOptions::default(),
        }
    }
}

/// A profile could not be written.
#[derive(Debug, Error)]
#[error("cannot write the profile as {format}: {source}")]
pub struct WriteError {
    /// As what.
    pub format: Format,
    /// Why: an error of the writer.
    #[source]
    pub source: io::Error,
}

/// Writes `profile` to `out` and flushes it.
///
/// # Errors
///
/// When `out` fails.
pub fn write(
    profile: &Profile,
    format: Format,
    out: &mut dyn Write,
    options: &WriteOptions,
) -> Result<(), WriteError> {
    let profile = view::view(profile, options);
    let profile = profile.as_ref();
    let result = match format {
        Format::Text => text::write(profile, out, options),
        Format::Folded => folded::write(profile, out, options),
        Format::Flamegraph => flamegraph::write(profile, out, options),
        Format::Pprof => pprof::write(profile, out),
        Format::Otlp => out.write_all(&otlp::profiles_data(profile, &options.otlp).encode_to_vec()),
        Format::OtlpJson => {
            let data = otlp::profiles_data(profile, &options.otlp);
            serde_json::to_writer(&mut *out, &Json(&data)).map_err(io::Error::from)
        }
        Format::Firefox => firefox::write(profile, out, options),
        Format::Speedscope => speedscope::write(profile, out, options),
    };
    result.and_then(|()| out.flush()).map_err(|source| WriteError { format, source })
}
