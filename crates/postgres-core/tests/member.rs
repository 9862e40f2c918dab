//! A member: the one next step from what it kept and what it sees.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_postgres_core::member::{
    Action, Data, Facts, Guard, Leading, Machine, Seen, Server, Settings, State,
};
use evenkeel_postgres_core::position::{Epoch, Lsn, Position, Timeline};
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::record::{Goal, Record};

use cluster::{B, C, at, set};

const A: Member = Member(0);

fn goal(needed: usize, voters: &[Member], number: u64) -> Goal {
    Goal { set: set(needed, voters), number }
}

fn machine(member: Member) -> Machine {
    Machine::new(Settings { member, restart_after: Duration::from_secs(3), defect: None })
}

const fn place(epoch: u64, lsn: u64) -> Position {
    Position { epoch: Epoch(epoch), lsn: Lsn(lsn) }
}

fn running() -> Record {
    Record::begin(A, set(1, &[B, C]))
}

/// Epoch 2, in which B was chosen with a log that ends at 100.
fn starting() -> Record {
    running().prepared().chosen(B, place(1, 100))
}

const fn standby(upstream: Option<(Member, Epoch)>, settled: Option<Position>) -> Server {
    Server::Standby { upstream, receives: false, settled }
}

/// Returns facts of a member that has kept `record` and told its guard.
fn facts(record: &Record, server: Server) -> Facts {
    let guard =
        Guard { promised: Some(record.epoch), ready: record.epoch, leased: None, goal: None };
    Facts {
        kept: Some(Seen { revision: 1, record: record.clone() }),
        data: Data::Whole { led: None },
        server,
        guard: Some(guard),
    }
}

/// Returns facts with the lease of the record's epoch, by its goal.
fn leased(record: &Record, server: Server) -> Facts {
    let mut facts = facts(record, server);
    if let Some(guard) = &mut facts.guard {
        guard.leased = Some(record.epoch);
        guard.goal = Some(record.goal.number);
    }
    facts
}

fn leading(record: &Record, end: u64, flushed: &[(Member, u64)]) -> Server {
    Server::Primary(Leading {
        life: 1,
        epoch: record.epoch,
        end: Lsn(end),
        goal: record.goal.number,
        flushed: flushed
            .iter()
            .map(|(member, lsn)| (*member, Lsn(*lsn)))
            .collect::<BTreeMap<_, _>>(),
    })
}

fn check(member: Member, facts: &Facts, expected: Option<&Action>) {
    assert_eq!(machine(member).decide(facts, at(0)).as_ref(), expected, "{member}: {facts:?}");
}

#[test]
fn what_is_heard_is_kept_first() {
    let mut machine = machine(C);
    let seen = Seen { revision: 2, record: running().prepared() };
    machine.hear(seen.clone());
    machine.hear(Seen { revision: 1, record: running() });
    let mut facts = facts(&running(), standby(Some((A, Epoch(1))), None));
    assert_eq!(machine.decide(&facts, at(0)), Some(Action::Keep(seen.clone())));
    // Kept, it is a promise: first the guard hears of it, then the earlier primary is left.
    facts.kept = Some(seen);
    assert_eq!(machine.decide(&facts, at(0)), Some(Action::Promise(Epoch(2))));
    facts.guard = facts.guard.map(|guard| Guard { promised: Some(Epoch(2)), ..guard });
    assert_eq!(machine.decide(&facts, at(0)), Some(Action::Follow(None)));
    facts.server = standby(None, Some(place(1, 90)));
    assert_eq!(machine.decide(&facts, at(0)), None);
    // It counts once the guard has done its part as well.
    let state = |facts: &Facts| machine.report(facts).map(|report| report.state);
    assert_eq!(state(&facts), Some(State::Busy));
    facts.guard = facts.guard.map(|guard| Guard { ready: Epoch(2), ..guard });
    assert_eq!(state(&facts), Some(State::Promised(place(1, 90))));
}

#[test]
fn without_a_guard_nothing_is_done() {
    let facts = Facts { guard: None, ..facts(&running(), Server::Down) };
    check(A, &facts, None);
}

#[test]
fn a_log_that_is_a_beginning_follows_and_any_other_waits_to_be_rewound() {
    let record = starting();
    let follow = Action::Follow(Some((B, Epoch(2))));
    check(C, &facts(&record, standby(None, Some(place(1, 100)))), Some(&follow));
    check(C, &facts(&record, standby(None, Some(place(1, 101)))), None);
    let mut allowed = record.clone();
    allowed.rewinding.insert(C);
    let differs = facts(&allowed, standby(None, Some(place(1, 101))));
    check(C, &differs, Some(&Action::Rewind(B)));
    // Begun, it must end, whatever the record says by then; and nothing is cloned but into nothing.
    let torn = Facts { data: Data::Torn, ..facts(&record, Server::Down) };
    check(C, &torn, Some(&Action::Rewind(B)));
    let nothing = Facts { data: Data::Nothing, ..facts(&record, Server::Down) };
    check(C, &nothing, Some(&Action::Clone(B)));
    assert_eq!(machine(C).report(&nothing).map(|report| report.state), Some(State::Lacking));
}

#[test]
fn a_chosen_one_is_promoted_with_a_lease_and_where_it_was_chosen() {
    let record = starting();
    let waits = standby(None, Some(place(1, 100)));
    let reign = Action::Reign(Epoch(2), goal(1, &[A, C], 2));
    check(B, &facts(&record, waits.clone()), Some(&reign));
    let promote = Action::Promote(Epoch(2), Timeline(2), goal(1, &[A, C], 2));
    check(B, &leased(&record, waits), Some(&promote));
    // A log that is not the one that was chosen is never promoted.
    check(B, &leased(&record, standby(None, Some(place(1, 99)))), None);
}

#[test]
fn a_primary_serves_once_its_voters_have_what_it_began_with() {
    let record = starting();
    let mut machine = machine(B);
    for (voters, state) in [
        (&[][..], State::Leads { verified: false, confirmed: 0 }),
        (&[(C, 119)], State::Leads { verified: false, confirmed: 0 }),
        (&[(C, 120)], State::Leads { verified: true, confirmed: 2 }),
    ] {
        let facts = leased(&record, leading(&record, 120, voters));
        assert_eq!(machine.decide(&facts, at(0)), None);
        assert_eq!(machine.report(&facts).map(|report| report.state), Some(state));
        assert_eq!(machine.open(&facts), None, "the record does not say that it serves");
    }
    let running = record.running();
    let serves = leased(&running, leading(&running, 150, &[(C, 120)]));
    assert_eq!(machine.open(&serves), Some((Epoch(2), 1)));
    // Without its lease it serves no more.
    assert_eq!(machine.open(&facts(&running, leading(&running, 150, &[(C, 150)]))), None);
}

#[test]
fn a_goal_is_confirmed_when_everybody_uses_it_and_its_voters_have_the_log() {
    let record = running().with_goal(set(1, &[B])).unwrap_or_else(running);
    let mut machine = machine(A);
    let Server::Primary(primary) = leading(&record, 200, &[(B, 200), (C, 200)]) else { return };
    let old = Server::Primary(Leading { goal: 1, ..primary.clone() });
    let acknowledge = Action::Acknowledge(Epoch(1), goal(1, &[B], 2));
    assert_eq!(machine.decide(&leased(&record, old), at(0)), Some(acknowledge));
    let confirmed = |machine: &Machine, facts: &Facts| match machine.report(facts) {
        Some(report) => report.state == State::Leads { verified: true, confirmed: 2 },
        None => false,
    };
    // Not while the guard still counts on the voter that is to go.
    let mut waits = leased(&record, Server::Primary(primary.clone()));
    waits.guard = waits.guard.map(|guard| Guard { goal: Some(1), ..guard });
    let reign = Action::Reign(Epoch(1), goal(1, &[B], 2));
    assert_eq!(machine.decide(&waits, at(0)), Some(reign));
    assert!(!confirmed(&machine, &waits));
    let done = leased(&record, Server::Primary(primary));
    assert_eq!(machine.decide(&done, at(0)), None);
    assert!(confirmed(&machine, &done));
}

#[test]
fn a_primary_that_ended_waits_for_another_before_it_starts_again() {
    let record = running();
    let mut machine = machine(A);
    let down = |mut facts: Facts| {
        facts.data = Data::Whole { led: Some(Epoch(1)) };
        facts
    };
    let ended = down(facts(&record, Server::Down));
    assert_eq!(machine.decide(&ended, at(1000)), None);
    assert_eq!(machine.report(&ended).map(|report| report.state), Some(State::Ended));
    assert_eq!(machine.decide(&ended, at(3999)), None);
    let reign = Action::Reign(Epoch(1), goal(1, &[B, C], 1));
    assert_eq!(machine.decide(&ended, at(4000)), Some(reign));
    let restart = Action::Restart(Epoch(1), goal(1, &[B, C], 1));
    assert_eq!(machine.decide(&down(leased(&record, Server::Down)), at(4001)), Some(restart));
}

#[test]
fn whoever_is_to_hand_over_stops_once() {
    let mut record = running();
    record.handover = Some(B);
    let mut machine = machine(A);
    let serves = leased(&record, leading(&record, 200, &[(B, 200)]));
    assert_eq!(machine.decide(&serves, at(0)), Some(Action::Stop));
    let down = Facts { data: Data::Whole { led: Some(Epoch(1)) }, ..facts(&record, Server::Down) };
    assert_eq!(machine.decide(&down, at(100)), None);
    // Nobody took over, and it serves again.
    assert_eq!(machine.decide(&serves, at(9000)), None);
}
