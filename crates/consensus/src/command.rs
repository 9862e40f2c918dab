//! What clients ask and what they are told.

pub use prost::bytes::Bytes;

use crate::settings::MemberId;

/// The shell's name for a request, given back with its answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Whose keys: both spaces share one revision counter, but a key of one never meets the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The users' keys.
    User,
    /// The system's own: plans, revisions of the system file, journals.
    System,
}

/// A change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets a key.
    Put {
        /// Whose key.
        space: Space,
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// What must hold before.
        expect: Expect,
        /// A name for this change: the same one again gives the first answer again.
        idempotency: Option<String>,
    },
    /// Removes a key.
    Delete {
        /// Whose key.
        space: Space,
        /// The key.
        key: String,
        /// What must hold before.
        expect: Expect,
        /// A name for this change: the same one again gives the first answer again.
        idempotency: Option<String>,
    },
}

/// A condition on the key that a command changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// None.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists and was last changed at this revision.
    Revision(u64),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// One key.
    Get {
        /// Whose key.
        space: Space,
        /// The key.
        key: String,
    },
    /// Every key that begins with `prefix`, in order.
    Prefix {
        /// Whose keys.
        space: Space,
        /// What they begin with.
        prefix: String,
        /// How many at most.
        limit: usize,
    },
}

/// A key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The store's revision when it was last changed.
    pub revision: u64,
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A put was applied.
    Written {
        /// The revision of the key since.
        revision: u64,
        /// Whether the key did not exist before.
        created: bool,
        /// Whether this is the first answer to an earlier request of the same idempotency key.
        replayed: bool,
    },
    /// A delete was applied.
    Deleted {
        /// The revision of the store since.
        revision: u64,
        /// Whether this is the first answer to an earlier request of the same idempotency key.
        replayed: bool,
    },
    /// The condition did not hold; nothing was changed.
    Conflict {
        /// The key's revision, if it exists.
        current: Option<u64>,
    },
    /// There was nothing to delete.
    NotFound,
    /// The idempotency key belongs to another request; nothing was changed.
    IdempotencyMismatch,
    /// The key that was asked for.
    Value {
        /// Its value.
        value: Bytes,
        /// Its revision.
        revision: u64,
        /// The revision of the store.
        store_revision: u64,
    },
    /// The key that was asked for does not exist.
    Absent {
        /// The revision of the store.
        store_revision: u64,
    },
    /// The keys that were asked for.
    Entries {
        /// In order of key.
        entries: Vec<KeyEntry>,
        /// Whether the limit cut the list.
        more: bool,
        /// The revision of the store.
        store_revision: u64,
    },
    /// This member does not lead. The request was surely not applied.
    NotLeader {
        /// Who leads, as far as known.
        leader: Option<MemberId>,
    },
    /// The member stopped leading. The request may or may not be applied, now or later.
    Unknown,
    /// Too much is waiting. The request was surely not applied.
    Overloaded,
    /// The key or the value is longer than allowed. The request was surely not applied.
    TooLarge,
}

impl Command {
    /// Returns whose key is changed.
    #[must_use]
    pub const fn space(&self) -> Space {
        match self {
            Self::Put { space, .. } | Self::Delete { space, .. } => *space,
        }
    }

    /// Returns the key that is changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// Returns the length of the new value, 0 for a delete.
    pub(crate) fn value_len(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }

    pub(crate) fn idempotency(&self) -> Option<&str> {
        match self {
            Self::Put { idempotency, .. } | Self::Delete { idempotency, .. } => {
                idempotency.as_deref()
            }
        }
    }
}
