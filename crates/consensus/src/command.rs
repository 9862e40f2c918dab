//! What clients ask.

pub use prost::bytes::Bytes;

use std::time::Duration;

/// The shell's name for a request, given back with its answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Whose keys: both spaces share one revision counter, but a key of one never meets the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The users' keys.
    User,
    /// The system's own: plans, revisions of the system file, journals. Has no history.
    System,
}

/// The name of a lease, never zero, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A change, under a name if it may have to be asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub change: Change,
    /// A name for this command: the same one again gives the first answer again.
    pub idempotency: Option<String>,
}

/// What a command does. All keys that one command changes get one and the same revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
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
        /// The lease with which the key goes, if any; the one it had before no longer counts.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete {
        /// Whose key.
        space: Space,
        /// The key.
        key: String,
        /// What must hold before.
        expect: Expect,
    },
    /// Compares, then does one of two lists of things, all or nothing.
    Transaction(Transaction),
    /// Makes a lease; its name is in the answer.
    GrantLease {
        /// How long it lasts after it was last kept alive.
        ttl: Duration,
    },
    /// Ends a lease, and every key that goes with it.
    RevokeLease {
        /// Which one.
        lease: LeaseId,
    },
    /// Forgets the history of the users' keys up to a revision.
    Compact {
        /// The last one to forget; at most the store's revision.
        through: u64,
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

/// One or the other list of operations on the users' keys, as all comparisons hold or one does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// What is compared.
    pub compare: Vec<Compare>,
    /// What is done, in order, if everything compares so.
    pub success: Vec<Operation>,
    /// What is done, in order, otherwise.
    pub failure: Vec<Operation>,
}

/// A comparison of a key with something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key. One that does not exist has the revision, creation, version and lease 0 and an
    /// empty value.
    pub key: String,
    /// How the key's side stands to the other.
    pub relation: Relation,
    /// Which side of the key, and the other side.
    pub operand: Operand,
}

/// How two sides of a comparison stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not.
    NotEqual,
    /// The key's side is less.
    Less,
    /// The key's side is greater.
    Greater,
}

/// What a key is compared by, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The revision of its last change.
    Revision(u64),
    /// The revision at which it was created.
    Created(u64),
    /// How often it was set since.
    Version(u64),
    /// Its value, byte by byte.
    Value(Bytes),
    /// Its lease, 0 without one.
    Lease(u64),
}

/// One thing that a transaction does. A later one sees what an earlier one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key; no other operation of the same list changes it.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease with which it goes, if any.
        lease: Option<LeaseId>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key; no other operation of the same list changes it.
        key: String,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: String,
    },
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
        /// As it was at this revision; as it is now if absent. Only the users' keys have a past.
        at: Option<u64>,
    },
    /// Every key that begins with `prefix`, in order.
    Range {
        /// Whose keys.
        space: Space,
        /// What they begin with.
        prefix: String,
        /// Only those behind this key: the last one of the page before.
        after: Option<String>,
        /// How many at most.
        limit: usize,
        /// As they were at this revision; as they are now if absent. Only the users' keys have a
        /// past.
        at: Option<u64>,
    },
    /// What has become of the users' keys since a revision, in order, always whole revisions.
    Changes {
        /// What the keys begin with.
        prefix: String,
        /// The last revision that is known already.
        after: u64,
        /// How many changes at most, unless a single revision has more.
        limit: usize,
    },
    /// A lease.
    Lease {
        /// Which one.
        lease: LeaseId,
    },
    /// Extends a lease by its whole time to live, from when the leader took the question in.
    KeepAlive {
        /// Which one.
        lease: LeaseId,
    },
}

impl Command {
    /// Returns a command without a name.
    #[must_use]
    pub const fn once(change: Change) -> Self {
        Self { change, idempotency: None }
    }

    /// Returns the key of the system that is changed.
    #[must_use]
    pub(crate) fn system_key(&self) -> Option<&str> {
        match &self.change {
            Change::Put { space: Space::System, key, .. }
            | Change::Delete { space: Space::System, key, .. } => Some(key),
            Change::Put { .. }
            | Change::Delete { .. }
            | Change::Transaction(_)
            | Change::GrantLease { .. }
            | Change::RevokeLease { .. }
            | Change::Compact { .. } => None,
        }
    }

    /// Calls `see` with each key that is named and the length of what it is set to or compared
    /// with.
    pub(crate) fn for_each_key(&self, mut see: impl FnMut(&str, usize)) {
        match &self.change {
            Change::Put { key, value, .. } => see(key, value.len()),
            Change::Delete { key, .. } => see(key, 0),
            Change::Transaction(transaction) => transaction.for_each_key(&mut see),
            Change::GrantLease { .. } | Change::RevokeLease { .. } | Change::Compact { .. } => {}
        }
    }
}

impl Transaction {
    fn for_each_key(&self, see: &mut impl FnMut(&str, usize)) {
        for Compare { key, operand, .. } in &self.compare {
            match operand {
                Operand::Value(value) => see(key, value.len()),
                Operand::Revision(_)
                | Operand::Created(_)
                | Operand::Version(_)
                | Operand::Lease(_) => see(key, 0),
            }
        }
        for operation in self.success.iter().chain(&self.failure) {
            match operation {
                Operation::Put { key, value, .. } => see(key, value.len()),
                Operation::Delete { key } | Operation::Get { key } => see(key, 0),
            }
        }
    }
}
