//! How members come and go, without faults. What they do under faults is the simulator's matter.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

#[path = "support/group.rs"]
#[expect(dead_code, reason = "shared with tests of other things")]
mod group;

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::members::{Members, MembersChange, MembersRefusal};
use evenkeel_consensus::settings::MemberId;
use group::{Group, follower_of, put, value};

const NEW: MemberId = MemberId(9);

/// A group of three that has written so much that its log no longer reaches back, and one more
/// that knows nobody.
fn group_and_newcomer(writes: usize) -> (Group, MemberId) {
    let mut group = Group::new(3);
    let leader = group.elect();
    for number in 0..writes {
        group.execute(leader, put(&format!("k{number}"), "v"));
    }
    group.join(NEW);
    group.run(Duration::from_secs(1));
    assert_eq!(group.members[&NEW].replica.members(), Members::default());
    (group, leader)
}

fn check_members(group: &Group, voters: &[u64], learners: &[u64]) {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    let expected = Members { voters: ids(voters), outgoing: Vec::new(), learners: ids(learners) };
    for (id, member) in &group.members {
        if !group.cut.contains(id) {
            assert_eq!(member.replica.members(), expected, "as {id} knows it");
        }
    }
}

#[test]
fn a_newcomer_is_filled_as_a_learner_and_then_votes() {
    for writes in [0, 1, 100] {
        let (mut group, leader) = group_and_newcomer(writes);
        group.change(leader, MembersChange::AddLearner(NEW));
        check_members(&group, &[1, 2, 3], &[9]);
        assert_eq!(group.members[&NEW].replica.keys(), group.members[&leader].replica.keys());
        group.change(leader, MembersChange::Promote { learner: NEW, in_place_of: None });
        check_members(&group, &[1, 2, 3, 9], &[]);
        // Three of four decide, and this one is needed for it.
        group.cut.insert(follower_of(leader));
        let answer = group.execute(leader, put("a", "1"));
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
        group.cut.insert(NEW);
        let request = group.propose(leader, put("a", "2"));
        group.run(Duration::from_millis(100));
        assert!(!group.answers.contains_key(&request), "two of four are no majority");
    }
}

#[test]
fn a_learner_counts_for_nothing() {
    let (mut group, leader) = group_and_newcomer(1);
    group.change(leader, MembersChange::AddLearner(NEW));
    let followers = (1..=3).map(MemberId).filter(|member| *member != leader);
    group.cut.extend(followers);
    let request = group.propose(leader, put("a", "1"));
    group.run(Duration::from_secs(2));
    assert_eq!(group.answers[&request], Answer::Unknown);
    assert!(group.members.values().all(|member| !member.replica.is_leader()));
}

#[test]
fn a_dead_voter_is_replaced_and_then_another_may_die() {
    let (mut group, leader) = group_and_newcomer(30);
    let dead = follower_of(leader);
    let third = MemberId(6 - leader.0 - dead.0);
    group.cut.insert(dead);
    group.run(Duration::from_secs(1));
    let check = |group: &Group, change, expected| {
        assert_eq!(group.members[&leader].replica.check_change(change), expected, "{change:?}");
    };
    // With the dead one, the third alone makes a majority with the leader.
    check(&group, MembersChange::RemoveVoter(third), Err(MembersRefusal::NoQuorum));
    let replace = MembersChange::Promote { learner: NEW, in_place_of: Some(dead) };
    check(&group, replace, Err(MembersRefusal::NotLearner(NEW)));
    group.change(leader, MembersChange::AddLearner(NEW));
    group.change(leader, replace);
    let mut voters = [leader.0, third.0, NEW.0];
    voters.sort_unstable();
    check_members(&group, &voters, &[]);
    group.cut.insert(leader);
    let next = group.elect();
    let answer = group.execute(next, put("a", "1"));
    assert_eq!(answer, Answer::Written { revision: 31, created: true, replayed: false });
}

#[test]
fn one_that_was_removed_disturbs_nobody_and_learns_it() {
    let (mut group, leader) = group_and_newcomer(1);
    let removed = follower_of(leader);
    group.cut.insert(removed);
    group.run(Duration::from_secs(1));
    group.change(leader, MembersChange::RemoveVoter(removed));
    let term = group.members[&leader].replica.term();
    group.cut.clear();
    group.run(Duration::from_secs(5));
    assert!(group.members[&leader].replica.is_leader());
    assert_eq!(group.members[&leader].replica.term(), term, "no election was called");
    assert_eq!(group.members[&removed].replica.leader(), None);
}

#[test]
fn who_takes_part_outlasts_restarts() {
    for writes in [0, 100] {
        let (mut group, leader) = group_and_newcomer(0);
        let gone = follower_of(leader);
        group.change(leader, MembersChange::AddLearner(NEW));
        group.change(leader, MembersChange::Promote { learner: NEW, in_place_of: Some(gone) });
        for number in 0..writes {
            group.execute(leader, put(&format!("k{number}"), "v"));
        }
        group.cut.insert(gone);
        let voters: Vec<MemberId> =
            (1..=3).map(MemberId).filter(|member| *member != gone).chain([NEW]).collect();
        for member in &voters {
            group.restart(*member);
        }
        let leader = group.elect();
        let expected: Vec<u64> = voters.iter().map(|member| member.0).collect();
        check_members(&group, &expected, &[]);
        group.execute(leader, put("a", "1"));
        let read = group.read(leader, "a");
        group.settle();
        let revision = u64::try_from(writes).unwrap() + 1;
        assert_eq!(group.answers[&read], value("1", revision, revision));
    }
}

#[test]
fn a_leader_is_not_removed_before_it_has_handed_over() {
    let (mut group, leader) = group_and_newcomer(0);
    let refused = group.members[&leader].replica.check_change(MembersChange::RemoveVoter(leader));
    assert_eq!(refused, Err(MembersRefusal::Leads(leader)));
    let follower = follower_of(leader);
    let change = MembersChange::AddLearner(NEW);
    let refused = group.members[&follower].replica.check_change(change);
    assert_eq!(refused, Err(MembersRefusal::NotLeader));
    group.handle(leader, evenkeel_consensus::replica::Event::TransferLeadership { to: follower });
    group.run(Duration::from_secs(1));
    group.change(follower, MembersChange::RemoveVoter(leader));
    assert_eq!(group.members[&follower].replica.members().voters.len(), 2);
}

#[test]
fn who_votes_is_durable_as_soon_as_it_counts() {
    let (mut group, leader) = group_and_newcomer(30);
    let dead = follower_of(leader);
    let third = MemberId(6 - leader.0 - dead.0);
    group.cut.insert(dead);
    group.run(Duration::from_secs(1));
    group.change(leader, MembersChange::AddLearner(NEW));
    group.change(leader, MembersChange::Promote { learner: NEW, in_place_of: Some(dead) });
    // Nothing was written since, and the leader is gone as well: of those that vote by now a
    // majority is left, of those that voted first one.
    group.cut.insert(leader);
    for member in [third, NEW] {
        group.restart(member);
    }
    let second = group.elect();
    assert!(matches!(group.execute(second, put("a", "1")), Answer::Written { .. }));
}
