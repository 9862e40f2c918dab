//! Why a command did not do what it was asked, what helps, and with which exit code it ends.

use std::io;
use std::process::ExitCode;

use crate::exit;
use crate::show;

/// What a command comes to: its exit code, or why it did nothing.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `None` when it was shown already.
    error: Option<anyhow::Error>,
    help: Option<String>,
    code: u8,
}

impl Failure {
    /// Says that a file or an argument can't be used.
    pub(crate) fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), help: None, code: exit::BAD_INPUT }
    }

    /// Says in one sentence why the command failed.
    pub(crate) fn new(text: String) -> Self {
        Self::from(anyhow::Error::msg(text))
    }

    /// Says that no quorum of voters was there, so that nothing was changed.
    pub(crate) fn no_quorum(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), help: None, code: exit::NO_QUORUM }
    }

    /// Says nothing more: what is wrong with the file was shown.
    pub(crate) const fn shown() -> Self {
        Self { error: None, help: None, code: exit::BAD_INPUT }
    }

    /// Adds what helps.
    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns it as text, with all that caused it.
    pub(crate) fn text(&self) -> String {
        self.error.as_ref().map_or_else(String::new, |error| format!("error: {error:#}"))
    }

    /// Shows it, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(error) = &self.error
            && !is_closed_pipe(error)
        {
            show::error(error, self.help.as_deref());
        }
        ExitCode::from(self.code)
    }
}

/// Returns whether the reader of this program's output has gone, such as `head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error: Some(error), help: None, code: exit::FAILED }
    }
}
