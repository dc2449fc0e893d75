//! The list in `OTEL_EXPORTER_OTLP_HEADERS`: `key1=value1,key2=value2` as in W3C Baggage, values
//! percent-encoded, without the semicolon's properties.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;

use super::error::SettingsError;

/// Headers of the transport itself, which a list may not change.
const RESERVED: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers to send with every request. Values are credentials: no message, log line or `Debug` output shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    /// Reads the value of `variable`. Empty members are skipped; of equal names the last one counts.
    pub(super) fn parse(variable: &str, list: &str) -> Result<Self, SettingsError> {
        let mut headers = HeaderMap::new();
        let members = list.split(',').enumerate().filter(|(_, member)| !member.trim().is_empty());
        for (index, member) in members {
            let error = |reason: String| SettingsError::Invalid {
                variable: variable.to_owned(),
                reason,
                remedy: "write NAME=VALUE,NAME=VALUE with percent-encoded values",
            };
            let place = index + 1;
            // What stands without `=` may be a credential, so it is not repeated.
            let (name, value) =
                member.split_once('=').ok_or_else(|| error(format!("entry {place} has no '='")))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes())
                .map_err(|_| error(format!("the name of entry {place} is no header name")))?;
            if RESERVED.contains(&name) {
                return Err(error(format!("{name} is set by the transport")));
            }
            let decoded = percent_decode_str(value.trim())
                .decode_utf8()
                .map_err(|_| error(format!("the value of {name} is not UTF-8 once decoded")))?;
            let mut value = HeaderValue::from_str(&decoded)
                .map_err(|_| error(format!("the value of {name} has characters no header may have")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self(headers))
    }

    pub(super) const fn as_map(&self) -> &HeaderMap {
        &self.0
    }
}

/// The names only.
impl fmt::Debug for Headers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
