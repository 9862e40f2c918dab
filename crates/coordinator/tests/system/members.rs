//! Members come and go while everybody else goes on.

use std::time::Duration;

use axum::http::StatusCode;
use evenkeel_consensus::members::{MembersChange, MembersRefusal};
use evenkeel_consensus::settings::MemberId;
use evenkeel_coordinator::options;

use crate::support::System;

pub(crate) fn member(system: &System, number: usize) -> MemberId {
    options::member(&system.name(number))
}

/// Asks the leader for a change until it makes it, and waits until it is made.
pub(crate) fn change(system: &System, leader: usize, change: MembersChange) {
    let coordinator = system.coordinator(leader);
    system.wait_until("the change is possible", |system| {
        system.block_on(coordinator.change_members(change)).is_ok()
    });
}

pub(crate) fn wait_for_voters(system: &System, number: usize, voters: &[usize]) {
    let mut expected: Vec<_> = voters.iter().map(|voter| system.name(*voter)).collect();
    expected.sort_unstable();
    system.wait_until("the change is made", |system| {
        let mut standing = system.standing(number);
        standing.voters.sort_unstable();
        standing.voters == expected && standing.outgoing.is_empty()
    });
}

pub(crate) fn put(system: &System, number: usize, value: &'static str) {
    system.wait_until("a change is acknowledged", |system| {
        system.put(number, "/v1/kv/a", &[], value).status.is_success()
    });
}

/// Three voters of which one is dead, in its place a host that has joined, and who leads.
fn replaced() -> (System, usize, usize, usize) {
    let mut system = System::start(3, 1);
    put(&system, 0, "1");
    let leader = system.leader();
    let dead = (leader + 1) % 3;
    system.kill(dead);
    system.kill(3);
    system.join(3);
    let (old, new) = (member(&system, dead), member(&system, 3));
    change(&system, leader, MembersChange::AddLearner(new));
    change(&system, leader, MembersChange::Promote { learner: new, in_place_of: Some(old) });
    let third = 3 - leader - dead;
    for number in [leader, third, 3] {
        wait_for_voters(&system, number, &[leader, third, 3]);
    }
    (system, leader, third, dead)
}

#[test]
fn after_a_dead_voter_was_replaced_another_may_die() {
    let (mut system, leader, third, dead) = replaced();
    system.kill(leader);
    for number in [third, 3] {
        system.wait_until("there is a leader again", |system| system.is_healthy(number));
        assert_eq!(system.get(number, "/v1/kv/a").body, "1");
    }
    put(&system, 3, "2");
    // Who was replaced comes back: it leads nobody, and nobody waits for it.
    system.restart(dead);
    system.wait_until("it finds who leads", |system| system.is_healthy(dead));
    put(&system, dead, "3");
    assert_eq!(system.get(3, "/v1/kv/a").body, "3");
    let standing = system.standing(third);
    assert!(!standing.voters.contains(&system.name(dead)), "{standing:?}");
}

#[test]
fn who_takes_part_is_on_disk() {
    let (mut system, leader, third, _) = replaced();
    for number in [leader, third, 3] {
        system.kill(number);
    }
    // As many as are needed of those that vote by now, and too few of those that voted first.
    for number in [third, 3] {
        system.restart(number);
    }
    system.wait_until("there is a leader again", |system| system.is_healthy(3));
    assert_eq!(system.get(3, "/v1/kv/a").body, "1");
    wait_for_voters(&system, third, &[leader, third, 3]);
}

#[test]
fn a_host_that_takes_no_part_asks_those_that_vote_by_now() {
    let mut system = System::start(3, 2);
    put(&system, 4, "1");
    let leader = system.leader();
    let (gone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    system.kill(3);
    system.join(3);
    change(&system, leader, MembersChange::AddLearner(member(&system, 3)));
    let promote = MembersChange::Promote {
        learner: member(&system, 3),
        in_place_of: Some(member(&system, gone)),
    };
    change(&system, leader, promote);
    wait_for_voters(&system, 3, &[leader, other, 3]);
    let voters = [leader, other, 3].map(|number| system.place(number)).to_vec();
    system.coordinator(4).set_voters(voters);
    // Of the first voters one is left, which can't lead alone.
    system.kill(gone);
    system.kill(leader);
    put(&system, 4, "2");
    assert_eq!(system.get(4, "/v1/kv/a").body, "2");
}

#[test]
fn changes_are_refused_with_a_reason() {
    let mut system = System::start(3, 1);
    let leader = system.leader();
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let refusal = |system: &System, number: usize, change| {
        system.block_on(system.coordinator(number).change_members(change)).unwrap_err()
    };
    let own = MembersChange::RemoveVoter(member(&system, leader));
    let last = MembersChange::RemoveVoter(member(&system, other));
    let newcomer = MembersChange::AddLearner(member(&system, 3));
    let leads = MembersRefusal::Leads(member(&system, leader));
    assert_eq!(refusal(&system, leader, own), leads);
    assert_eq!(refusal(&system, follower, newcomer), MembersRefusal::NotLeader);
    assert_eq!(refusal(&system, 3, newcomer), MembersRefusal::NotLeader);
    assert!(system.block_on(system.coordinator(3).standing()).is_none(), "it takes no part");
    system.kill(follower);
    let gone = system.name(follower);
    system.wait_until("the leader misses it", |system| {
        let silence = system.standing(leader).followers[&gone].silence;
        silence.is_some_and(|silence| silence > Duration::from_secs(2))
    });
    // With it, the other one alone makes a majority with the leader.
    assert_eq!(refusal(&system, leader, last), MembersRefusal::NoQuorum);
    assert_eq!(system.put(leader, "/v1/kv/a", &[], "1").status, StatusCode::CREATED);
}
