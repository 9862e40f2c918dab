//! One member goes on alone, and those that were given up come back.

use evenkeel_consensus::command::Space;
use evenkeel_consensus::lineage::Lineage;
use evenkeel_consensus::members::MembersChange;
use evenkeel_coordinator::log;

use crate::members::{change, member, put, wait_for_voters};
use crate::support::System;

/// Three voters of which the second and the third are gone, and the first goes on alone.
fn alone() -> (System, Lineage) {
    let mut system = System::start(3, 0);
    put(&system, 0, "1");
    system.wait_until("the first voter holds it", |system| {
        system.get(0, "/v1/kv/a?stale").body == "1"
    });
    for number in 0..3 {
        system.kill(number);
    }
    let survivor = system.survivor(0).unwrap();
    assert_eq!(survivor.keys().get(Space::User, "a").unwrap().value, "1");
    assert_eq!(survivor.keys().lineage(), Lineage::FIRST);
    let lineage = survivor.succeed(7).unwrap();
    system.restart(0);
    system.wait_until("it leads alone", |system| system.is_healthy(0));
    assert_eq!(system.get(0, "/v1/kv/a").body, "1");
    (system, lineage)
}

fn wait_until_superseded(system: &System, number: usize, by: Lineage) {
    system.wait_until("it hears of the later lineage", |system| {
        *system.coordinator(number).superseded().borrow() == Some(by)
    });
}

#[test]
fn a_lone_survivor_goes_on_and_gets_others_again() {
    let (mut system, lineage) = alone();
    put(&system, 0, "2");
    // Of the past, nothing is told that may be different from what was answered then.
    assert_eq!(system.get(0, "/v1/kv/a?revision=1").code(), "compacted");
    // Who was given up hears of it, and begins anew.
    system.restart(1);
    wait_until_superseded(&system, 1, lineage);
    system.kill(1);
    let kept = log::set_aside(&system.log(1)).unwrap();
    assert_eq!(log::contents(&kept).unwrap(), log::Contents::Log);
    system.restart(1);
    system.wait_until("it finds who leads", |system| system.is_healthy(1));
    change(&system, 0, MembersChange::AddLearner(member(&system, 1)));
    let promote = MembersChange::Promote { learner: member(&system, 1), in_place_of: None };
    change(&system, 0, promote);
    wait_for_voters(&system, 1, &[0, 1]);
    put(&system, 1, "3");
    // The lineage is in the log: it lasts, and whoever was filled from it is of it.
    for number in [0, 1] {
        system.kill(number);
    }
    for number in [0, 1] {
        let survivor = system.survivor(number).unwrap();
        assert_eq!(survivor.keys().lineage(), lineage);
        system.restart(number);
    }
    system.wait_until("there is a leader again", |system| system.is_healthy(1));
    assert_eq!(system.get(1, "/v1/kv/a").body, "3");
}

#[test]
fn a_majority_that_was_given_up_stands_down_once_it_hears_of_the_survivor() {
    let (mut system, lineage) = alone();
    put(&system, 0, "2");
    for number in [1, 2] {
        system.restart(number);
    }
    for number in [1, 2] {
        wait_until_superseded(&system, number, lineage);
    }
    // Both begin anew and call no election of their own, so only the survivor can answer.
    for number in [1, 2] {
        system.kill(number);
        log::set_aside(&system.log(number)).unwrap();
        system.restart(number);
    }
    for number in [1, 2] {
        system.wait_until("it finds who leads", |system| system.is_healthy(number));
        assert_eq!(system.get(number, "/v1/kv/a").body, "2");
    }
}

#[test]
fn a_member_that_lost_its_log_is_not_gone_on_from() {
    let mut system = System::start(3, 0);
    put(&system, 0, "1");
    for number in 0..3 {
        system.kill(number);
    }
    std::fs::remove_dir_all(system.log(2)).unwrap();
    assert!(system.survivor(2).is_err(), "it holds nothing");
    log::mark_rejoining(&system.log(2)).unwrap();
    assert!(system.survivor(2).is_err(), "it holds nothing");
    // A dry run changes nothing.
    drop(system.survivor(0).unwrap());
    for number in 0..3 {
        system.restart(number);
    }
    system.wait_until("there is a leader again", |system| system.is_healthy(0));
    assert_eq!(system.standing(0).voters.len(), 3);
}
