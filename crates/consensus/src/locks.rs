//! Locks: who holds one, who waits, and what becomes of a place in the queue. The steps of a client
//! that wants one stand in [`acquisition`].
//!
//! A lock is a queue of keys in the users' key space, one a place: `locks/NAME/LEASE`, or
//! `locks/NAME/LEASE.own` with a lease that was made for the place alone. Whose key was created
//! first holds the lock; the revision of that creation is its token. So tokens rise from holder to
//! holder, none is given twice, and a place whose key is gone, with its lease or without, is no
//! place any more. Whoever was first stays first for as long as the key is there, so that a
//! transaction that compares `created` with the token is made by the holder or not at all.
//!
//! An election is a lock whose value is public: the holder leads.

pub mod acquisition;
#[cfg(test)]
mod tests;

use prost::bytes::Bytes;

use crate::answer::{KeyEntry, Version};
use crate::command::{Change, Compare, LeaseId, Operand, Operation, Relation, Transaction};

/// What the keys of all locks begin with.
const ROOT: &str = "locks/";
/// What the key of a place with a lease of its own ends with.
const OWN: &str = ".own";
/// Longest name in bytes.
pub const NAME_MAX: usize = 256;

/// The name of a lock: 1–256 bytes without a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockName(String);

impl LockName {
    /// Takes a name if it is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let fits = (1..=NAME_MAX).contains(&name.len()) && !name.contains('/');
        fits.then(|| Self(name.to_owned()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what the keys of the lock's places begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{ROOT}{}/", self.0)
    }

    fn key(&self, LeaseId(lease): LeaseId, owner: LeaseOwner) -> String {
        let end = match owner {
            LeaseOwner::Client => "",
            LeaseOwner::Place => OWN,
        };
        format!("{}{lease}{end}", self.prefix())
    }
}

/// Whose the lease of a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOwner {
    /// The client's, who made it and may use it for more.
    Client,
    /// The place's: it was made for it and ends with it.
    Place,
}

/// A place in the queue of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its key.
    pub key: String,
    /// The lease with which it goes.
    pub lease: LeaseId,
    /// Whose that lease is.
    pub owner: LeaseOwner,
    /// The state of its key.
    pub version: Version,
}

impl Place {
    /// Reads a key of a lock; anything else that somebody has put there is none.
    fn of(prefix: &str, KeyEntry { key, version }: KeyEntry) -> Option<Self> {
        let rest = key.strip_prefix(prefix)?;
        let (lease, owner) = match rest.strip_suffix(OWN) {
            Some(lease) => (lease, LeaseOwner::Place),
            None => (rest, LeaseOwner::Client),
        };
        let lease = LeaseId(lease.parse().ok()?);
        (version.lease == Some(lease)).then_some(Self { key, lease, owner, version })
    }

    /// Returns the revision at which the place was taken, which is its fencing token.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.version.created
    }

    /// Returns what holds for as long as the place is there.
    #[must_use]
    pub fn guard(&self) -> Compare {
        let operand = Operand::Created(self.token());
        Compare { key: self.key.clone(), relation: Relation::Equal, operand }
    }

    /// Returns the change that gives the place up, and does nothing once it is gone.
    #[must_use]
    pub fn release(&self) -> Change {
        match self.owner {
            LeaseOwner::Place => Change::RevokeLease { lease: self.lease },
            LeaseOwner::Client => self.if_there(Operation::Delete { key: self.key.clone() }),
        }
    }

    /// Returns the change that gives the place another value, and does nothing once it is gone.
    #[must_use]
    pub fn proclaim(&self, value: Bytes) -> Change {
        let (key, lease) = (self.key.clone(), Some(self.lease));
        self.if_there(Operation::Put { key, value, lease })
    }

    fn if_there(&self, operation: Operation) -> Change {
        Change::Transaction(Transaction {
            compare: vec![self.guard()],
            success: vec![operation],
            failure: Vec::new(),
        })
    }
}

/// The places of a lock, who holds it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue(Vec<Place>);

impl Queue {
    /// Reads the keys under a lock's [`LockName::prefix`].
    #[must_use]
    pub fn of(name: &LockName, entries: impl IntoIterator<Item = KeyEntry>) -> Self {
        let prefix = name.prefix();
        let places = entries.into_iter().filter_map(|entry| Place::of(&prefix, entry));
        let mut places: Vec<Place> = places.collect();
        places.sort_by(|one, other| (one.token(), &one.key).cmp(&(other.token(), &other.key)));
        Self(places)
    }

    /// Returns the place that holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<&Place> {
        self.0.first()
    }

    /// Returns all places in order.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.0
    }

    /// Returns the place with this token.
    #[must_use]
    pub fn with_token(&self, token: u64) -> Option<&Place> {
        self.0.iter().find(|place| place.token() == token)
    }

    /// Returns how many places are before the first one of a lease.
    fn ahead_of(&self, lease: LeaseId) -> Option<usize> {
        self.0.iter().position(|place| place.lease == lease)
    }
}
