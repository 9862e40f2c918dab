//! Runs seeds of the control world, and shows that it finds what it is there to find.

use evenkeel_sim::control_world::{Defect, Options, run};

#[test]
fn seeds_hold() {
    for seed in 0..6 {
        if let Err(failure) = run(seed, Options::default()) {
            panic!("{failure}");
        }
    }
}

#[test]
fn a_seed_replays_its_run_exactly() {
    let run = || run(11, Options::default()).map(|report| report.digest).ok();
    assert!(run().is_some());
    assert_eq!(run(), run());
}

/// Runs seeds with a defect until one fails, and returns what was seen.
fn find(defect: Defect) -> String {
    let options = Options { hosts: Some(5), defect: Some(defect) };
    let failure = (0..60).find_map(|seed| run(seed, options).err());
    let Some(failure) = failure else { panic!("{defect:?} was not found") };
    assert!(failure.to_string().contains("replay: cargo xtask sim --world control"));
    assert!(!failure.transcript.is_empty());
    failure.violation
}

#[test]
fn finds_hosts_that_follow_lower_plans() {
    let violation = find(Defect::PlanNumberIgnored);
    assert!(violation.contains("went back from plan"), "{violation}");
}

#[test]
fn finds_leaders_that_take_everybody_for_lost() {
    let violation = find(Defect::LeasesNotExtended);
    let seen = ["a change of leader alone made a new plan", "and nothing is wrong"];
    assert!(seen.iter().any(|text| violation.contains(text)), "{violation}");
}
