//! Leases at a group of members: how they run out, and what keeps them alive.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

#[path = "support/group.rs"]
#[expect(dead_code, reason = "shared with tests of other things")]
mod group;

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, LeaseId, Query, Space};
use evenkeel_consensus::settings::MemberId;
use group::{Group, follower_of};

const TTL: Duration = Duration::from_secs(3);

fn grant(group: &mut Group, leader: MemberId) -> LeaseId {
    let answer = group.execute(leader, Command::once(Change::GrantLease { ttl: TTL }));
    let Answer::Granted { lease, .. } = answer else { panic!("{answer:?}") };
    lease
}

fn attach(group: &mut Group, leader: MemberId, key: &str, lease: LeaseId) -> Answer {
    let put = Change::Put {
        space: Space::User,
        key: key.to_owned(),
        value: Bytes::from_static(b"v"),
        expect: Expect::Any,
        lease: Some(lease),
    };
    group.execute(leader, Command::once(put))
}

fn has(group: &Group, member: MemberId, key: &str) -> bool {
    group.members[&member].replica.keys().get(Space::User, key).is_some()
}

#[test]
fn a_lease_runs_out_everywhere_with_its_keys() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let lease = grant(&mut group, leader);
    for key in ["a", "b"] {
        assert!(matches!(attach(&mut group, leader, key, lease), Answer::Written { .. }));
    }
    group.run(TTL - Duration::from_millis(100));
    assert!(has(&group, leader, "a"));
    let before = group.members[&leader].replica.keys().revision();
    group.run(Duration::from_millis(200));
    for member in group.settings.voters.clone() {
        let keys = group.members[&member].replica.keys();
        assert!(!has(&group, member, "a") && !has(&group, member, "b"));
        // Both went with one revision.
        assert_eq!(keys.revision(), before + 1);
        assert_eq!(keys.leases().count(), 0);
    }
    assert_eq!(attach(&mut group, leader, "c", lease), Answer::NoLease { lease });
}

#[test]
fn a_lease_lives_as_long_as_it_is_kept_alive() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let lease = grant(&mut group, leader);
    attach(&mut group, leader, "a", lease);
    for _ in 0..5 {
        group.run(TTL - Duration::from_secs(1));
        let answer = group.ask(leader, Query::KeepAlive { lease });
        let Answer::Lease { ttl: TTL, left: Some(left), .. } = answer else { panic!("{answer:?}") };
        assert!(left > TTL - Duration::from_millis(100), "{left:?}");
    }
    assert!(has(&group, leader, "a"));
    let answer = group.ask(leader, Query::Lease { lease });
    assert!(matches!(answer, Answer::Lease { keys, .. } if keys == ["a"]));
    group.run(TTL + Duration::from_millis(100));
    assert_eq!(group.ask(leader, Query::KeepAlive { lease }), Answer::NoLease { lease });
}

#[test]
fn an_election_ends_no_lease() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let lease = grant(&mut group, leader);
    attach(&mut group, leader, "a", lease);
    group.run(TTL - Duration::from_millis(400));
    group.cut.insert(leader);
    let heir = follower_of(leader);
    group.run(Duration::from_secs(1));
    let heir = if group.members[&heir].replica.is_leader() {
        heir
    } else {
        (1..=3).map(MemberId).find(|id| *id != leader && *id != heir).unwrap()
    };
    assert!(group.members[&heir].replica.is_leader());
    assert!(has(&group, heir, "a"));
    let answer = group.ask(heir, Query::Lease { lease });
    assert!(matches!(answer, Answer::Lease { left: Some(_), .. }), "{answer:?}");
    group.run(TTL);
    assert!(!has(&group, heir, "a"));
}

#[test]
fn a_revoked_lease_takes_its_keys_along_at_once() {
    let mut group = Group::new(1);
    let leader = group.elect();
    let lease = grant(&mut group, leader);
    attach(&mut group, leader, "a", lease);
    // A key that is set anew without a lease stays.
    attach(&mut group, leader, "b", lease);
    group.execute(leader, group::put("b", "w"));
    let revoke = || Command::once(Change::RevokeLease { lease });
    assert!(matches!(group.execute(leader, revoke()), Answer::Revoked { revision: 4, .. }));
    assert!(!has(&group, leader, "a") && has(&group, leader, "b"));
    assert_eq!(group.execute(leader, revoke()), Answer::NoLease { lease });
}
