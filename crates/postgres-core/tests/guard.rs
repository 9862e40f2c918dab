//! The guard: who may hold a lease, until when, and what a promise waits for.

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::guard::{Action, Event, Guard, Settings};
use evenkeel_postgres_core::lease::{Incarnation, Message};
use evenkeel_postgres_core::position::Epoch;
use evenkeel_postgres_core::quorum::{Member, SyncSet};
use evenkeel_postgres_core::record::Goal;
use evenkeel_postgres_core::settings::LeaseTimes;

use cluster::{B, C, at, set};

const TIMES: LeaseTimes = LeaseTimes::STANDARD;

fn guard(promised: Option<u64>, now: Timestamp) -> Guard {
    let promised = promised.map(Epoch);
    let settings = Settings { times: TIMES, promised, first: Incarnation(10), defect: None };
    Guard::new(settings, now)
}

fn actions(guard: &mut Guard) -> Vec<Action> {
    std::iter::from_fn(|| guard.poll_action()).collect()
}

/// Returns the questions that it asks: whom, as which incarnation and by which nonce.
fn questions(guard: &mut Guard) -> Vec<(Member, Incarnation, u64)> {
    let asks = actions(guard).into_iter().filter_map(|action| match action {
        Action::Send { to, message: Message::Ask { incarnation, nonce, .. } } => {
            Some((to, incarnation, nonce))
        }
        Action::Send { .. } | Action::Serve { .. } | Action::Kill => None,
    });
    asks.collect()
}

fn grant(guard: &mut Guard, from: Member, asked: (Incarnation, u64), epoch: u64, now: Timestamp) {
    let (incarnation, nonce) = asked;
    let message = Message::Grant { epoch: Epoch(epoch), incarnation, nonce };
    guard.handle_event(Event::Message { from, message }, now);
}

fn reign(guard: &mut Guard, epoch: u64, set: SyncSet, number: u64, now: Timestamp) {
    let goal = Goal { set, number };
    guard.handle_event(Event::Reign { epoch: Epoch(epoch), goal }, now);
}

/// Returns a guard that serves epoch 4 by a grant that was asked for at 0 and came at 40.
fn serving() -> Guard {
    let mut guard = guard(Some(4), at(0));
    reign(&mut guard, 4, set(1, &[B, C]), 7, at(0));
    let asked = questions(&mut guard);
    assert_eq!(asked.len(), 2);
    grant(&mut guard, B, (asked[0].1, asked[0].2), 4, at(40));
    guard.handle_event(Event::Serve { epoch: Epoch(4) }, at(41));
    assert_eq!(actions(&mut guard), [Action::Serve { epoch: Epoch(4) }]);
    guard
}

#[test]
fn a_lease_lasts_from_when_it_was_asked_for() {
    let guard = serving();
    assert_eq!(guard.lease(at(999)), Some((Epoch(4), at(1000))));
    assert_eq!(guard.lease(at(1000)), None);
}

#[test]
fn nobody_serves_without_enough_grants() {
    let mut guard = guard(Some(4), at(0));
    reign(&mut guard, 4, set(2, &[B, C]), 7, at(0));
    let asked = questions(&mut guard);
    grant(&mut guard, B, (asked[0].1, asked[0].2), 4, at(1));
    guard.handle_event(Event::Serve { epoch: Epoch(4) }, at(2));
    assert_eq!(actions(&mut guard), []);
    // Neither twice by the same one, nor by the answer to a question that nobody asked.
    grant(&mut guard, B, (asked[0].1, asked[0].2), 4, at(3));
    grant(&mut guard, C, (asked[0].1, 999), 4, at(3));
    guard.handle_event(Event::Serve { epoch: Epoch(4) }, at(4));
    assert_eq!(actions(&mut guard), []);
    grant(&mut guard, C, (asked[1].1, asked[1].2), 4, at(5));
    guard.handle_event(Event::Serve { epoch: Epoch(4) }, at(6));
    assert_eq!(actions(&mut guard), [Action::Serve { epoch: Epoch(4) }]);
}

#[test]
fn a_lease_that_ends_kills_and_is_given_back_once_all_is_dead() {
    let mut guard = serving();
    guard.handle_timeout(at(1000));
    assert_eq!(actions(&mut guard), [Action::Kill]);
    // Nothing is asked for while PostgreSQL may live.
    guard.handle_timeout(at(1500));
    assert_eq!((actions(&mut guard), guard.poll_timeout()), (Vec::new(), None));
    guard.handle_event(Event::Ended, at(1600));
    let stopped = Message::Stopped { epoch: Epoch(4), incarnation: Incarnation(10) };
    let told = [B, C].map(|to| Action::Send { to, message: stopped });
    assert_eq!(actions(&mut guard), told);
}

#[test]
fn what_was_granted_to_a_dead_one_starts_no_other() {
    let mut guard = guard(Some(4), at(0));
    reign(&mut guard, 4, set(1, &[B]), 7, at(0));
    let asked = questions(&mut guard);
    guard.handle_event(Event::Ended, at(10));
    reign(&mut guard, 4, set(1, &[B]), 7, at(20));
    actions(&mut guard);
    grant(&mut guard, B, (asked[0].1, asked[0].2), 4, at(30));
    assert_eq!(guard.lease(at(30)), None);
}

#[test]
fn a_promise_waits_until_its_grants_have_run_out() {
    let mut voter = guard(Some(4), at(0));
    let ask = |epoch, incarnation| Message::Ask { epoch: Epoch(epoch), incarnation, nonce: 1 };
    let asked = Event::Message { from: C, message: ask(4, Incarnation(3)) };
    voter.handle_event(asked, at(5000));
    assert_eq!(actions(&mut voter).len(), 1, "granted");
    voter.handle_event(Event::Promise { epoch: Epoch(5) }, at(5001));
    let wait = TIMES.voter_wait();
    assert_eq!(voter.ready(at(5000) + wait - Duration::from_nanos(1)), Epoch::NONE);
    assert_eq!(voter.ready(at(5000) + wait), Epoch(5));
    // What was promised is not granted any more, what is as new is.
    voter.handle_event(Event::Message { from: C, message: ask(4, Incarnation(4)) }, at(5002));
    assert_eq!(actions(&mut voter), []);
    voter.handle_event(Event::Message { from: C, message: ask(5, Incarnation(4)) }, at(5003));
    assert_eq!(actions(&mut voter).len(), 1);
    // And whoever has stopped needs no waiting for.
    let stopped = Message::Stopped { epoch: Epoch(4), incarnation: Incarnation(3) };
    voter.handle_event(Event::Message { from: C, message: stopped }, at(5004));
    assert_eq!(voter.ready(at(5004)), Epoch(5));
}

#[test]
fn a_new_guard_waits_for_what_one_before_it_may_have_granted() {
    let mut voter = guard(Some(4), at(100));
    voter.handle_event(Event::Promise { epoch: Epoch(5) }, at(101));
    let wait = TIMES.voter_wait();
    assert_eq!(voter.ready(at(100) + wait - Duration::from_nanos(1)), Epoch::NONE);
    assert_eq!(voter.ready(at(100) + wait), Epoch(5));
}

#[test]
fn without_a_promise_on_disk_nothing_is_granted() {
    let mut voter = guard(None, at(0));
    let message = Message::Ask { epoch: Epoch(9), incarnation: Incarnation(1), nonce: 1 };
    voter.handle_event(Event::Message { from: C, message }, at(1));
    assert_eq!(actions(&mut voter), []);
    voter.handle_event(Event::Promise { epoch: Epoch(9) }, at(2));
    voter.handle_event(Event::Message { from: C, message }, at(3));
    assert_eq!(actions(&mut voter).len(), 1);
}

#[test]
fn its_own_promise_ends_its_reign() {
    let mut guard = serving();
    guard.handle_event(Event::Promise { epoch: Epoch(5) }, at(50));
    assert_eq!(actions(&mut guard), [Action::Kill]);
    assert_eq!((guard.ready(at(9000)), guard.lease(at(60))), (Epoch::NONE, None));
    guard.handle_event(Event::Ended, at(9001));
    assert_eq!(guard.ready(at(9001)), Epoch(5));
}

#[test]
fn another_set_holds_only_once_its_voters_have_granted() {
    let mut guard = serving();
    reign(&mut guard, 4, set(1, &[C]), 8, at(100));
    assert_eq!(guard.goal(), Some(7));
    guard.handle_timeout(at(250));
    let asked = questions(&mut guard);
    let c = asked.iter().find(|(to, ..)| *to == C).copied();
    let (_, incarnation, nonce) = c.unwrap();
    grant(&mut guard, C, (incarnation, nonce), 4, at(260));
    assert_eq!((guard.goal(), guard.lease(at(260))), (Some(8), Some((Epoch(4), at(1250)))));
}

#[test]
fn a_primary_without_voters_needs_no_lease() {
    let mut guard = guard(Some(1), at(0));
    reign(&mut guard, 1, set(0, &[]), 1, at(0));
    guard.handle_event(Event::Serve { epoch: Epoch(1) }, at(1));
    assert_eq!(actions(&mut guard), [Action::Serve { epoch: Epoch(1) }]);
    guard.handle_timeout(at(1_000_000));
    assert_eq!(actions(&mut guard), []);
}

#[test]
fn a_voter_keeps_to_its_grant_for_longer_than_any_clock_lets_the_primary() {
    // The primary's clock is slow, the voter's fast, each by as much as is allowed.
    let true_time = TIMES.term.as_secs_f64() / 0.95 + TIMES.kill_max.as_secs_f64();
    assert!(TIMES.voter_wait().as_secs_f64() >= true_time * 1.05 - 1e-9);
}
