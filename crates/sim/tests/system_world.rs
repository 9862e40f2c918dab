//! Whole systems under every fault: correct ones pass, broken ones do not.

use evenkeel_sim::defects::VARIANTS;
use evenkeel_sim::seeds;
use evenkeel_sim::system_world::{Defect, Options, run};

#[test]
fn seeds_hold() {
    let (mut faults, mut plans, mut acknowledged, mut problems) = (0, 0, 0, 0);
    for seed in 0..12 {
        match run(seed, Options::default()) {
            Ok(report) => {
                faults += report.faults;
                plans += report.plans;
                acknowledged += report.acknowledged;
                problems += report.problems;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    // A storm in which nothing happens proves nothing.
    assert!(faults > 50 && plans > 30, "{faults} {plans}");
    assert!(acknowledged > 500 && problems > 0, "{acknowledged} {problems}");
}

#[test]
fn old_failures_stay_mended() {
    for old in seeds::SYSTEM {
        if let Err(failure) = run(old.seed, old.system_options()) {
            panic!("{failure}\n{} is back", old.cause);
        }
    }
}

#[test]
fn a_seed_replays_its_run_exactly() {
    let run = || run(3, Options::default()).map(|report| report.digest).ok();
    assert!(run().is_some());
    assert_eq!(run(), run());
}

#[test]
fn a_failure_tells_how_to_see_it_again() {
    let options = Options { hosts: Some(5), defect: Some(Defect::AdoptsNothing) };
    let failure = (0..60).find_map(|seed| run(seed, options).err());
    let Some(failure) = failure else { panic!("nothing was found") };
    let text = failure.to_string();
    let replay = format!("--seed {} --hosts 5 --defect AdoptsNothing", failure.seed);
    assert!(text.ends_with(&replay), "{text}");
    assert!(text.contains("node dies"), "{text}");
}

#[test]
fn every_defect_has_a_reason_of_its_own() {
    for variant in VARIANTS {
        assert!(!variant.words.is_empty(), "{:?}", variant.defect);
    }
}
