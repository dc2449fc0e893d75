//! What a program says of itself by its environment: the variables of the OpenTelemetry specification ("Environment
//! Variable Specification" and "Resource SDK"). Pure. No other variable is looked at.

use percent_encoding::percent_decode_str;

/// Attributes taken from one process at most.
const MAX_ATTRIBUTES: usize = 128;
/// Bytes of a key or value at most; a longer one is left out.
const MAX_TEXT: usize = 4096;

/// The OpenTelemetry variables of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtelEnvironment {
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, in order.
    pub resource_attributes: Vec<(String, String)>,
}

impl OtelEnvironment {
    /// From `/proc/PID/environ`: `NAME=VALUE`, each ended by zero.
    pub fn parse(environ: &[u8]) -> Self {
        let mut found = Self::default();
        for variable in environ.split(|byte| *byte == 0) {
            if let Some(name) = variable.strip_prefix(b"OTEL_SERVICE_NAME=") {
                found.service_name = text(name);
            } else if let Some(list) = variable.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES=") {
                found.resource_attributes =
                    std::str::from_utf8(list).ok().and_then(resource_attributes).unwrap_or_default();
            }
        }
        found
    }

    /// The value of one of the resource attributes.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        let found = self.resource_attributes.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.to_owned())
}

/// `KEY=VALUE,...`, both percent-encoded; the specification has the whole value discarded on any error.
fn resource_attributes(list: &str) -> Option<Vec<(String, String)>> {
    let decode =
        |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(|text| text.into_owned());
    list.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .take(MAX_ATTRIBUTES)
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let (key, value) = (decode(key)?, decode(value)?);
            (!key.is_empty() && key.len() <= MAX_TEXT && value.len() <= MAX_TEXT).then_some((key, value))
        })
        .collect()
}
