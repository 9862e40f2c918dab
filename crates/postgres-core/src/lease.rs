//! The primary's lease: what its guard knows of the grants of the voters' guards.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::position::Epoch;
use crate::quorum::{Member, SyncSet};

/// One life of a guard's wish to hold a lease. A grant is good for the life that asked for it and
/// no other: what was granted to a PostgreSQL that was stopped starts none again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// What guards say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// May I be the primary of this epoch for one more term?
    Ask {
        /// The epoch.
        epoch: Epoch,
        /// Who asks.
        incarnation: Incarnation,
        /// Which question it is.
        nonce: u64,
    },
    /// You may.
    Grant {
        /// The epoch.
        epoch: Epoch,
        /// Who asked.
        incarnation: Incarnation,
        /// Which question was answered.
        nonce: u64,
    },
    /// The PostgreSQL of this epoch is dead, and what was granted to it and to every life of it
    /// before is given up.
    Stopped {
        /// The epoch.
        epoch: Epoch,
        /// The last life.
        incarnation: Incarnation,
    },
}

/// The grants of one incarnation.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    /// When the question of each number was asked.
    asked: BTreeMap<u64, Timestamp>,
    nonce: u64,
    /// Until when each voter's grant lasts, on this clock.
    until: BTreeMap<Member, Timestamp>,
}

impl Lease {
    pub(crate) const fn new(epoch: Epoch, incarnation: Incarnation) -> Self {
        Self { epoch, incarnation, asked: BTreeMap::new(), nonce: 0, until: BTreeMap::new() }
    }

    /// Numbers a question that is asked now, and forgets those whose answers would come too late.
    pub(crate) fn ask(&mut self, term: Duration, now: Timestamp) -> Message {
        self.asked.retain(|_, asked| now < *asked + term);
        self.nonce += 1;
        self.asked.insert(self.nonce, now);
        let Self { epoch, incarnation, nonce, .. } = *self;
        Message::Ask { epoch, incarnation, nonce }
    }

    /// Takes a grant: it lasts from when it was asked for, however late it is.
    pub(crate) fn take(&mut self, from: Member, nonce: u64, term: Duration) {
        if let Some(asked) = self.asked.get(&nonce) {
            let until = *asked + term;
            let known = self.until.entry(from).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// Returns until when so many voters of a set as it needs have granted; `None` if they never
    /// have. A set that needs none lasts forever.
    pub(crate) fn lasts_until(&self, set: &SyncSet) -> Option<Timestamp> {
        let Some(last) = set.needed.checked_sub(1) else {
            return Some(Timestamp::from_nanos(u64::MAX));
        };
        let mut ends: Vec<Timestamp> =
            set.voters.iter().filter_map(|voter| self.until.get(voter)).copied().collect();
        ends.sort_unstable_by(|left, right| right.cmp(left));
        ends.get(last).copied()
    }
}
