//! Leases: keys that go together when nobody keeps them alive any more.
//!
//! What is replicated is which leases there are and which keys go with them. When one runs out is
//! known to the leader alone, which then has it revoked like anybody else could.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::KeySpace;
use crate::answer::{Answer, Refused};
use crate::command::{LeaseId, Space};

/// The shortest time to live: a lease must outlast an election, or each would end it.
pub(super) const TTL_MIN: Duration = Duration::from_secs(1);

/// The longest time to live.
pub(super) const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Every lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leases {
    next: u64,
    leases: BTreeMap<LeaseId, Lease>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    ttl: Duration,
    keys: BTreeSet<(Space, String)>,
}

impl Leases {
    pub(super) const fn new() -> Self {
        Self { next: 1, leases: BTreeMap::new() }
    }

    /// Restores leases without keys: each key brings its own back.
    pub(super) fn restored(next: u64, leases: Vec<(LeaseId, Duration)>) -> Self {
        let lease = |(id, ttl)| (id, Lease { ttl, keys: BTreeSet::new() });
        Self { next, leases: leases.into_iter().map(lease).collect() }
    }

    /// Returns the name of the next lease.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Leaves out as many names.
    pub(super) const fn skip(&mut self, names: u64) {
        self.next += names;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LeaseId, Duration)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    pub(super) fn attach(&mut self, id: LeaseId, space: Space, key: &str) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert((space, key.to_owned()));
        }
    }

    pub(super) fn detach(&mut self, id: LeaseId, space: Space, key: &str) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(&(space, key.to_owned()));
        }
    }
}

impl KeySpace {
    pub(super) fn grant_lease(&mut self, ttl: Duration) -> Answer {
        if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
            return Answer::Refused(Refused::TimeToLive);
        }
        if self.leases.leases.len() >= self.limits.leases_max {
            return Answer::Refused(Refused::TooManyLeases);
        }
        let lease = LeaseId(self.leases.next);
        self.leases.next += 1;
        self.leases.leases.insert(lease, Lease { ttl, keys: BTreeSet::new() });
        Answer::Granted { lease, replayed: false }
    }

    pub(super) fn revoke_lease(&mut self, lease: LeaseId) -> Answer {
        let Some(Lease { keys, .. }) = self.leases.leases.remove(&lease) else {
            return Answer::NoLease { lease };
        };
        let revision = self.revision + 1;
        for (space, key) in &keys {
            self.unset(revision, *space, key);
        }
        if !keys.is_empty() {
            self.end_revision(revision);
        }
        Answer::Revoked { revision: self.revision, replayed: false }
    }

    /// Checks that some keys can go with a lease, those included that do already.
    pub(super) fn can_attach<'a>(
        &self,
        lease: LeaseId,
        space: Space,
        keys: impl Iterator<Item = &'a String>,
    ) -> Result<(), Answer> {
        let Some(found) = self.leases.leases.get(&lease) else {
            return Err(Answer::NoLease { lease });
        };
        let new = keys.filter(|key| !found.keys.contains(&(space, (*key).clone()))).count();
        if found.keys.len() + new > self.limits.lease_keys_max {
            return Err(Answer::Refused(Refused::TooManyKeys));
        }
        Ok(())
    }

    /// Returns a lease's time to live.
    pub(crate) fn lease_ttl(&self, lease: LeaseId) -> Option<Duration> {
        self.leases.leases.get(&lease).map(|found| found.ttl)
    }

    pub(super) fn lease(&self, lease: LeaseId) -> Answer {
        let Some(found) = self.leases.leases.get(&lease) else {
            return Answer::NoLease { lease };
        };
        let users = found.keys.iter().filter(|(space, _)| *space == Space::User);
        let keys = users.map(|(_, key)| key.clone()).collect();
        Answer::Lease { ttl: found.ttl, left: None, keys }
    }
}
