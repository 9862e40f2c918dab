//! What a member does for its clients, without faults. What members do under faults is the
//! simulator's matter.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

#[path = "support/group.rs"]
#[expect(dead_code, reason = "shared with tests of other things")]
mod group;

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, RequestId, Space};
use evenkeel_consensus::log::Record;
use evenkeel_consensus::replica::Event;
use evenkeel_consensus::restore::RestoreError;
use evenkeel_consensus::settings::{Limits, MemberId};
use group::{Group, decode, follower_of, put, value};

#[test]
fn a_single_voter_serves() {
    let mut group = Group::new(1);
    let leader = group.elect();
    let answer = group.execute(leader, put("a", "1"));
    assert_eq!(answer, Answer::Written { revision: 1, created: true, replayed: false });
    let read = group.read(leader, "a");
    group.settle();
    assert_eq!(group.answers[&read], value("1", 1, 1));
}

#[test]
fn a_change_is_applied_everywhere() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.execute(leader, put("a", "1"));
    for member in group.members.values() {
        assert_eq!(member.replica.keys().revision(), 1);
        assert_eq!(member.replica.leader(), Some(leader));
    }
}

#[test]
fn a_follower_refuses_and_names_the_leader() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let answer = group.execute(follower_of(leader), put("a", "1"));
    assert_eq!(answer, Answer::NotLeader { leader: Some(leader) });
}

#[test]
fn proposals_and_reads_that_come_together_share_messages() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.settle();
    group.sent = 0;
    let proposals: Vec<RequestId> =
        (0..100).map(|number| group.propose(leader, put(&format!("k{number}"), "v"))).collect();
    group.settle();
    assert!(proposals.iter().all(|request| group.answers.contains_key(request)));
    assert!(group.sent <= 12, "{} messages for 100 proposals", group.sent);

    group.sent = 0;
    let reads: Vec<RequestId> =
        (0..100).map(|number| group.read(leader, &format!("k{number}"))).collect();
    group.settle();
    assert!(reads.iter().all(|request| matches!(group.answers[request], Answer::Value { .. })));
    assert_eq!(group.sent, 4, "one heartbeat and one response for each of two followers");
}

#[test]
fn news_of_what_is_committed_waits_for_a_crowd_but_not_for_long() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.settle();
    let revisions = |group: &Group| -> BTreeSet<u64> {
        group.members.values().map(|member| member.replica.keys().revision()).collect()
    };
    group.sent = 0;
    for number in 0..20 {
        group.propose(leader, put(&format!("k{number}"), "v"));
    }
    group.settle();
    assert_eq!(revisions(&group), [0, 20].into(), "the leader has told nobody yet");
    assert_eq!(group.sent, 4, "the entries and their acknowledgements");
    // The next ones carry it.
    for number in 0..20 {
        group.propose(leader, put(&format!("k{number}"), "w"));
    }
    group.settle();
    assert_eq!(revisions(&group), [20, 40].into());
    // Without any it comes by itself, long before a heartbeat does.
    group.run(Duration::from_millis(3));
    assert_eq!(revisions(&group), [40].into());
}

#[test]
fn nothing_is_promised_before_it_is_written() {
    let mut group = Group::new(3);
    let leader = group.elect();
    for member in group.members.values_mut() {
        member.hold_writes = true;
    }
    let request = group.propose(leader, put("a", "1"));
    group.settle();
    assert!(!group.answers.contains_key(&request));
    // One follower's disk and the leader's are a quorum.
    for member in [leader, follower_of(leader)] {
        group.members.get_mut(&member).unwrap().hold_writes = false;
    }
    group.settle();
    assert!(group.answers.contains_key(&request));
}

#[test]
fn what_must_not_be_durable_waits_for_no_write() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.execute(leader, put("a", "1"));
    for member in group.members.values_mut() {
        member.hold_writes = true;
    }
    let read = group.read(leader, "a");
    group.run(Duration::from_secs(1));
    assert!(matches!(group.answers[&read], Answer::Value { .. }));
    assert!(group.members.values().all(|member| member.written.is_empty()), "nothing is written");
    // That the first change is committed goes with the second one.
    let applied = group.members[&leader].replica.applied();
    group.propose(leader, put("a", "2"));
    group.settle();
    for member in group.members.values() {
        let mut votes = member.records.iter().filter_map(|record| match Record::decode(record) {
            Ok(Record::Vote(vote)) => Some(vote.commit),
            Ok(Record::Reset { .. } | Record::Entry(_)) | Err(_) => None,
        });
        assert_eq!((votes.next_back(), member.written.len()), (Some(applied), 1));
    }
}

#[test]
fn a_log_that_is_not_saved_yet_is_not_all_held_either() {
    let limits =
        Limits { compact_entries: 1000, held_entries: 50, tail_entries: 5, ..Limits::STANDARD };
    let mut group = Group::with_limits(3, limits);
    let leader = group.elect();
    let behind = follower_of(leader);
    group.cut.insert(behind);
    for number in 0..100 {
        group.execute(leader, put(&format!("k{number}"), "v"));
    }
    group.cut.clear();
    group.run(Duration::from_secs(1));
    assert_eq!(group.bulk, 1, "what the follower lacks is held no more");
    let mut others = group.members.iter().filter(|(id, _)| **id != behind);
    assert!(others.all(|(_, member)| member.compacted == 0), "it is on their disks");
    assert_eq!(group.members[&behind].replica.keys(), group.members[&leader].replica.keys());
    group.restart(leader);
    assert_eq!(group.members[&leader].replica.applied(), 1, "from its log alone");
    group.run(Duration::from_secs(1));
    assert_eq!(group.members[&behind].replica.keys(), group.members[&leader].replica.keys());
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_says_what_it_does_not_know() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.cut.insert(leader);
    let (write, read) = (group.propose(leader, put("a", "1")), group.read(leader, "a"));
    group.run(Duration::from_millis(600));
    assert_eq!(group.answers[&write], Answer::Unknown);
    assert_eq!(group.answers[&read], Answer::NotLeader { leader: None });
    let second = group.elect();
    assert_ne!(second, leader);
    group.cut.clear();
    group.run(Duration::from_millis(600));
    assert_eq!(group.members[&leader].replica.leader(), Some(second), "rejoins without a new term");
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let behind = follower_of(leader);
    group.cut.insert(behind);
    let system = Command::once(Change::Put {
        space: Space::System,
        key: "plan".to_owned(),
        value: Bytes::from_static(b"1"),
        expect: Expect::Absent,
        lease: None,
    });
    group.execute(leader, system);
    for number in 0..100 {
        group.execute(leader, put(&format!("k{number}"), "v"));
    }
    group.cut.clear();
    group.run(Duration::from_secs(1));
    assert_eq!(group.bulk, 1);
    assert_eq!(group.members[&behind].replica.keys(), group.members[&leader].replica.keys());
    assert_eq!(group.members[&behind].system_changes, ["plan"]);
    group.restart(behind);
    group.run(Duration::from_secs(1));
    assert_eq!(group.members[&behind].replica.keys(), group.members[&leader].replica.keys());
}

#[test]
fn the_log_is_not_dropped_for_a_snapshot_that_is_still_being_written() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let follower = follower_of(leader);
    group.members.get_mut(&follower).unwrap().hold_saves = true;
    let write = |group: &mut Group, numbers: std::ops::Range<u64>| {
        for number in numbers {
            group.execute(leader, put(&format!("k{number}"), "v"));
        }
    };
    write(&mut group, 0..30);
    let own = group.members[&follower].saving.expect("a snapshot of its own is being written");
    group.cut.insert(follower);
    write(&mut group, 30..130);
    group.members.get_mut(&follower).unwrap().hold_writes = true;
    group.cut.clear();
    group.run(Duration::from_secs(1));
    assert_eq!(group.bulk, 1, "the leader's snapshot is being written as well");
    group.handle(follower, Event::SnapshotSaved { index: own });
    group.settle();
    assert!(group.members[&follower].compacted <= own, "of what is durable");
    group.members.get_mut(&follower).unwrap().hold_writes = false;
    group.run(Duration::from_secs(1));
    assert!(group.members[&follower].compacted > own);
    assert_eq!(group.members[&follower].replica.keys(), group.members[&leader].replica.keys());
}

#[test]
fn a_follower_that_lost_everything_is_filled_while_nothing_is_written() {
    for writes in [1, 10, 100] {
        let mut group = Group::new(3);
        let leader = group.elect();
        let empty = follower_of(leader);
        for number in 0..writes {
            group.execute(leader, put(&format!("k{number}"), "v"));
        }
        group.run(Duration::from_secs(1));
        group.begin_anew(empty);
        assert!(group.members[&empty].replica.is_rejoining());
        group.run(Duration::from_secs(1));
        assert!(group.members[&leader].replica.is_leader());
        assert_eq!(group.members[&empty].replica.keys(), group.members[&leader].replica.keys());
        assert!(!group.members[&empty].replica.is_rejoining());
    }
}

#[test]
fn a_member_that_begins_anew_votes_only_once_a_majority_of_the_others_was_heard() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let empty = follower_of(leader);
    let other = (1..=3).map(MemberId).find(|id| *id != leader && *id != empty).unwrap();
    group.execute(leader, put("k", "v"));
    // The other one may follow a later leader, for all that is known.
    group.cut.insert(other);
    group.begin_anew(empty);
    group.run(Duration::from_secs(2));
    assert_eq!(group.members[&empty].replica.keys(), group.members[&leader].replica.keys());
    assert!(group.members[&empty].replica.is_rejoining());
    // It helps nobody into office, not even one that has everything.
    group.cut = BTreeSet::from([leader]);
    group.run(Duration::from_secs(2));
    assert!([other, empty].iter().all(|id| !group.members[id].replica.is_leader()));
    group.cut.clear();
    group.run(Duration::from_secs(2));
    assert!(!group.members[&empty].replica.is_rejoining());
    group.cut.insert(leader);
    group.run(Duration::from_secs(2));
    assert!([other, empty].iter().any(|id| group.members[id].replica.is_leader()));
}

#[test]
fn a_lone_voter_that_lost_its_log_begins_empty() {
    let mut group = Group::new(1);
    let leader = group.elect();
    group.execute(leader, put("k", "v"));
    group.begin_anew(leader);
    assert!(!group.members[&leader].replica.is_rejoining());
    group.elect();
}

#[test]
fn a_crash_between_a_snapshot_and_its_log_leaves_no_old_log_behind() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let behind = follower_of(leader);
    group.execute(leader, put("a", "1"));
    group.cut.insert(behind);
    for number in 0..50 {
        group.execute(leader, put(&format!("k{number}"), "v"));
    }
    // The snapshot reached the disk, the reset of the log did not.
    let old = group.members.remove(&behind).unwrap();
    let snapshot = group.members[&leader].snapshot.clone();
    group.start(behind, old.records, snapshot).unwrap();
    group.cut.clear();
    group.run(Duration::from_secs(1));
    let voids = |record: &Vec<u8>| matches!(decode(record), Record::Reset { .. });
    assert!(group.members[&behind].records.iter().any(voids));
    group.execute(leader, put("a", "2"));
    // What was acknowledged since must be there after the next crash, too.
    group.restart(behind);
    group.run(Duration::from_secs(1));
    assert_eq!(group.members[&behind].replica.keys(), group.members[&leader].replica.keys());
}

#[test]
fn a_log_of_long_values_is_compacted_by_its_bytes() {
    let limits = Limits { compact_bytes: 1000, tail_bytes: 500, ..Limits::STANDARD };
    let mut group = Group::with_limits(3, limits);
    let leader = group.elect();
    let value = "v".repeat(100);
    for _ in 0..100 {
        group.execute(leader, put("k", &value));
    }
    for (id, member) in &group.members {
        let kept: usize = member.records.iter().map(Vec::len).sum();
        assert!(kept < 3000, "member {id:?} keeps {kept} bytes");
    }
}

#[test]
fn all_members_restart_from_their_disks() {
    let mut group = Group::new(3);
    let leader = group.elect();
    for number in 0..50 {
        group.execute(leader, put(&format!("k{number}"), "v"));
    }
    let before = group.members[&leader].replica.keys().clone();
    let entries = |record: &&Vec<u8>| matches!(Record::decode(record), Ok(Record::Entry(_)));
    let kept = group.members[&leader].records.iter().filter(entries).count();
    assert!(kept < 30, "the log was compacted, but for {kept} entries");
    for member in group.settings.voters.clone() {
        group.restart(member);
    }
    let leader = group.elect();
    assert_eq!(group.members[&leader].replica.keys(), &before);
    let answer = group.execute(leader, put("k7", "w"));
    assert_eq!(answer, Answer::Written { revision: 51, created: false, replayed: false });
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut group = Group::new(3);
    let leader = group.elect();
    let to = follower_of(leader);
    group.handle(leader, Event::TransferLeadership { to });
    group.settle();
    assert!(group.members[&to].replica.is_leader());
}

#[test]
fn timings_change_at_run_time() {
    let mut group = Group::new(3);
    let leader = group.elect();
    for member in group.settings.voters.clone() {
        let (heartbeat, election_min) = (Duration::from_secs(1), Duration::from_secs(10));
        group.handle(member, Event::Timings { heartbeat, election_min });
    }
    group.cut.insert(leader);
    group.run(Duration::from_secs(9));
    let leads = |group: &Group| {
        group.members.iter().any(|(id, member)| *id != leader && member.replica.is_leader())
    };
    assert!(!leads(&group));
    group.run(Duration::from_secs(30));
    assert!(leads(&group));
}

#[test]
fn bounds_are_kept() {
    let limits = Limits { pending_max: 3, value_max: 4, key_max: 4, ..Limits::STANDARD };
    let mut group = Group::with_limits(3, limits);
    let leader = group.elect();
    assert_eq!(group.execute(leader, put("a", "12345")), Answer::TooLarge);
    assert_eq!(group.execute(leader, put("abcde", "1")), Answer::TooLarge);
    let requests: Vec<RequestId> = (0..5).map(|_| group.propose(leader, put("a", "1"))).collect();
    let reads: Vec<RequestId> = (0..5).map(|_| group.read(leader, "a")).collect();
    group.settle();
    for requests in [requests, reads] {
        let overloaded =
            requests.iter().filter(|request| group.answers[request] == Answer::Overloaded).count();
        assert_eq!(overloaded, 2);
    }
    let answer = group.execute(leader, put("a", "2"));
    assert_eq!(answer, Answer::Written { revision: 4, created: false, replayed: false });
}

#[test]
fn a_log_that_lost_what_was_committed_is_refused() {
    let mut group = Group::new(3);
    let leader = group.elect();
    group.execute(leader, put("a", "1"));
    group.execute(leader, put("a", "2"));
    let member = group.members.remove(&leader).unwrap();
    let without_entries: Vec<Vec<u8>> = member
        .records
        .into_iter()
        .filter(|record| !matches!(Record::decode(record), Ok(Record::Entry(_))))
        .collect();
    let refused = group.start(leader, without_entries, None);
    assert!(matches!(refused, Err(RestoreError::Lost { last: 0, .. })), "{refused:?}");
}

#[test]
fn foreign_bytes_are_counted_and_dropped() {
    let mut group = Group::new(3);
    let leader = group.elect();
    for bytes in [vec![], vec![1], vec![9, 1, 2], vec![1, 0xff, 0xff], b"GET / HTTP/1.1".to_vec()] {
        group.handle(leader, Event::Message(bytes));
    }
    group.settle();
    assert_eq!(group.members[&leader].replica.counters().rejected_messages, 5);
    assert!(group.members[&leader].replica.is_leader());
}
