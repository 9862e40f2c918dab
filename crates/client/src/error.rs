//! Why a request did not do what it was asked.

/// What a server said when it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status; 0 when a watch was ended by the server after it had begun.
    pub status: u16,
    /// The code, for programs; empty when something else than Evenkeel answered.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// The revision of the key, if its condition did not hold and it exists.
    pub revision: Option<u64>,
}

/// Reports why a request did not do what it was asked. A change was surely not made, except after
/// [`Self::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A server refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody answered.
    #[error("no host answers: {cause}")]
    Unreachable {
        /// What happened last.
        cause: String,
    },
    /// A change was sent, and its answer was lost.
    #[error("the change may or may not be applied: {cause}")]
    Unknown {
        /// What happened last.
        cause: String,
    },
    /// The answer to a question can't be read.
    #[error("the answer can't be read: {cause}")]
    Malformed {
        /// What is wrong with it.
        cause: String,
    },
    /// The request makes no sense; nothing was sent.
    #[error("{problem}")]
    BadRequest {
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Returns what the server said, if it was one that refused.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::Malformed { .. }
            | Self::BadRequest { .. } => None,
        }
    }

    /// Returns the code of the server's refusal, or nothing.
    #[must_use]
    pub fn code(&self) -> &str {
        self.refusal().map_or("", |refusal| &refusal.code)
    }

    /// Returns whether a change may be applied all the same.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Returns whether no quorum of voters was there to answer.
    #[must_use]
    pub fn is_no_quorum(&self) -> bool {
        self.code() == "no-quorum"
    }

    pub(crate) fn malformed(cause: impl Into<String>) -> Self {
        Self::Malformed { cause: cause.into() }
    }

    pub(crate) fn bad_request(problem: impl Into<String>) -> Self {
        Self::BadRequest { problem: problem.into() }
    }
}
