//! When leases run out, as the leader knows it.
//!
//! ```text
//!            granted, or taken over          ran out            revocation applied
//!  unknown ───────────────────────▶ running ─────────▶ revoking ───────────────────▶ gone
//!                                    │    ▲
//!                                    └────┘ kept alive
//! ```
//! A new leader gives every lease its whole time to live: it does not know when it was last kept
//! alive, and an election must end no lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::command::LeaseId;

/// How long a revocation that could not be proposed waits.
const RETRY: Duration = Duration::from_millis(100);

/// The deadlines of all leases; empty at a member that does not lead.
#[derive(Debug, Default)]
pub(super) struct LeaseClock {
    deadlines: BTreeMap<LeaseId, Timestamp>,
    /// The running ones, the next to run out first.
    order: BTreeSet<(Timestamp, LeaseId)>,
}

impl LeaseClock {
    /// Begins to lead: every lease runs from `now`.
    pub(super) fn begin(
        &mut self,
        leases: impl Iterator<Item = (LeaseId, Duration)>,
        now: Timestamp,
    ) {
        self.end();
        for (lease, ttl) in leases {
            self.extend(lease, now + ttl);
        }
    }

    /// Ceases to lead.
    pub(super) fn end(&mut self) {
        self.deadlines.clear();
        self.order.clear();
    }

    /// Lets a lease run at least until `deadline`, unless it is being revoked.
    pub(super) fn extend(&mut self, lease: LeaseId, deadline: Timestamp) {
        match self.deadlines.get(&lease).copied() {
            Some(known) if known >= deadline || !self.order.remove(&(known, lease)) => {}
            Some(_) | None => {
                self.deadlines.insert(lease, deadline);
                self.order.insert((deadline, lease));
            }
        }
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        if let Some(deadline) = self.deadlines.remove(&lease) {
            self.order.remove(&(deadline, lease));
        }
    }

    /// Returns how long a lease lasts yet; `None` when it is not running.
    pub(super) fn left(&self, lease: LeaseId, now: Timestamp) -> Option<Duration> {
        let deadline = *self.deadlines.get(&lease)?;
        self.order.contains(&(deadline, lease)).then(|| deadline.since(now))
    }

    /// Returns when the next lease runs out.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a lease that has run out: it is being revoked from here on.
    pub(super) fn take_expired(&mut self, now: Timestamp) -> Option<LeaseId> {
        let (deadline, lease) = *self.order.first()?;
        if deadline > now {
            return None;
        }
        self.order.pop_first();
        Some(lease)
    }

    /// Tries a revocation again that could not be proposed.
    pub(super) fn retry(&mut self, lease: LeaseId, now: Timestamp) {
        let deadline = now + RETRY;
        self.deadlines.insert(lease, deadline);
        self.order.insert((deadline, lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_runs_out_once_unless_it_is_kept_alive() {
        let (mut clock, one, two) = (LeaseClock::default(), LeaseId(1), LeaseId(2));
        clock.begin(
            [(one, Duration::from_secs(1)), (two, Duration::from_secs(2))].into_iter(),
            at(0),
        );
        assert_eq!(clock.poll_timeout(), Some(at(1000)));
        clock.extend(one, at(1500));
        clock.extend(one, at(700));
        assert_eq!(clock.left(one, at(500)), Some(Duration::from_secs(1)));
        assert_eq!(clock.take_expired(at(1499)), None);
        assert_eq!(clock.take_expired(at(1500)), Some(one));
        assert_eq!(clock.take_expired(at(1500)), None);
        // What is being revoked is not kept alive any more.
        clock.extend(one, at(9000));
        assert_eq!(clock.left(one, at(1500)), None);
        assert_eq!(clock.poll_timeout(), Some(at(2000)));
        clock.remove(two);
        clock.retry(one, at(1500));
        assert_eq!(clock.poll_timeout(), Some(at(1600)));
        clock.end();
        assert_eq!(clock.poll_timeout(), None);
    }
}
