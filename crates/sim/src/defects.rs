//! Bugs that the simulator must find, each by what it breaks and within how many seeds.
//!
//! They are switched on in the cores themselves, by their `Defect` settings. A simulator that finds
//! none of them any more has stopped to look, whatever it says of the correct cores.

use evenkeel_consensus::settings::Defect as MemberDefect;

use evenkeel_postgres_core::settings::Defect as DatabaseDefect;

use crate::failure::Failure;
use crate::system_world::Defect as SystemDefect;
use crate::{consensus_world, database_world, system_world};

/// Most seeds that a bug of the control plane may stay hidden for.
const SEEDS_MAX: u64 = 500;

/// Most seeds that a bug of the database's fail-over may stay hidden for: they are quicker.
const DATABASE_SEEDS_MAX: u64 = 2000;

/// A bug and how it must show.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// The bug, in its world.
    pub defect: Defect,
    /// Words of which the violation must have one: the right reason.
    pub words: &'static [&'static str],
}

/// A bug, in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Of a coordinator's member.
    Consensus(MemberDefect),
    /// Of a host.
    System(SystemDefect),
    /// Of a member of a PostgreSQL cluster.
    Database(DatabaseDefect),
}

/// Every bug that must be found.
pub const VARIANTS: &[Variant] = &[
    consensus(MemberDefect::VoteNotPersisted, &["both lead in term"]),
    consensus(
        MemberDefect::ReadyAcknowledgedEarly,
        &["out of range", "without entry", "another entry", "another state"],
    ),
    consensus(MemberDefect::ReadWithoutQuorum, &["which had ended before", "real-time order"]),
    consensus(MemberDefect::EntriesNotPersisted, &["were committed, but the log ends"]),
    consensus(MemberDefect::VotesWhileRejoining, &["without entry", "another entry"]),
    consensus(MemberDefect::LeasesNotExtended, &["too early"]),
    consensus(
        MemberDefect::MembersForgotten,
        &["both lead in term", "without entry", "another entry", "two groups"],
    ),
    consensus(MemberDefect::SnapshotNamesFirstVoters, &["stays at entry"]),
    system(SystemDefect::PlanNumberIgnored, &["went back from plan"]),
    system(
        SystemDefect::HostLeasesNotExtended,
        &["a change of leader alone made a new plan", "and nothing is wrong", "never heard"],
    ),
    system(SystemDefect::PlansBeforeObserving, &["which it never heard"]),
    system(SystemDefect::RoutesBeforePlan, &["writes a route to", "has no route to"]),
    system(SystemDefect::RoutesFromOpinion, &["has no route to"]),
    system(SystemDefect::AdoptsNothing, &[" starts "]),
    system(SystemDefect::RepeatsEverything, &["resurrected", "stale", "real-time order", "twice"]),
    system(SystemDefect::GivesUpAtOnce, &["was fit all the time"]),
    system(SystemDefect::ForgetsLostTries, &["was refused", "real-time order", "unwritten value"]),
    database(DatabaseDefect::GroupOfTheVerified, &["lost"]),
    database(DatabaseDefect::RemovedWithoutConfirming, &["lost"]),
    database(DatabaseDefect::RaisedWithoutConfirming, &["lost"]),
    database(DatabaseDefect::PromiseNotDurable, &["lost"]),
    database(DatabaseDefect::RepliesUnchecked, &["stale read"]),
    database(DatabaseDefect::ServesWithoutGrants, &["stale read"]),
    database(DatabaseDefect::TimelineByItself, &["lost"]),
    database(DatabaseDefect::RewindCounts, &["lost"]),
    database(DatabaseDefect::ServesUnverified, &["lost"]),
    database(DatabaseDefect::RestartsUnverified, &["lost"]),
    database(DatabaseDefect::ChoosesByPlace, &["lost"]),
];

const fn consensus(defect: MemberDefect, words: &'static [&'static str]) -> Variant {
    Variant { defect: Defect::Consensus(defect), words }
}

const fn system(defect: SystemDefect, words: &'static [&'static str]) -> Variant {
    Variant { defect: Defect::System(defect), words }
}

const fn database(defect: DatabaseDefect, words: &'static [&'static str]) -> Variant {
    Variant { defect: Defect::Database(defect), words }
}

impl Variant {
    /// Returns the most seeds that it may stay hidden for.
    #[must_use]
    pub const fn seeds_max(&self) -> u64 {
        match self.defect {
            Defect::Consensus(_) | Defect::System(_) => SEEDS_MAX,
            Defect::Database(_) => DATABASE_SEEDS_MAX,
        }
    }

    /// Runs one seed with the bug.
    ///
    /// # Errors
    ///
    /// If the seed found something.
    pub fn run(&self, seed: u64) -> Result<(), Box<Failure>> {
        match self.defect {
            Defect::Consensus(defect) => {
                let options =
                    consensus_world::Options { defect: Some(defect), ..Default::default() };
                consensus_world::run(seed, options).map(drop)
            }
            Defect::System(defect) => {
                let options = system_world::Options { defect: Some(defect), ..Default::default() };
                system_world::run(seed, options).map(drop)
            }
            Defect::Database(defect) => {
                let options =
                    database_world::Options { defect: Some(defect), ..Default::default() };
                database_world::run(seed, options).map(drop)
            }
        }
    }

    /// Returns whether a failure is the one that this bug must lead to.
    #[must_use]
    pub fn explains(&self, failure: &Failure) -> bool {
        self.words.iter().any(|words| failure.violation.contains(words))
    }
}
