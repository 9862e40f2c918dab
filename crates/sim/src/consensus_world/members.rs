//! An operator who changes who takes part, at any time, whatever else happens.

use std::time::Duration;

use evenkeel_consensus::members::{Members, MembersChange};
use evenkeel_consensus::replica::Event;
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::random::Rng;

use super::{Happening, World};

/// Fewest voters that the operator leaves.
const VOTERS_MIN: usize = 3;
/// Most voters.
const VOTERS_MAX: usize = 5;

/// How a seed's operator works.
#[derive(Debug)]
pub(super) struct Operator {
    /// The longest time between two changes, in ms; 0: there are none.
    every: u64,
    /// Of its own, so that the rest of a seed's storm does not depend on it.
    rng: Rng,
}

impl Operator {
    pub(super) fn new(mut rng: Rng) -> Self {
        Self { every: [0, 0, 150, 600][rng.index(4)], rng }
    }

    pub(super) const fn acts(&self) -> bool {
        self.every > 0
    }

    /// Draws what to ask of a leader of these members, among `hosts` hosts.
    fn draw(&mut self, leader: MemberId, members: &Members, hosts: usize) -> Option<MembersChange> {
        let all = (1..).map(MemberId).take(hosts);
        let outside: Vec<MemberId> = all.filter(|host| !members.contains(*host)).collect();
        let others: Vec<MemberId> =
            members.voters.iter().copied().filter(|voter| *voter != leader).collect();
        let (count, learners) = (members.voters.len(), &members.learners);
        let rng = &mut self.rng;
        if !learners.is_empty() && rng.chance(5, 6) {
            let learner = learners[rng.index(learners.len())];
            let replaces = count >= VOTERS_MAX || rng.chance(3, 4);
            let in_place_of = if replaces { others.get(rng.index(others.len())) } else { None };
            return Some(MembersChange::Promote { learner, in_place_of: in_place_of.copied() });
        }
        if !learners.is_empty() && rng.chance(1, 2) {
            return Some(MembersChange::RemoveLearner(learners[rng.index(learners.len())]));
        }
        if count > VOTERS_MIN && (outside.is_empty() || rng.chance(1, 3)) {
            return others.get(rng.index(others.len())).copied().map(MembersChange::RemoveVoter);
        }
        outside.get(rng.index(outside.len().max(1))).copied().map(MembersChange::AddLearner)
    }
}

impl World {
    /// Plans the next change, if there are any.
    pub(super) fn plan_change(&mut self) {
        if self.operator.acts() {
            let wait = 1 + self.operator.rng.below(self.operator.every);
            self.after(Duration::from_millis(wait), Happening::ChangeMembers);
        }
    }

    /// Asks whoever leads for a change that it may make.
    pub(super) fn change_members(&mut self) {
        if self.healed {
            return;
        }
        self.plan_change();
        let Some(host) = self.leader() else { return };
        let Some(process) = &self.hosts[host].process else { return };
        let (leader, members) = (self.hosts[host].settings.member, process.replica.members());
        let hosts = self.hosts.len();
        let Some(change) = self.operator.draw(leader, &members, hosts) else { return };
        if process.replica.check_change(change).is_ok() {
            self.changes += 1;
            self.transcript.line(self.now, format_args!("operator: {leader}: {change:?}"));
            self.arrive(host, Event::ChangeMembers { change });
        }
    }

    /// Returns who takes part, as the one knows it that has come farthest.
    pub(super) fn members_in_the_end(&self) -> Members {
        let farthest = self.all_replicas().max_by_key(|(_, replica)| replica.applied());
        farthest.map(|(_, replica)| replica.members()).unwrap_or_default()
    }
}
