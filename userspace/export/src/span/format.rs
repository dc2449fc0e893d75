//! What spans are written as.

use std::path::Path;
use std::str::FromStr;

use thiserror::Error;

/// What spans are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanFormat {
    /// A line a span, and a table at the end.
    Text,
    /// A line of JSON a span, and one more at the end.
    Json,
    /// One OTLP `TracesData` message (protobuf).
    Otlp,
    /// The same message as JSON.
    OtlpJson,
}

/// Formats with their names and the endings of their files, longer endings before those that end alike.
const FORMATS: [(SpanFormat, &str, &[&str]); 4] = [
    (SpanFormat::OtlpJson, "otlp-json", &[".otlp.json"]),
    (SpanFormat::Otlp, "otlp", &[".otlp"]),
    (SpanFormat::Json, "json", &[".json", ".jsonl"]),
    (SpanFormat::Text, "text", &[".txt"]),
];

impl SpanFormat {
    /// By the ending of a file's name.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let found =
            FORMATS.iter().find(|(_, _, endings)| endings.iter().any(|ending| name.ends_with(ending)));
        found.map(|(format, _, _)| *format)
    }

    /// The name that [`FromStr`] takes.
    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(format, _, _)| *format == self).map_or("", |(_, name, _)| name)
    }

    /// Whether the bytes are no text: they do not belong on a terminal.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Otlp)
    }
}

/// No format of spans has this name.
#[derive(Debug, Error)]
#[error("unknown format {name:?}; use one of: text, json, otlp, otlp-json")]
pub struct UnknownSpanFormat {
    /// What was asked for.
    pub name: String,
}

impl FromStr for SpanFormat {
    type Err = UnknownSpanFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = FORMATS.iter().find(|(_, known, _)| *known == name);
        found.map(|(format, _, _)| *format).ok_or_else(|| UnknownSpanFormat { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let format = SpanFormat::from_path(Path::new(path));
        assert_eq!(format.map(SpanFormat::name), expected, "{path}");
        if let Some(format) = format {
            assert_eq!(format.name().parse::<SpanFormat>().ok(), Some(format));
        }
    }

    #[test]
    fn formats_have_endings_and_names() {
        check("spans.otlp.json", Some("otlp-json"));
        check("/tmp/SPANS.OTLP", Some("otlp"));
        check("spans.json", Some("json"));
        check("spans.jsonl", Some("json"));
        check("spans.txt", Some("text"));
        check("spans", None);
        assert!("xml".parse::<SpanFormat>().is_err());
    }
}
