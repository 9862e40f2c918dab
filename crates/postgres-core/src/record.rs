//! What the store holds of one cluster, and the only ways to change it.
//!
//! ```text
//!            the primary fails                 enough have promised
//!  Running ──────────────────▶ Preparing ─────────────────────────▶ Starting
//!     ▲                         ▲                                    │   │
//!     │                         └──────── the chosen one fails ──────┘   │
//!     └────────────────── its voters have all of its log ────────────────┘
//! ```
//!
//! Every change is a compare-and-set on the whole record: two directors cannot both have theirs.

use std::collections::BTreeSet;

use crate::position::{Epoch, History, Position, Timeline};
use crate::quorum::{Member, SyncSet};

/// How far an epoch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its members promise. [`Record::primary`] and [`Record::counted`] are those of before.
    Preparing,
    /// A primary was chosen, once for the epoch.
    Starting,
    /// The primary serves.
    Running,
}

/// The voters by which a primary is to acknowledge and to hold its lease. Every set that may be in
/// effect meets the one by which elections count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The voters.
    pub set: SyncSet,
    /// Counts the goals of all epochs.
    pub number: u64,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The current epoch.
    pub epoch: Epoch,
    /// How far it has come.
    pub phase: Phase,
    /// The primary, or the last one while the epoch has none.
    pub primary: Member,
    /// The voters by which an election counts.
    pub counted: SyncSet,
    /// What the primary is to use.
    pub goal: Goal,
    /// Who was asked to take over in good order.
    pub handover: Option<Member>,
    /// Whose logs may be rewound: from then on they count in no election until they follow.
    pub rewinding: BTreeSet<Member>,
    /// Every timeline.
    pub history: History,
}

impl Record {
    /// Returns the record of a cluster that `primary` has just created and that serves.
    #[must_use]
    pub fn begin(primary: Member, set: SyncSet) -> Self {
        Self {
            epoch: Epoch(1),
            phase: Phase::Running,
            primary,
            counted: set.clone(),
            goal: Goal { set, number: 1 },
            handover: None,
            rewinding: BTreeSet::new(),
            history: History::begin(Epoch(1), Timeline(1)),
        }
    }

    /// Returns whether `member` is one of those whose promises count.
    #[must_use]
    pub fn is_in_group(&self, member: Member) -> bool {
        member == self.primary || self.counted.voters.contains(&member)
    }

    /// Returns the group whose promises count: the primary and its voters.
    pub fn group(&self) -> impl Iterator<Item = Member> + '_ {
        std::iter::once(self.primary).chain(self.counted.voters.iter().copied())
    }

    /// Returns whether `member` is, or is to become, the primary of the current epoch.
    #[must_use]
    pub fn is_led_by(&self, member: Member) -> bool {
        self.phase != Phase::Preparing && self.primary == member
    }

    /// Begins the next epoch: from now on its members promise.
    #[must_use]
    pub fn prepared(&self) -> Self {
        Self { epoch: self.epoch.next(), phase: Phase::Preparing, ..self.clone() }
    }

    /// Chooses the primary of an epoch that has none, with where its log ends. Everybody else of
    /// the group stays a voter that elections count, whether its log was verified or not.
    #[must_use]
    pub fn chosen(&self, member: Member, position: Position) -> Self {
        debug_assert!(self.phase == Phase::Preparing, "one choice an epoch");
        let set = self.counted.led_by(member, self.primary);
        // Its log is the measure of all others now.
        let rewinding = self.rewinding.iter().copied().filter(|other| *other != member).collect();
        Self {
            phase: Phase::Starting,
            primary: member,
            counted: set.clone(),
            goal: self.next_goal(set),
            handover: None,
            rewinding,
            history: self.history.with(self.epoch, position),
            ..self.clone()
        }
    }

    /// Lets the chosen primary serve: enough of its voters have all of its log.
    #[must_use]
    pub fn running(&self) -> Self {
        debug_assert!(self.phase == Phase::Starting, "only a chosen primary serves");
        Self { phase: Phase::Running, ..self.clone() }
    }

    /// Sets what the primary is to use. Elections count by all that may be in effect from now on,
    /// before the primary hears of it: they ask more members, never fewer, until
    /// [`Self::confirmed`]. `None` if nothing would change, if too few voters would be left, or if
    /// voters were to be removed from a primary that does not serve yet.
    #[must_use]
    pub fn with_goal(&self, set: SyncSet) -> Option<Self> {
        let counted = self.counted.joined(&set);
        let removes = set != counted;
        if set == self.goal.set
            || set.needed > set.voters.len()
            || set.voters.contains(&self.primary)
            || removes && self.phase != Phase::Running
        {
            return None;
        }
        assert!(set.meets(&counted) && self.goal.set.meets(&counted), "elections miss a write");
        Some(Self { counted, goal: self.next_goal(set), ..self.clone() })
    }

    const fn next_goal(&self, set: SyncSet) -> Goal {
        Goal { set, number: self.goal.number + 1 }
    }

    /// Counts elections by the goal, now that the primary uses it and `needed` of its voters have
    /// all of the log.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        Self { counted: self.goal.set.clone(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use crate::position::Lsn;

    use super::*;

    fn set(needed: usize, voters: &[u32]) -> SyncSet {
        SyncSet { needed, voters: voters.iter().copied().map(Member).collect() }
    }

    #[test]
    fn elections_count_by_all_that_may_be_in_effect() {
        let record = Record::begin(Member(1), set(2, &[2, 3, 4, 5]));
        for (goal, counted) in [
            (set(2, &[2, 3, 4]), Some(set(2, &[2, 3, 4, 5]))),
            (set(2, &[2, 3, 4, 5, 6]), Some(set(2, &[2, 3, 4, 5, 6]))),
            (set(1, &[2, 3, 4, 5]), Some(set(1, &[2, 3, 4, 5]))),
            (set(3, &[2, 3, 4, 5]), Some(set(2, &[2, 3, 4, 5]))),
            (set(1, &[2, 6]), Some(set(1, &[2, 3, 4, 5, 6]))),
            // Nothing new, more than there are, the primary itself.
            (set(2, &[2, 3, 4, 5]), None),
            (set(3, &[2, 3]), None),
            (set(1, &[1, 2]), None),
        ] {
            let next = record.with_goal(goal.clone());
            assert_eq!(next.as_ref().map(|next| &next.counted), counted.as_ref(), "{goal:?}");
            if let Some(next) = next {
                assert_eq!((next.goal.number, next.confirmed().counted), (2, goal));
            }
        }
    }

    #[test]
    fn a_primary_that_does_not_serve_yet_only_gets_more_voters() {
        let position = Position { epoch: Epoch(1), lsn: Lsn(9) };
        let starting =
            Record::begin(Member(1), set(1, &[2, 3])).prepared().chosen(Member(2), position);
        assert_eq!(starting.counted, set(1, &[1, 3]));
        assert!(starting.with_goal(set(1, &[1])).is_none());
        assert!(starting.with_goal(set(1, &[1, 3, 4])).is_some());
        assert!(starting.running().with_goal(set(1, &[1])).is_some());
    }

    #[test]
    fn every_choice_has_a_timeline_of_its_own() {
        let position = Position { epoch: Epoch(1), lsn: Lsn(9) };
        let record = Record::begin(Member(1), set(1, &[2, 3]));
        let first = record.prepared().chosen(Member(2), position);
        // It failed before it served, and somebody else goes on from where both came from.
        let second = first.prepared().chosen(Member(3), position);
        let timelines: Vec<Timeline> =
            second.history.branches().iter().map(|branch| branch.timeline).collect();
        assert_eq!(timelines, [1, 2, 3].map(Timeline));
        assert_eq!((second.epoch, second.primary), (Epoch(3), Member(3)));
        assert!(second.is_in_group(Member(1)) && second.is_in_group(Member(2)));
    }

    #[test]
    fn whoever_is_chosen_is_not_rewound() {
        let mut record = Record::begin(Member(1), set(1, &[2, 3]));
        record.rewinding = [Member(2), Member(3)].into();
        let position = Position { epoch: Epoch(1), lsn: Lsn(9) };
        assert_eq!(record.prepared().chosen(Member(2), position).rewinding, [Member(3)].into());
    }
}
