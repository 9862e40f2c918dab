//! Which hosts vote in the coordinator.

use std::time::Duration;

use crate::dealing::deal_distinct;
use crate::name::HostName;
use crate::place::{Domain, Host, SurvivalGoal};
use crate::system::System;

/// How long a voter may be missing before another host takes its place, where the system file does
/// not say: longer than a restart, a move or an update of a machine takes.
pub const REPLACE_AFTER: Duration = Duration::from_mins(10);

/// Who takes part in the coordinator. Both lists are sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voting {
    /// Those whose majority decides.
    pub voters: Vec<HostName>,
    /// Those that get the log and do not vote.
    pub learners: Vec<HostName>,
}

/// Deals the coordinator's voters over the system's failure domains: 5 when that leaves no domain of the
/// survival level with a majority, otherwise 3; with fewer than three
/// hosts, one. Sorted by name.
///
/// One domain never holds a majority while another choice exists: with 2+2+1 hosts in three
/// regions any one region may go. Two hosts get one voter: two voters would need both.
#[must_use]
pub fn deal_voters(system: &System) -> Vec<HostName> {
    let hosts: Vec<&Host> = system
        .regions
        .iter()
        .flat_map(|region| system.hosts.values().filter(move |host| host.region == *region))
        .collect();
    let level = system.goal.max(SurvivalGoal::Host);
    let domains = system.domains(level);
    let count = match hosts.len() {
        0..=2 => 1,
        3 | 4 => 3,
        _ if majority_free(&hosts, &domains, 5) => 5,
        _ => 3,
    };
    deal_distinct(&hosts, count)
}

/// Returns the places of the survival level of which one alone holds so many of `voters` that the
/// others are no majority; nothing when that can't be helped, whoever votes.
#[must_use]
pub fn crowded(system: &System, voters: &[HostName]) -> Option<Domain> {
    let domains = system.domains(system.goal.max(SurvivalGoal::Host));
    let within = |domain: &Domain, voters: &[HostName]| {
        let hosts = voters.iter().filter_map(|voter| system.hosts.get(voter));
        hosts.filter(|host| domain.contains(host)).count()
    };
    let is_crowded =
        |domain: &Domain, voters: &[HostName]| within(domain, voters) * 2 >= voters.len();
    let dealt = deal_voters(system);
    let found = domains.iter().find(|domain| is_crowded(domain, voters))?;
    let avoidable = !domains.iter().any(|domain| is_crowded(domain, &dealt));
    avoidable.then(|| found.clone())
}

/// Returns whether `count` voters, dealt over `hosts`, leave no domain with a majority.
fn majority_free(hosts: &[&Host], domains: &[Domain], count: usize) -> bool {
    let dealt = deal_distinct(hosts, count);
    domains.iter().all(|domain| {
        let within =
            hosts.iter().filter(|host| domain.contains(host) && dealt.contains(&host.name)).count();
        within * 2 < dealt.len()
    })
}

/// Returns how many of `voters` voters form a quorum (Raft thesis §3.4): the smallest majority.
#[must_use]
pub const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_the_smallest_majority() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }
}
