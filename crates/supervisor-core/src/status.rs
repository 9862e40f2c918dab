//! How a process ended, and why it counts as failed.

use std::fmt;

/// How a process ended, as `wait` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code, 0–255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with exit code {code}"),
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
        }
    }
}

/// Why a wanted process was not running any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It ended by itself. An exit code of 0 is a failure too: a service is meant to stay.
    Exited(ExitStatus),
    /// It could not be started at all, with the reason.
    StartFailed(String),
    /// It failed its `alive` check too often and was ended, with the last check's reason.
    NotAlive(String),
    /// Its shim was killed and it was ended with the shim; its exit status is unknown.
    Lost,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "{status}"),
            Self::StartFailed(reason) => write!(formatter, "could not be started: {reason}"),
            Self::NotAlive(reason) => write!(formatter, "failed its alive check: {reason}"),
            Self::Lost => formatter.write_str("was ended because its shim was killed"),
        }
    }
}
