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
