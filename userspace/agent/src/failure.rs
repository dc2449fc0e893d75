//! Why a command failed, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

use descry_probe::ProbeError;

/// A failed command.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage: status 2.
    Usage(String),
    /// The kernel or the rights do not allow it: status 3.
    Environment(String),
    /// Anything else: status 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The status.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Environment(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Environment(text) => f.write_str(text),
            // All causes on one line.
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        if error.is_environment() { Self::Environment(error.to_string()) } else { Self::Failed(error.into()) }
    }
}
