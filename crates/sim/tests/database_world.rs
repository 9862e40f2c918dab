//! A PostgreSQL cluster under every fault: the correct protocol passes, broken ones do not.

use evenkeel_postgres_core::settings::Defect;
use evenkeel_sim::database_world::{Options, run};

#[test]
fn seeds_hold() {
    let (mut acknowledged, mut reads, mut primaries, mut faults, mut copies) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        match run(seed, Options::default()) {
            Ok(report) => {
                acknowledged += report.acknowledged;
                reads += report.reads;
                primaries += report.primaries;
                faults += report.faults;
                copies += report.copies;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    // A storm in which nothing happens proves nothing.
    assert!(acknowledged > 10_000 && reads > 5_000, "{acknowledged} {reads}");
    assert!(primaries > 600 && faults > 3_000 && copies > 100, "{primaries} {faults} {copies}");
}

#[test]
fn a_seed_replays_its_run_exactly() {
    for seed in 300..305 {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(first.unwrap(), second.unwrap(), "seed {seed}");
    }
}

#[test]
fn a_failure_tells_how_to_see_it_again() {
    let options = Options { hosts: Some(3), defect: Some(Defect::GroupOfTheVerified) };
    let failure = (0..200).find_map(|seed| run(seed, options).err());
    let Some(failure) = failure else { panic!("nothing was found") };
    let text = failure.to_string();
    let replay = format!("--seed {} --hosts 3 --defect GroupOfTheVerified", failure.seed);
    assert!(text.ends_with(&replay), "{text}");
    assert!(text.contains("Promote") && text.contains("the store"), "{text}");
}
