//! Who is to take part in the coordinator: the leader's one next step.
//!
//! A voter that is missing for longer than [`System::replace_after`], or that the system file no
//! longer names, is replaced: another host becomes a learner, gets the log, and takes its place in
//! one step. A voter that comes back before that stays, and the learner is let go. There are never
//! fewer voters than before, and more only up to the number that the system's failure domains ask
//! for. A host that is to be empty of replicas is about to be worked on or to go: it hands
//! leadership over, and its vote too if a host is to spare whose vote leaves the voters as well
//! spread. While a place is lost, others may have to take more voters than they should; when it is back,
//! one of theirs is replaced by one of its.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::name::HostName;
use evenkeel_model::place::{Domain, Host};
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_model::voting::{Voting, crowded, deal_voters};

/// Who takes part by now, as the leader's own member tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// This host, which leads.
    pub leader: HostName,
    /// Those that take part, both lists sorted by name.
    pub voting: Voting,
    /// Whether a change is under way.
    pub is_changing: bool,
    /// Those that hold about what the leader holds.
    pub level: BTreeSet<HostName>,
}

/// A change of who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersStep {
    /// A host gets the log from now on.
    AddLearner(HostName),
    /// A learner gets it no more.
    RemoveLearner(HostName),
    /// This host leads no more, and another voter does.
    HandOver(HostName),
    /// A learner becomes a voter.
    Promote {
        /// The learner.
        learner: HostName,
        /// The voter that goes in the same step.
        in_place_of: Option<HostName>,
    },
}

/// Follows since when hosts are missing, and says what to change.
#[derive(Debug, Default)]
pub struct MembersPlanner {
    missing_since: BTreeMap<HostName, Timestamp>,
}

impl MembersPlanner {
    /// Returns the next step, if there is one to take now. `drained` are the hosts that are to be
    /// empty, and `is_up` says whether a host's reports come in.
    pub fn next_step(
        &mut self,
        system: &System,
        drained: &BTreeSet<HostName>,
        membership: &Membership,
        is_up: impl Fn(&HostName) -> bool,
        now: Timestamp,
    ) -> Option<MembersStep> {
        self.missing_since.retain(|host, _| !is_up(host));
        for host in system.hosts.keys().filter(|host| !is_up(host)) {
            self.missing_since.entry(host.clone()).or_insert(now);
        }
        let Membership { leader, voting, is_changing, level } = membership;
        let Voting { voters, learners } = voting;
        if *is_changing {
            return None;
        }
        let is_gone = |host: &HostName| {
            let missing = self.missing_since.get(host);
            !system.hosts.contains_key(host)
                || missing.is_some_and(|since| now.since(*since) >= system.replace_after)
        };
        if drained.contains(leader) || !system.hosts.contains_key(leader) {
            let fit = |voter: &&HostName| {
                level.contains(*voter) && is_up(voter) && !drained.contains(*voter)
            };
            if let Some(next) = voters.iter().filter(|voter| *voter != leader).find(fit) {
                return Some(MembersStep::HandOver(next.clone()));
            }
        }
        // A leader that is to go leads on until another one is elected, which then replaces it.
        let others = || voters.iter().filter(|voter| *voter != leader);
        let gone = others().find(|voter| is_gone(voter)).or_else(|| {
            let spare = |host: &Host| is_up(&host.name) && !drained.contains(&host.name);
            let leaves = |voter: &&HostName| {
                drained.contains(*voter) && is_spread_without(system, voters, voter, spare)
            };
            others().find(leaves)
        });
        let are_few = voters.len() < deal_voters(system).len();
        // Only what is whole otherwise is spread better.
        let crowded = crowded(system, voters).filter(|_| gone.is_none() && !are_few);
        let surplus = crowded.as_ref().and_then(|place| surplus(system, voters, leader, place));
        let is_wanted = gone.is_some() || are_few || surplus.is_some();
        let helps = |host: &Host| crowded.as_ref().is_none_or(|place| !place.contains(host));
        let Some(learner) = learners.first() else {
            let stays = |host: &Host| are_few || !drained.contains(&host.name);
            let fits = |host: &Host| is_up(&host.name) && helps(host) && stays(host);
            let newcomer =
                is_wanted.then(|| newcomer(system, voters, gone.or(surplus), fits))??;
            return Some(MembersStep::AddLearner(newcomer.name.clone()));
        };
        let helps = system.hosts.get(learner).is_some_and(helps);
        if !is_wanted || !helps || is_gone(learner) || learners.len() > 1 {
            let last = learners.last().unwrap_or(learner);
            return Some(MembersStep::RemoveLearner(last.clone()));
        }
        let (learner, in_place_of) = (learner.clone(), gone.or(surplus).cloned());
        let ready = level.contains(&learner) && is_up(&learner);
        ready.then_some(MembersStep::Promote { learner, in_place_of })
    }
}

/// Returns whether another host can vote in place of `voter` so that no place holds too many then.
fn is_spread_without(
    system: &System,
    voters: &[HostName],
    voter: &HostName,
    fits: impl Fn(&Host) -> bool,
) -> bool {
    newcomer(system, voters, Some(voter), fits).is_some_and(|newcomer| {
        let stay = voters.iter().filter(|other| *other != voter).cloned();
        let after: Vec<HostName> = stay.chain([newcomer.name.clone()]).collect();
        crowded(system, &after).is_none() || crowded(system, voters).is_some()
    })
}

/// Returns a voter of a place that holds too many.
fn surplus<'a>(
    system: &System,
    voters: &'a [HostName],
    leader: &HostName,
    place: &Domain,
) -> Option<&'a HostName> {
    let there = |voter: &HostName| system.hosts.get(voter).is_some_and(|host| place.contains(host));
    voters.iter().rev().find(|voter| *voter != leader && there(voter))
}

/// Returns the host that is to vote next: one that fits, where the fewest of the voters that stay
/// are, first by region, then by zone.
fn newcomer<'a>(
    system: &'a System,
    voters: &[HostName],
    gone: Option<&HostName>,
    fits: impl Fn(&Host) -> bool,
) -> Option<&'a Host> {
    let stay = voters.iter().filter(|voter| Some(*voter) != gone);
    let stay: Vec<&Host> = stay.filter_map(|voter| system.hosts.get(voter)).collect();
    let crowd = |host: &Host| {
        let in_region = stay.iter().filter(|voter| voter.region == host.region);
        let in_zone = in_region.clone().filter(|voter| voter.zone == host.zone).count();
        (in_region.count(), in_zone)
    };
    let candidates = system.hosts.values().filter(|host| !voters.contains(&host.name));
    candidates.filter(|host| fits(host)).min_by_key(|host| crowd(host))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use evenkeel_model::name::{RegionName, SystemName, ZoneName};
    use evenkeel_model::place::{HostRole, SurvivalGoal};
    use evenkeel_model::system::Ports;

    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    /// Three zones: `a1` and `a2`, `b1`, `c1` and `c2`.
    fn system() -> System {
        let place = |name: &str| Host {
            name: host(name),
            region: RegionName::parse("fra").unwrap(),
            zone: ZoneName::parse(&name[..1]).unwrap(),
            address: IpAddr::from([10, 0, 0, 1]),
            role: HostRole::Full,
        };
        let hosts = ["a1", "a2", "b1", "c1", "c2"].map(|name| (host(name), place(name)));
        System {
            name: SystemName::parse("shop").unwrap(),
            // Of one region, so that there is no point in more than three voters.
            goal: SurvivalGoal::Region,
            regions: vec![RegionName::parse("fra").unwrap()],
            hosts: hosts.into(),
            services: BTreeMap::new(),
            gateways: BTreeMap::new(),
            ports: Ports { peer: 1, api: 2, kv: 3, gateway_admin: 4, relay: 5, replicas: 6..=7 },
            voters: Vec::new(),
            learners: Vec::new(),
            replace_after: Duration::from_secs(10),
        }
    }

    struct World {
        planner: MembersPlanner,
        system: System,
        membership: Membership,
        down: BTreeSet<HostName>,
        drained: BTreeSet<HostName>,
        now: Timestamp,
    }

    impl World {
        fn new(voters: &[&str]) -> Self {
            let voters = voters.iter().map(|name| host(name)).collect();
            let membership = Membership {
                leader: host("b1"),
                voting: Voting { voters, learners: Vec::new() },
                is_changing: false,
                level: BTreeSet::new(),
            };
            Self {
                planner: MembersPlanner::default(),
                system: system(),
                membership,
                down: BTreeSet::new(),
                drained: BTreeSet::new(),
                now: Timestamp::ZERO,
            }
        }

        fn check(&mut self, wait: u64, expected: Option<&MembersStep>) {
            self.now = self.now + Duration::from_secs(wait);
            let is_up = |host: &HostName| !self.down.contains(host);
            let Self { planner, system, membership, drained, .. } = self;
            let found = planner.next_step(system, drained, membership, is_up, self.now);
            assert_eq!(found.as_ref(), expected, "after {:?}", self.now);
        }
    }

    fn add(name: &str) -> MembersStep {
        MembersStep::AddLearner(host(name))
    }

    #[test]
    fn a_missing_voter_is_replaced_after_its_time() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.check(0, None);
        world.down.insert(host("c1"));
        world.check(1, None);
        world.check(9, None);
        // The same zone again: nothing of it votes otherwise.
        world.check(1, Some(&add("c2")));
        world.membership.voting.learners = vec![host("c2")];
        world.check(1, None);
        world.membership.level = [host("c2")].into();
        let promote = MembersStep::Promote { learner: host("c2"), in_place_of: Some(host("c1")) };
        world.check(1, Some(&promote));
        world.membership.is_changing = true;
        world.check(1, None);
    }

    #[test]
    fn one_that_comes_back_in_time_stays() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.down.insert(host("c1"));
        world.check(1, None);
        world.down.clear();
        world.check(8, None);
        world.down.insert(host("c1"));
        world.check(5, None);
        world.check(10, Some(&add("c2")));
        world.membership.voting.learners = vec![host("c2")];
        world.membership.level = [host("c2")].into();
        world.down.clear();
        world.check(1, Some(&MembersStep::RemoveLearner(host("c2"))));
    }

    #[test]
    fn a_learner_that_is_lost_itself_is_let_go() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.down = [host("c1"), host("c2")].into();
        world.check(1, None);
        world.check(10, Some(&add("a2")));
        world.membership.voting.learners = vec![host("a2")];
        world.down.insert(host("a2"));
        world.check(9, None);
        world.check(10, Some(&MembersStep::RemoveLearner(host("a2"))));
    }

    #[test]
    fn there_are_as_many_as_the_places_ask_for_and_the_leader_stays() {
        let mut world = World::new(&["b1"]);
        assert_eq!(deal_voters(&world.system).len(), 3);
        world.check(0, Some(&add("a1")));
        world.membership.voting.learners = vec![host("a1")];
        world.membership.level = [host("a1")].into();
        let promote = MembersStep::Promote { learner: host("a1"), in_place_of: None };
        world.check(0, Some(&promote));

        // A leader is not replaced, by itself least of all.
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.system.hosts.remove(&host("b1"));
        world.check(60, None);
    }

    #[test]
    fn a_place_that_was_lost_gets_its_voters_back() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.system.goal = SurvivalGoal::Zone;
        world.system.hosts.remove(&host("c2"));
        assert_eq!(deal_voters(&world.system).len(), 3);
        world.down.insert(host("c1"));
        world.check(1, None);
        world.check(10, Some(&add("a2")));
        // It has taken the place of c1, and nobody is left who could help the zone `a` off it.
        world.membership.voting.voters = ["a1", "a2", "b1"].map(host).to_vec();
        world.check(1, None);
        let place = Host { name: host("a3"), ..world.system.hosts[&host("a2")].clone() };
        world.system.hosts.insert(host("a3"), place);
        world.check(1, None);
        // It would do in place of one that is missing, and does not once that is back.
        world.down.insert(host("a1"));
        world.check(1, None);
        world.check(10, Some(&add("a3")));
        world.membership.voting.learners = vec![host("a3")];
        world.membership.level = [host("a3")].into();
        world.down.remove(&host("a1"));
        world.check(1, Some(&MembersStep::RemoveLearner(host("a3"))));
        world.membership.voting.learners.clear();
        world.down.clear();
        world.check(1, Some(&add("c1")));
        world.membership.voting.learners = vec![host("c1")];
        world.check(1, None);
        world.membership.level = [host("c1")].into();
        let back = MembersStep::Promote { learner: host("c1"), in_place_of: Some(host("a2")) };
        world.check(1, Some(&back));
        world.membership.voting.voters = ["a1", "b1", "c1"].map(host).to_vec();
        world.membership.voting.learners.clear();
        world.check(60, None);
    }

    #[test]
    fn a_voter_that_the_file_names_no_more_is_replaced_at_once() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.system.hosts.remove(&host("c1"));
        world.check(0, Some(&add("c2")));
    }

    #[test]
    fn a_drained_voter_gives_its_vote_to_a_host_to_spare() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.system.goal = SurvivalGoal::Zone;
        world.system.hosts.remove(&host("a2"));
        // Alone in its zone: its vote would go where another one is.
        world.drained = [host("b1")].into();
        world.membership.leader = host("a1");
        world.check(0, None);
        world.drained = [host("c1"), host("c2")].into();
        world.check(0, None);
        world.drained = [host("c1")].into();
        world.check(0, Some(&add("c2")));
        world.membership.voting.learners = vec![host("c2")];
        world.membership.level = [host("c2")].into();
        let promote = MembersStep::Promote { learner: host("c2"), in_place_of: Some(host("c1")) };
        world.check(0, Some(&promote));
        world.drained.clear();
        world.check(0, Some(&MembersStep::RemoveLearner(host("c2"))));
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over() {
        let mut world = World::new(&["a1", "b1", "c1"]);
        world.drained = [host("b1"), host("a1")].into();
        world.membership.level = [host("a1"), host("c1")].into();
        world.check(0, Some(&MembersStep::HandOver(host("c1"))));
        world.down = [host("c1")].into();
        world.check(0, Some(&add("a2")));
        world.down.clear();
        world.drained.clear();
        world.system.hosts.remove(&host("b1"));
        world.check(0, Some(&MembersStep::HandOver(host("a1"))));
    }
}
