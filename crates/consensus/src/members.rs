//! Who takes part, and how that changes while everybody goes on (Raft thesis, chapter 4).
//!
//! A change is an entry of the log. Whoever joins does so as a learner: it gets the log and counts
//! for nothing until it holds what the others hold. A learner that takes a voter's place does so in
//! one step, by joint consensus (thesis §4.3): between its two entries a decision needs a majority
//! of the old voters and one of the new ones, so there is no moment at which the loss of one more
//! member would stop all.
//!
//! ```text
//!            AddLearner             Promote, alone or in place of a voter
//!  unknown ────────────▶ learner ─────────────────────────────▶ voter
//!     ▲                     │                                      │
//!     └───── RemoveLearner ─┘◀─────────── RemoveVoter ─────────────┘ (unknown again)
//! ```

use std::collections::BTreeSet;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use thiserror::Error;

use crate::settings::MemberId;

/// Who takes part at one position of the log. All lists are in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose majority decides.
    pub voters: Vec<MemberId>,
    /// While a change is under way, the voters before it: a majority of them is needed too.
    pub outgoing: Vec<MemberId>,
    /// Those that only get the log.
    pub learners: Vec<MemberId>,
}

impl Members {
    /// Returns a group of these voters and nobody else.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = MemberId>) -> Self {
        let voters: BTreeSet<MemberId> = voters.into_iter().collect();
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Returns whether a change is under way, so that two majorities are needed.
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns whether a member's vote counts.
    #[must_use]
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Returns whether a member gets the log.
    #[must_use]
    pub fn contains(&self, member: MemberId) -> bool {
        self.is_voter(member) || self.learners.contains(&member)
    }

    /// Returns whether those of which `takes_part` is true can decide.
    #[must_use]
    pub fn is_quorum(&self, takes_part: impl Fn(MemberId) -> bool) -> bool {
        let is_majority = |of: &[MemberId]| {
            let count = of.iter().filter(|member| takes_part(**member)).count();
            of.is_empty() || count > of.len() / 2
        };
        !self.voters.is_empty() && is_majority(&self.voters) && is_majority(&self.outgoing)
    }

    /// Returns what is left of a change, when it is done.
    #[must_use]
    fn after(&self, change: MembersChange) -> Self {
        let mut after = Self { outgoing: Vec::new(), ..self.clone() };
        match change {
            MembersChange::AddLearner(learner) => after.learners.push(learner),
            MembersChange::RemoveLearner(learner) => {
                after.learners.retain(|member| *member != learner);
            }
            MembersChange::Promote { learner, in_place_of } => {
                after.learners.retain(|member| *member != learner);
                after.voters.retain(|member| Some(*member) != in_place_of);
                after.voters.push(learner);
            }
            MembersChange::RemoveVoter(voter) => after.voters.retain(|member| *member != voter),
        }
        after.voters.sort_unstable();
        after.learners.sort_unstable();
        after
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let members = |ids: &[u64]| {
            let ids: BTreeSet<MemberId> = ids.iter().copied().map(MemberId).collect();
            ids.into_iter().collect()
        };
        Self {
            voters: members(&state.voters),
            outgoing: members(&state.voters_outgoing),
            learners: members(&state.learners),
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let ids = |members: &[MemberId]| members.iter().map(|member| member.0).collect();
        ConfState {
            voters: ids(&self.voters),
            voters_outgoing: ids(&self.outgoing),
            learners: ids(&self.learners),
            auto_leave: self.is_joint(),
            ..ConfState::default()
        }
    }

    /// Returns whether this can be a group: voters there are, and nobody is in two roles or zero.
    pub(crate) fn is_sound(&self) -> bool {
        let distinct = |members: &[MemberId]| members.windows(2).all(|pair| pair[0] < pair[1]);
        let alone = |learner: &MemberId| !self.is_voter(*learner);
        !self.voters.is_empty()
            && [&self.voters, &self.outgoing, &self.learners].iter().all(|list| distinct(list))
            && self.learners.iter().all(alone)
            && !self.contains(MemberId(0))
    }
}

/// One step from one group to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MembersChange {
    /// Somebody gets the log from now on.
    AddLearner(MemberId),
    /// A learner gets it no more.
    RemoveLearner(MemberId),
    /// A learner that holds what the others hold becomes a voter.
    Promote {
        /// The learner.
        learner: MemberId,
        /// The voter that goes in the same step.
        in_place_of: Option<MemberId>,
    },
    /// A voter goes.
    RemoveVoter(MemberId),
}

impl MembersChange {
    pub(crate) fn to_raft(self) -> ConfChangeV2 {
        let single = |kind, member: MemberId| ConfChangeSingle {
            change_type: kind,
            node_id: member.0,
            ..ConfChangeSingle::default()
        };
        let changes = match self {
            Self::AddLearner(member) => vec![single(ConfChangeType::AddLearnerNode, member)],
            Self::RemoveLearner(member) | Self::RemoveVoter(member) => {
                vec![single(ConfChangeType::RemoveNode, member)]
            }
            Self::Promote { learner, in_place_of } => {
                let added = single(ConfChangeType::AddNode, learner);
                let removed = in_place_of.map(|old| single(ConfChangeType::RemoveNode, old));
                std::iter::once(added).chain(removed).collect()
            }
        };
        ConfChangeV2 { changes: changes.into(), ..ConfChangeV2::default() }
    }
}

/// Why a change can't be made, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MembersRefusal {
    /// Only the leader makes changes.
    #[error("this member does not lead")]
    NotLeader,
    /// There is one at a time.
    #[error("another change is under way")]
    UnderWay,
    /// It takes part already.
    #[error("{0} takes part already")]
    TakesPart(MemberId),
    /// It is no learner.
    #[error("{0} is no learner")]
    NotLearner(MemberId),
    /// It is no voter.
    #[error("{0} is no voter")]
    NotVoter(MemberId),
    /// It does not hold yet what the others hold, or was not heard lately.
    #[error("{0} does not hold yet what the others hold")]
    Behind(MemberId),
    /// Of the voters that would be left, too few were heard lately to decide anything.
    #[error("the voters that are left and reachable would be no majority")]
    NoQuorum,
    /// The leader must hand over first.
    #[error("{0} leads and must hand over first")]
    Leads(MemberId),
}

/// What the leader knows of its group when it is asked for a change.
pub(crate) struct Standing<'a> {
    pub(crate) leader: MemberId,
    pub(crate) members: &'a Members,
    /// Whether a change is in the log and not applied.
    pub(crate) under_way: bool,
    /// Whether a member was heard lately.
    pub(crate) is_heard: &'a dyn Fn(MemberId) -> bool,
    /// Whether a member holds about what the leader holds.
    pub(crate) is_level: &'a dyn Fn(MemberId) -> bool,
}

impl Standing<'_> {
    /// Decides whether a change may be made now.
    pub(crate) fn check(&self, change: MembersChange) -> Result<(), MembersRefusal> {
        let members = self.members;
        let is_learner = |member| members.learners.contains(&member);
        let is_voter = |member| members.voters.contains(&member);
        if self.under_way || members.is_joint() {
            return Err(MembersRefusal::UnderWay);
        }
        match change {
            MembersChange::AddLearner(member) if members.contains(member) => {
                Err(MembersRefusal::TakesPart(member))
            }
            MembersChange::RemoveLearner(member) if !is_learner(member) => {
                Err(MembersRefusal::NotLearner(member))
            }
            MembersChange::AddLearner(_) | MembersChange::RemoveLearner(_) => Ok(()),
            MembersChange::Promote { learner, .. } if !is_learner(learner) => {
                Err(MembersRefusal::NotLearner(learner))
            }
            MembersChange::Promote { learner, .. }
                if !(self.is_level)(learner) || !(self.is_heard)(learner) =>
            {
                Err(MembersRefusal::Behind(learner))
            }
            MembersChange::Promote { in_place_of: Some(old), .. }
            | MembersChange::RemoveVoter(old)
                if !is_voter(old) =>
            {
                Err(MembersRefusal::NotVoter(old))
            }
            MembersChange::Promote { in_place_of: Some(old), .. }
            | MembersChange::RemoveVoter(old)
                if old == self.leader =>
            {
                Err(MembersRefusal::Leads(old))
            }
            MembersChange::Promote { .. } | MembersChange::RemoveVoter(_) => {
                let after = members.after(change);
                let heard = |member| member == self.leader || (self.is_heard)(member);
                if after.is_quorum(heard) { Ok(()) } else { Err(MembersRefusal::NoQuorum) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(members: &[u64]) -> Vec<MemberId> {
        members.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn a_quorum_needs_a_majority_of_each_group_of_voters() {
        let check = |voters: &[u64], outgoing: &[u64], there: &[u64], expected: bool| {
            let members =
                Members { voters: ids(voters), outgoing: ids(outgoing), learners: ids(&[9]) };
            let found = members.is_quorum(|member| there.contains(&member.0));
            assert_eq!(found, expected, "{there:?} of {voters:?} and {outgoing:?}");
        };
        check(&[1, 2, 3], &[], &[1, 2], true);
        check(&[1, 2, 3], &[], &[1, 9], false);
        check(&[1, 2, 3, 4], &[], &[1, 2], false);
        check(&[1, 2, 4], &[1, 2, 3], &[1, 2], true);
        check(&[1, 2, 4], &[1, 2, 3], &[1, 4], false);
        check(&[1, 4, 5], &[1, 2, 3], &[1, 2, 4], true);
        check(&[], &[], &[1], false);
    }

    fn check(change: MembersChange, expected: Result<(), MembersRefusal>) {
        // 1 leads, 3 is silent; 4 is level, 5 is behind, 6 is silent.
        let members =
            Members { voters: ids(&[1, 2, 3]), learners: ids(&[4, 5, 6]), ..Members::default() };
        let standing = Standing {
            leader: MemberId(1),
            members: &members,
            under_way: false,
            is_heard: &|member| !matches!(member.0, 3 | 6),
            is_level: &|member| member.0 != 5,
        };
        assert_eq!(standing.check(change), expected, "{change:?}");
        let waiting = Standing { under_way: true, ..standing };
        assert_eq!(waiting.check(change), Err(MembersRefusal::UnderWay), "{change:?}");
    }

    #[test]
    fn what_breaks_the_quorum_or_makes_no_sense_is_refused() {
        use MembersChange::{AddLearner, Promote, RemoveLearner, RemoveVoter};
        let of = MemberId;
        let promote = |learner, old: Option<u64>| Promote {
            learner: MemberId(learner),
            in_place_of: old.map(MemberId),
        };
        check(AddLearner(of(7)), Ok(()));
        check(AddLearner(of(2)), Err(MembersRefusal::TakesPart(of(2))));
        check(AddLearner(of(4)), Err(MembersRefusal::TakesPart(of(4))));
        check(RemoveLearner(of(6)), Ok(()));
        check(RemoveLearner(of(2)), Err(MembersRefusal::NotLearner(of(2))));
        check(promote(4, None), Ok(()));
        check(promote(4, Some(3)), Ok(()));
        check(promote(4, Some(2)), Ok(()));
        check(promote(4, Some(1)), Err(MembersRefusal::Leads(of(1))));
        check(promote(4, Some(5)), Err(MembersRefusal::NotVoter(of(5))));
        check(promote(5, None), Err(MembersRefusal::Behind(of(5))));
        check(promote(6, None), Err(MembersRefusal::Behind(of(6))));
        check(promote(7, None), Err(MembersRefusal::NotLearner(of(7))));
        check(RemoveVoter(of(3)), Ok(()));
        check(RemoveVoter(of(2)), Err(MembersRefusal::NoQuorum));
        check(RemoveVoter(of(1)), Err(MembersRefusal::Leads(of(1))));
        check(RemoveVoter(of(4)), Err(MembersRefusal::NotVoter(of(4))));
    }
}
