//! Log lines on stderr.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::own::OwnTelemetry;

/// The variable whose value, if set, says what is logged: `debug`, `descry_unwind=trace,info`.
pub const VARIABLE: &str = "DESCRY_LOG";

/// The look of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Level and message, for a person who waits for a command.
    #[default]
    Plain,
    /// With time and module, for a service's log.
    Full,
    /// One JSON object a line.
    Json,
}

/// What is logged and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The number of `-v` less the number of `-q`: 0 warnings, 1 info, 2 debug, 3 trace, -1 errors, -2 nothing.
    /// Above 0 it raises descry's own modules only, not its libraries.
    pub verbosity: i8,
    /// The value of `DESCRY_LOG`; takes the place of `verbosity`.
    pub directives: Option<String>,
    /// The look of a line.
    pub format: LogFormat,
}

/// Logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directives mean nothing.
    #[error(
        "{VARIABLE} is invalid: {source}; write a level (error, warn, info, debug, trace) or MODULE=LEVEL,..."
    )]
    Directives {
        /// The reason.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// It had begun already.
    #[error("logging is set up twice: {source}; call init once")]
    Twice {
        /// The reason.
        #[source]
        source: TryInitError,
    },
}

/// Begins logging to stderr, and to the receiver of descry's own telemetry where there is one.
///
/// # Errors
/// If the directives mean nothing, or logging had begun already.
pub fn init(logging: &Logging, own: Option<&OwnTelemetry>) -> Result<(), LoggingError> {
    let filter = filter(logging)?;
    let to_stderr = lines(logging.format).with_filter(filter);
    let registry = tracing_subscriber::registry().with(to_stderr).with(own.map(OwnTelemetry::layer));
    registry.try_init().map_err(|source| LoggingError::Twice { source })
}

fn filter(logging: &Logging) -> Result<EnvFilter, LoggingError> {
    let directives = logging.directives.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if let Some(directives) = directives {
        return EnvFilter::try_new(directives).map_err(|source| LoggingError::Directives { source });
    }
    let (libraries, own) = match logging.verbosity {
        ..=-2 => (LevelFilter::OFF, LevelFilter::OFF),
        -1 => (LevelFilter::ERROR, LevelFilter::ERROR),
        0 => (LevelFilter::WARN, LevelFilter::WARN),
        1 => (LevelFilter::WARN, LevelFilter::INFO),
        2 => (LevelFilter::WARN, LevelFilter::DEBUG),
        3.. => (LevelFilter::WARN, LevelFilter::TRACE),
    };
    EnvFilter::try_new(format!("{libraries},descry={own}"))
        .map_err(|source| LoggingError::Directives { source })
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // https://no-color.org: any value but the empty one.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = std::io::stderr().is_terminal() && !no_color;
    // Whoever reads stderr may be gone; to complain of that there would be a panic.
    let layer = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(ansi);
    match format {
        LogFormat::Plain => layer.without_time().with_target(false).boxed(),
        LogFormat::Full => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}
