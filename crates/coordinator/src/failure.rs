//! Why a request has no answer.

use evenkeel_model::name::HostName;

/// Reports why a request has no answer. Only after [`Self::Unknown`] may it be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No leader with a quorum can be reached.
    #[error("no quorum of voters can be reached from host `{host}`, nothing was changed")]
    NoQuorum {
        /// The host that says so.
        host: HostName,
    },
    /// This host does not lead, and was asked not to forward. The other side tries elsewhere.
    #[error("host `{host}` does not lead, nothing was changed")]
    NotLeader {
        /// The host that says so.
        host: HostName,
        /// Who leads, as far as it knows.
        leader: Option<HostName>,
    },
    /// The leader's disk has no room for a change.
    #[error("the disk of host `{host}` is full, nothing was changed")]
    DiskFull {
        /// The host.
        host: HostName,
    },
    /// The store holds as much as it may.
    #[error("the store is full, nothing was changed")]
    StoreFull,
    /// Too many requests wait.
    #[error("host `{host}` has too many requests waiting, nothing was changed")]
    Overloaded {
        /// The host.
        host: HostName,
    },
    /// The key or the value is longer than allowed.
    #[error("the key or the value is too long, nothing was changed")]
    TooLarge,
    /// The connection or the leader was lost after the change was handed over.
    #[error("the change may or may not be applied: its answer was lost")]
    Unknown,
}
