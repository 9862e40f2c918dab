//! Who must have a write before it is acknowledged, and who must promise before somebody else may
//! acknowledge: the two counts that always meet.

use std::collections::BTreeSet;

/// A host that has a copy of the database, by the number that the record gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub u32);

impl std::fmt::Display for Member {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "member {}", self.0)
    }
}

/// Besides the primary, any `needed` of `voters` have every acknowledged write on disk
/// (`synchronous_standby_names = 'ANY needed (voters)'`, PostgreSQL manual §20.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSet {
    /// At most the number of `voters`. 0: the primary's disk alone holds what is acknowledged.
    pub needed: usize,
    /// Never with the primary.
    pub voters: BTreeSet<Member>,
}

impl SyncSet {
    /// Returns how many of the primary and its voters must promise a later epoch, so that the
    /// primary can acknowledge nothing more and one of those that promised has all that it ever
    /// acknowledged: any so many meet every `needed` voters and the primary.
    #[must_use]
    pub fn promises_needed(&self) -> usize {
        (self.voters.len() + 1).saturating_sub(self.needed)
    }

    /// Returns whether `granted` of the voters are enough for the primary to serve.
    #[must_use]
    pub fn is_met_by(&self, granted: &BTreeSet<Member>) -> bool {
        self.voters.intersection(granted).count() >= self.needed
    }

    /// Returns the set for a group whose primary is another one of it.
    #[must_use]
    pub fn led_by(&self, chosen: Member, before: Member) -> Self {
        let mut voters = self.voters.clone();
        voters.insert(before);
        voters.remove(&chosen);
        Self { needed: self.needed, voters }
    }

    /// Returns the set by which elections stop every primary that is stopped by elections by
    /// either: all their voters, the fewer of their acknowledgements.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            needed: self.needed.min(other.needed),
            voters: self.voters.union(&other.voters).copied().collect(),
        }
    }

    /// Returns whether a primary that acknowledges by `self` is stopped, and all that it has
    /// acknowledged seen, by every election that counts by `counted`.
    #[must_use]
    pub fn meets(&self, counted: &Self) -> bool {
        let promises = counted.promises_needed();
        if promises > counted.voters.len() {
            return true; // The primary itself is among those that promise.
        }
        // The election that asks as few of our voters as it can. What it does not ask may hold
        // all copies of a write, and may acknowledge more.
        let strangers = counted.voters.difference(&self.voters).count();
        let asked = promises.saturating_sub(strangers);
        self.voters.len().saturating_sub(asked) < self.needed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(needed: usize, voters: &[u32]) -> SyncSet {
        SyncSet { needed, voters: voters.iter().copied().map(Member).collect() }
    }

    #[test]
    fn promises_and_acknowledgements_meet() {
        for (needed, voters, promises) in
            [(1, 2, 2), (2, 4, 3), (1, 1, 1), (2, 3, 2), (2, 2, 1), (0, 2, 3), (0, 0, 1)]
        {
            let voters: Vec<u32> = (2..2 + voters).collect();
            assert_eq!(set(needed, &voters).promises_needed(), promises, "{needed} {voters:?}");
        }
    }

    #[test]
    fn a_new_primary_leaves_its_place_to_the_old_one() {
        assert_eq!(set(1, &[2, 3]).led_by(Member(3), Member(1)), set(1, &[1, 2]));
        assert_eq!(set(1, &[2, 3]).led_by(Member(1), Member(1)), set(1, &[2, 3]));
    }

    fn subsets(of: &[Member]) -> impl Iterator<Item = BTreeSet<Member>> + '_ {
        (0_u32..1 << of.len()).map(|bits| {
            of.iter()
                .enumerate()
                .filter(|(place, _)| bits >> place & 1 == 1)
                .map(|(_, m)| *m)
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What may be in effect while a goal waits to be confirmed meets what elections count by.
        #[test]
        fn joined_sets_are_met_by_what_either_lets_pass(
            sets in proptest::collection::vec(
                (1_usize..4, proptest::collection::btree_set(2_u32..7, 1..5)), 1..5,
            ),
        ) {
            let mut counted: Option<SyncSet> = None;
            let mut in_effect = Vec::new();
            for (needed, voters) in sets {
                let goal = SyncSet {
                    needed: needed.min(voters.len()),
                    voters: voters.into_iter().map(Member).collect(),
                };
                counted = Some(counted.map_or_else(|| goal.clone(), |set| set.joined(&goal)));
                in_effect.push(goal);
                for used in &in_effect {
                    prop_assert!(counted.as_ref().is_some_and(|counted| used.meets(counted)));
                }
            }
        }

        /// Against the meaning itself: every set of members that may have a write, every set that
        /// may promise.
        #[test]
        fn meets_means_that_no_election_misses_a_write(
            used in (0_usize..4, proptest::collection::btree_set(2_u32..7, 0..5)),
            counted in (0_usize..4, proptest::collection::btree_set(2_u32..7, 0..5)),
        ) {
            let make = |(needed, voters): (usize, BTreeSet<u32>)| SyncSet {
                needed: needed.min(voters.len()),
                voters: voters.into_iter().map(Member).collect(),
            };
            let (used, counted) = (make(used), make(counted));
            let primary = Member(1);
            let group: Vec<Member> =
                std::iter::once(primary).chain(counted.voters.iter().copied()).collect();
            let mut holds = true;
            for promised in subsets(&group) {
                if promised.len() != counted.promises_needed() {
                    continue;
                }
                let used_voters: Vec<Member> = used.voters.iter().copied().collect();
                for acknowledging in subsets(&used_voters) {
                    if acknowledging.len() == used.needed {
                        holds &= promised.contains(&primary)
                            || acknowledging.iter().any(|member| promised.contains(member));
                    }
                }
            }
            prop_assert_eq!(used.meets(&counted), holds);
        }
    }
}
