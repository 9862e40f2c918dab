//! What clients are told.

use std::time::Duration;

use prost::bytes::Bytes;

use crate::command::LeaseId;
use crate::settings::MemberId;

/// A key as it stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key.
    pub key: String,
    /// What is known of it.
    pub version: Version,
}

/// The state of a key between two changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its value.
    pub value: Bytes,
    /// The store's revision when it was last changed.
    pub revision: u64,
    /// The store's revision when it was created: since then it was always there.
    pub created: u64,
    /// How often it was set since, the first time included.
    pub count: u64,
    /// The lease with which it goes.
    pub lease: Option<LeaseId>,
}

/// Something that became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The store's revision since. Several keys may have changed with one.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// What it was before; `None` if it was not there.
    pub before: Option<Version>,
    /// What it is since; `None` if it is gone.
    pub after: Option<Version>,
}

/// What one operation of a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// A key was set.
    Written {
        /// Whether it did not exist before.
        created: bool,
    },
    /// A key was to be removed.
    Deleted {
        /// Whether it was there.
        existed: bool,
    },
    /// A key was read.
    Read {
        /// The key, if it is there.
        version: Option<Version>,
    },
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
    /// A transaction was applied.
    Transacted {
        /// Whether every comparison held.
        succeeded: bool,
        /// What each operation came to; nothing when this is a replay whose results were too long
        /// to be remembered.
        results: Vec<OperationResult>,
        /// The revision of the store since.
        revision: u64,
        /// Whether this is the first answer to an earlier request of the same idempotency key.
        replayed: bool,
    },
    /// A lease was made.
    Granted {
        /// Its name.
        lease: LeaseId,
        /// Whether this is the first answer to an earlier request of the same idempotency key.
        replayed: bool,
    },
    /// A lease has ended, and its keys are gone.
    Revoked {
        /// The revision of the store since.
        revision: u64,
        /// Whether this is the first answer to an earlier request of the same idempotency key.
        replayed: bool,
    },
    /// There is no such lease (any more); nothing was changed.
    NoLease {
        /// Which one.
        lease: LeaseId,
    },
    /// History was forgotten.
    Forgotten {
        /// The last forgotten revision.
        through: u64,
    },
    /// The idempotency key belongs to another request; nothing was changed.
    IdempotencyMismatch,
    /// The command makes no sense; nothing was changed.
    Refused(Refused),
    /// The key that was asked for.
    Value {
        /// What is known of it.
        version: Version,
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
        /// The revision of the store, or the one that was asked for.
        store_revision: u64,
    },
    /// What has become of keys.
    Changes {
        /// In order of revision, and within one in the order in which they were made.
        changes: Vec<KeyChange>,
        /// Everything up to this revision has been told.
        through: u64,
    },
    /// The revision that was asked for is forgotten.
    Compacted {
        /// The oldest that is still known.
        oldest: u64,
    },
    /// The revision that was asked for is not there yet.
    Future {
        /// The revision of the store.
        store_revision: u64,
    },
    /// A lease that lives.
    Lease {
        /// How long it lasts after it was last kept alive.
        ttl: Duration,
        /// How long it lasts yet; only its leader knows.
        left: Option<Duration>,
        /// The users' keys that go with it.
        keys: Vec<String>,
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

impl Answer {
    /// Returns the revision of the store that an answer names.
    #[must_use]
    pub const fn store_revision(&self) -> Option<u64> {
        match self {
            Self::Written { revision, .. }
            | Self::Deleted { revision, .. }
            | Self::Transacted { revision, .. }
            | Self::Revoked { revision, .. } => Some(*revision),
            Self::Absent { store_revision }
            | Self::Value { store_revision, .. }
            | Self::Entries { store_revision, .. }
            | Self::Future { store_revision } => Some(*store_revision),
            Self::Conflict { .. }
            | Self::NotFound
            | Self::Granted { .. }
            | Self::NoLease { .. }
            | Self::Forgotten { .. }
            | Self::IdempotencyMismatch
            | Self::Refused(_)
            | Self::Changes { .. }
            | Self::Compacted { .. }
            | Self::Lease { .. }
            | Self::NotLeader { .. }
            | Self::Unknown
            | Self::Overloaded
            | Self::TooLarge => None,
        }
    }
}

/// Why a command makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A list of a transaction changes a key twice.
    KeyTwice,
    /// More operations and comparisons than allowed.
    TooManyOperations,
    /// More leases than allowed.
    TooManyLeases,
    /// More keys on one lease than allowed.
    TooManyKeys,
    /// A time to live outside of what is allowed.
    TimeToLive,
    /// A revision that is not there yet.
    FutureRevision,
}
