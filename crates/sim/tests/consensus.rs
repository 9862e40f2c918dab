//! The coordinator's members under every fault: the correct one passes, broken ones do not.

use std::ops::Range;

use evenkeel_consensus::settings::Defect;
use evenkeel_sim::consensus_world::{Options, run};
use evenkeel_sim::seeds;

/// Runs seeds; `cargo test` runs the ranges of several tests side by side.
fn check_correct(seeds: Range<u64>) {
    let (mut crashes, mut lost_disks, mut terms, mut snapshots) = (0, 0, 0, 0);
    let (mut watched, mut holds) = (0, 0);
    for seed in seeds {
        match run(seed, Options::default()) {
            Ok(report) => {
                crashes += report.crashes;
                lost_disks += report.lost_disks;
                watched += report.watched;
                holds += report.holds;
                terms += report.terms;
                snapshots += report.snapshots;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    // A storm in which nothing happens proves nothing.
    assert!(crashes > 500 && terms > 400 && snapshots > 30, "{crashes} {terms} {snapshots}");
    assert!(lost_disks > 20, "{lost_disks}");
    assert!(watched > 10_000 && holds > 100, "{watched} {holds}");
}

/// Checks that a seed finds a defect, by what it breaks: one of `broken`.
fn check_found(defect: Defect, seeds: Range<u64>, broken: &[&str]) {
    let options = Options { defect: Some(defect), ..Options::default() };
    let found = seeds.into_iter().any(|seed| {
        let violation =
            run(seed, options).map_or_else(|failure| failure.violation, |_| String::new());
        broken.iter().any(|words| violation.contains(words))
    });
    assert!(found, "{defect:?}");
}

#[test]
fn two_hundred_seeds_pass_first_half() {
    check_correct(0..100);
}

#[test]
fn two_hundred_seeds_pass_second_half() {
    check_correct(100..200);
}

#[test]
fn old_failures_stay_mended() {
    for old in seeds::CONSENSUS {
        if let Err(failure) = run(old.seed, old.consensus_options()) {
            panic!("{failure}\n{} is back", old.cause);
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 300..305 {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first, second, "seed {seed}");
        assert!(first.acknowledged > 50, "seed {seed}: {first:?}");
    }
    let options = Options { defect: Some(Defect::EntriesNotPersisted), ..Options::default() };
    let texts = [(); 2].map(|()| run(0, options).unwrap_err().to_string());
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_vote_that_is_not_persisted_is_found() {
    check_found(Defect::VoteNotPersisted, 0..500, &["both lead in term"]);
}

#[test]
fn a_ready_that_is_acknowledged_early_is_found() {
    let broken = ["out of range", "without entry", "another entry", "another state"];
    check_found(Defect::ReadyAcknowledgedEarly, 0..100, &broken);
}

#[test]
fn a_read_without_a_quorum_is_found() {
    check_found(Defect::ReadWithoutQuorum, 0..100, &["which had ended before", "real-time order"]);
}

#[test]
fn entries_that_are_not_persisted_are_found() {
    check_found(Defect::EntriesNotPersisted, 0..20, &["were committed, but the log ends"]);
}

#[test]
fn a_vote_without_memory_is_found() {
    check_found(Defect::VotesWhileRejoining, 0..500, &["without entry", "another entry"]);
}

#[test]
fn a_lease_that_an_election_ends_is_found() {
    check_found(Defect::LeasesNotExtended, 0..200, &["too early"]);
}

#[test]
fn a_failure_tells_how_to_see_it_again() {
    let options = Options { defect: Some(Defect::EntriesNotPersisted), hosts: Some(3) };
    let failure = (0..20).find_map(|seed| run(seed, options).err()).unwrap();
    let text = failure.to_string();
    let replay = format!("--seed {} --hosts 3 --defect EntriesNotPersisted", failure.seed);
    assert!(text.ends_with(&replay), "{text}");
    assert!(text.contains("nemesis: "), "{text}");
}
