//! Values with a form of their own, written as text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// Bytes that a compiled regular expression may take.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;

/// Defines a value that is written as text of a form that the schema names.
macro_rules! text {
    ($(#[$doc:meta])* $type:ident($inner:ty) = $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(pub $inner);

        impl $type {
            /// The form's name in the schema.
            pub(crate) const FORMAT: &str = $format;
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": Self::FORMAT })
            }
        }
    };
}

text! {
    /// A time like `500ms`, `10s` or `2m`.
    Period(Duration) = "period"
}

text! {
    /// A number of bytes like `512KiB` or `64MiB`.
    Size(u64) = "size"
}

text! {
    /// An IP address with a port.
    Address(SocketAddr) = "address"
}

text! {
    /// The base URL of a receiver: http or https, a host, no credentials.
    Url(String) = "otlp-url"
}

text! {
    /// A name in which `*` stands for any characters, `?` for one and `[..]` for one of several.
    Pattern(glob::Pattern) = "pattern"
}

text! {
    /// A regular expression, as the Rust crate `regex` reads it.
    Expression(String) = "regex"
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub f64);

// What the schema lets through is a number.
impl Eq for Ratio {}

impl schemars::JsonSchema for Ratio {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ratio".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let period = humantime::parse_duration(text.trim());
        period.map(Self).map_err(|_| "write a time with its unit, like 500ms, 10s or 2m".to_owned())
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size: Result<ByteSize, _> = text.trim().parse();
        size.map(|size| Self(size.as_u64()))
            .map_err(|_| "write a number of bytes with its unit, like 512KiB or 64MiB".to_owned())
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let compiled = regex::RegexBuilder::new(text).size_limit(MAX_EXPRESSION_BYTES).build();
        // The library's message draws the place under the text, over several lines.
        compiled.map(|_| Self(text.to_owned())).map_err(|error| {
            let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            format!("it is no regular expression ({})", last.trim_start_matches("error: "))
        })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.trim().parse();
        address.map(Self).map_err(|_| "write an IP address and a port, like 127.0.0.1:8687".to_owned())
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let uri: http::Uri = text.parse().map_err(|_| "write it as http://HOST:PORT or https://HOST:PORT")?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("the URL holds credentials; put them into headers or header_files".to_owned());
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.is_empty() {
            return Err("write it as http://HOST:PORT or https://HOST:PORT".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern without characters matches nothing".to_owned());
        }
        glob::Pattern::new(text).map(Self).map_err(|error| format!("it is no pattern: {error}"))
    }
}

impl Pattern {
    /// Whether all of the text is of this form.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}

/// What is wrong with a text that should be of this form; a form that is none of ours takes all.
pub(crate) fn reason(format: &str, text: &str) -> Option<String> {
    match format {
        Period::FORMAT => text.parse::<Period>().err(),
        Size::FORMAT => text.parse::<Size>().err(),
        Address::FORMAT => text.parse::<Address>().err(),
        Url::FORMAT => text.parse::<Url>().err(),
        Pattern::FORMAT => text.parse::<Pattern>().err(),
        Expression::FORMAT => text.parse::<Expression>().err(),
        _ => None,
    }
}
