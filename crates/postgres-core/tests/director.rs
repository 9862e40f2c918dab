//! The director: when it begins an epoch, whom it chooses, and in which order sets change.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;

use evenkeel_postgres_core::director::{Director, Places};
use evenkeel_postgres_core::member::{Report, State};
use evenkeel_postgres_core::position::{Epoch, Lsn, Position};
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::record::{Phase, Record};
use evenkeel_postgres_core::settings::Patience;

use cluster::{B, C, at, set};

const A: Member = Member(0);

/// Returns places of which `sizes` members share a domain each.
fn places(sizes: &[u32]) -> Places {
    let shares = (0..).zip(sizes).flat_map(|(domain, size)| (0..*size).map(move |_| domain));
    let domains: BTreeMap<Member, u32> = (0..).map(Member).zip(shares).collect();
    let ranks = domains.keys().map(|member| (*member, member.0)).collect();
    Places { domains, ranks }
}

fn director() -> Director {
    Director::new(Patience::STANDARD, places(&[1, 1, 1]), None, at(0))
}

fn say(director: &mut Director, member: Member, promised: u64, state: State, now: u64) {
    director.hear(member, Report { promised: Epoch(promised), state }, at(now));
}

const LEADS: State = State::Leads { verified: true, confirmed: 1 };

fn promised(epoch: u64, lsn: u64) -> State {
    State::Promised(Position { epoch: Epoch(epoch), lsn: Lsn(lsn) })
}

fn record() -> Record {
    Record::begin(A, set(1, &[B, C]))
}

#[test]
fn acknowledgements_outlive_any_one_domain() {
    for (sizes, primary, needed) in [
        (&[1, 1, 1][..], 0, 1),
        (&[2, 2, 1], 0, 2),
        (&[2, 2, 1], 4, 2),
        (&[2, 2], 0, 2),
        (&[1, 1], 0, 1),
        (&[1], 0, 0),
        (&[3], 0, 2),
    ] {
        let places = places(sizes);
        let voters = places.domains.keys().copied().filter(|member| member.0 != primary).collect();
        assert_eq!(places.needed(Member(primary), &voters), needed, "{sizes:?} led by {primary}");
    }
}

#[test]
fn a_primary_that_is_heard_stays() {
    let mut director = director();
    for now in [100, 600, 1200] {
        for (member, state) in [(A, LEADS), (B, State::Follows), (C, State::Follows)] {
            say(&mut director, member, 1, state, now);
        }
        assert_eq!(director.decide(&record(), at(now + 700)), None);
    }
}

#[test]
fn a_primary_that_is_missing_is_replaced_if_enough_are_there() {
    let mut director = director();
    say(&mut director, A, 1, LEADS, 0);
    say(&mut director, B, 1, State::Follows, 700);
    assert_eq!(director.decide(&record(), at(800)), None, "one of two that are needed");
    say(&mut director, C, 1, State::Follows, 790);
    let next = director.decide(&record(), at(800)).unwrap();
    assert_eq!((next.epoch, next.phase, next.primary), (Epoch(2), Phase::Preparing, A));
    assert_eq!(next.counted, record().counted, "elections count as before");
}

#[test]
fn one_that_has_no_copy_is_not_there() {
    let mut director = director();
    say(&mut director, B, 1, State::Follows, 700);
    say(&mut director, C, 1, State::Lacking, 790);
    assert_eq!(director.decide(&record(), at(800)), None);
}

#[test]
fn a_primary_that_has_ended_is_replaced_at_once() {
    let mut director = director();
    say(&mut director, A, 1, State::Ended, 10);
    say(&mut director, B, 1, State::Follows, 10);
    say(&mut director, C, 1, State::Follows, 10);
    assert_eq!(director.decide(&record(), at(11)).map(|next| next.epoch), Some(Epoch(2)));
}

#[test]
fn a_director_that_has_just_begun_to_listen_takes_nobody_for_missing() {
    let mut director = Director::new(Patience::STANDARD, places(&[1, 1, 1]), None, at(5000));
    say(&mut director, B, 1, State::Follows, 5001);
    say(&mut director, C, 1, State::Follows, 5001);
    assert_eq!(director.decide(&record(), at(5700)), None);
}

#[test]
fn the_longest_log_of_the_latest_epoch_is_chosen() {
    let preparing = record().prepared();
    for (b, c, chosen) in [
        (promised(1, 100), promised(1, 90), B),
        (promised(1, 90), promised(1, 100), C),
        // A tie goes to whom the operator prefers.
        (promised(1, 100), promised(1, 100), B),
    ] {
        let mut director = director();
        say(&mut director, B, 2, b, 0);
        assert_eq!(director.decide(&preparing, at(1)), None, "one promise of two");
        say(&mut director, C, 2, c, 0);
        let next = director.decide(&preparing, at(1)).unwrap();
        assert_eq!((next.phase, next.primary), (Phase::Starting, chosen));
        let rest = [A, B, C].into_iter().filter(|member| *member != chosen);
        assert_eq!(next.counted, set(1, &rest.collect::<Vec<_>>()), "nobody is forgotten");
    }
}

#[test]
fn a_promise_of_another_epoch_does_not_count() {
    let preparing = record().prepared();
    let mut director = director();
    say(&mut director, B, 2, promised(1, 100), 0);
    say(&mut director, C, 1, promised(1, 100), 0);
    assert_eq!(director.decide(&preparing, at(1)), None);
}

#[test]
fn whoever_was_asked_takes_over_if_nobody_has_more() {
    let mut handed = record();
    handed.handover = Some(C);
    let preparing = handed.prepared();
    for (c, chosen) in [(100, C), (90, B)] {
        let mut director = director();
        say(&mut director, A, 2, promised(1, 100), 0);
        say(&mut director, B, 2, promised(1, 100), 0);
        say(&mut director, C, 2, promised(1, c), 0);
        let next = director.decide(&preparing, at(1)).unwrap();
        assert_eq!((next.primary, next.handover), (chosen, None));
    }
}

#[test]
fn a_chosen_one_serves_once_it_is_verified() {
    let position = Position { epoch: Epoch(1), lsn: Lsn(100) };
    let starting = record().prepared().chosen(B, position);
    let mut director = director();
    for verified in [false, true] {
        say(&mut director, B, 2, State::Leads { verified, confirmed: 0 }, 0);
        let next = director.decide(&starting, at(1));
        assert_eq!(next.map(|next| next.phase), verified.then_some(Phase::Running));
    }
}

#[test]
fn a_voter_that_stays_away_is_removed_only_after_the_primary_has_changed() {
    let mut director = director();
    let mut record = record();
    for now in (0..=5_200).step_by(400) {
        say(&mut director, A, 1, LEADS, now);
        say(&mut director, B, 1, State::Follows, now);
        if let Some(next) = director.decide(&record, at(now)) {
            record = next;
        }
    }
    assert_eq!((record.goal.set.clone(), record.counted.clone()), (set(1, &[B]), set(1, &[B, C])));
    assert_eq!(record.goal.number, 2);
    say(&mut director, A, 1, State::Leads { verified: true, confirmed: 2 }, 5_300);
    let confirmed = director.decide(&record, at(5_301)).unwrap();
    assert_eq!(confirmed.counted, set(1, &[B]));
    // It comes back: elections count it before the primary does.
    say(&mut director, C, 1, State::Follows, 5_400);
    say(&mut director, B, 1, State::Follows, 5_400);
    let widened = director.decide(&confirmed, at(5_401)).unwrap();
    assert_eq!((widened.goal.set, widened.counted), (set(1, &[B, C]), set(1, &[B, C])));
}

#[test]
fn the_last_voter_is_not_removed() {
    let mut director = director();
    let mut lone = record();
    (lone.goal.set, lone.counted) = (set(1, &[B]), set(1, &[B]));
    for now in (0..20_000).step_by(400) {
        say(&mut director, A, 1, LEADS, now);
        assert_eq!(director.decide(&lone, at(now)), None);
    }
}

/// Epoch 2, in which B was chosen where A's log went on.
fn led_by_b() -> Record {
    let position = Position { epoch: Epoch(1), lsn: Lsn(100) };
    record().prepared().chosen(B, position)
}

#[test]
fn a_log_that_differs_is_rewound_only_while_the_others_could_elect() {
    let record = led_by_b().running();
    let leads = State::Leads { verified: true, confirmed: record.goal.number };
    let mut director = director();
    say(&mut director, B, 2, leads, 0);
    say(&mut director, A, 2, promised(1, 120), 0);
    assert_eq!(director.decide(&record, at(1)), None, "A and B could elect, B alone could not");
    say(&mut director, C, 2, State::Follows, 1);
    let next = director.decide(&record, at(1)).unwrap();
    assert_eq!(next.rewinding, [A].into());
    // From then on it is nobody to elect by, though it may not have begun.
    say(&mut director, A, 2, promised(1, 120), 1000);
    say(&mut director, C, 2, State::Follows, 1000);
    assert_eq!(director.decide(&next, at(1001)), None, "B is missing, and C is alone");
    // It follows, and counts again.
    say(&mut director, A, 2, State::Follows, 1002);
    let next = director.decide(&next, at(1003)).unwrap();
    assert_eq!((next.epoch, next.rewinding.len()), (Epoch(2), 0));
    let next = director.decide(&next, at(1003)).unwrap();
    assert_eq!((next.epoch, next.phase), (Epoch(3), Phase::Preparing));
}

#[test]
fn a_rewind_is_over_once_its_member_follows() {
    let mut record = led_by_b().running();
    record.rewinding = [A].into();
    let mut director = director();
    say(&mut director, B, 2, State::Leads { verified: true, confirmed: 2 }, 0);
    for (state, over) in [(State::Lacking, false), (State::Busy, false), (State::Waits, true)] {
        say(&mut director, A, 2, state.clone(), 0);
        let rewinding = director.decide(&record, at(1)).map(|next| next.rewinding);
        assert_eq!(rewinding, over.then(Default::default), "{state:?}");
    }
}

#[test]
fn a_primary_without_its_data_is_replaced() {
    let mut director = director();
    say(&mut director, A, 1, State::Lacking, 0);
    say(&mut director, B, 1, State::Follows, 0);
    say(&mut director, C, 1, State::Follows, 0);
    assert_eq!(director.decide(&record(), at(1)).map(|next| next.epoch), Some(Epoch(2)));
}

#[test]
fn a_chosen_one_that_does_not_come_up_is_replaced() {
    let starting = led_by_b();
    let mut director = director();
    let decided = |now, director: &mut Director| {
        say(director, B, 2, State::Busy, now);
        say(director, A, 2, State::Waits, now);
        say(director, C, 2, State::Waits, now);
        director.decide(&starting, at(now)).map(|next| next.epoch)
    };
    for now in (0..=10_000).step_by(500) {
        assert_eq!(decided(now, &mut director), None, "{now}");
    }
    assert_eq!(decided(10_001, &mut director), Some(Epoch(3)));
}

#[test]
fn a_wish_that_nobody_fulfils_is_given_up() {
    let mut wish = record();
    wish.handover = Some(C);
    let mut director = director();
    for now in (0..=10_000).step_by(500) {
        say(&mut director, A, 1, LEADS, now);
        assert_eq!(director.decide(&wish, at(now)), None, "{now}");
    }
    say(&mut director, A, 1, LEADS, 10_001);
    assert_eq!(director.decide(&wish, at(10_001)), Some(record()));
}

#[test]
fn voters_are_removed_before_fewer_are_needed() {
    // Members 0 and 1 stand together, 2 and 3, and 4 alone.
    let (b, d) = (Member(2), Member(4));
    let mut director = Director::new(Patience::STANDARD, places(&[2, 2, 1]), None, at(0));
    let mut record = Record::begin(A, set(2, &[Member(1), b, Member(3), d]));
    let mut goals = Vec::new();
    for now in (0..=6_000).step_by(400) {
        let confirmed = record.goal.number;
        say(&mut director, A, 1, State::Leads { verified: true, confirmed }, now);
        say(&mut director, b, 1, State::Follows, now);
        say(&mut director, d, 1, State::Follows, now);
        if let Some(next) = director.decide(&record, at(now)) {
            goals.push((next.goal.set.clone(), next.counted.promises_needed()));
            record = next;
        }
    }
    // Elections never ask for more than the three that are there.
    let two = set(2, &[b, d]);
    assert_eq!(goals, [(two.clone(), 3), (two, 1), (set(1, &[b, d]), 2)]);
}

#[test]
fn whoever_follows_a_primary_that_starts_becomes_its_voter() {
    let starting = led_by_b();
    let mut director = director();
    say(&mut director, B, 2, State::Leads { verified: false, confirmed: 0 }, 0);
    say(&mut director, Member(3), 2, State::Follows, 0);
    let next = director.decide(&starting, at(1)).unwrap();
    assert_eq!((next.phase, next.goal.set), (Phase::Starting, set(1, &[A, C, Member(3)])));
}
