//! The command line of the simulator.

use evenkeel_consensus::settings::Defect;
use evenkeel_postgres_core::settings::Defect as DatabaseDefect;
use evenkeel_sim::{consensus_world, database_world, system_world};

pub(crate) const USAGE: &str =
    "usage: sim [--world consensus|system|database|all] [--seed N] [--count N] [--hosts N]
           [--defect NAME]
       sim --defects
       sim --measure planner|scale [--rounds N]

  --world    which world (default: all, which runs each world with every third seed)
  --seed     the first seed (default: 0)
  --count    how many seeds (default: 1)
  --hosts    how many members or hosts (default: drawn from the seed)
  --defect   a bug that the simulator must find, in the consensus world VoteNotPersisted,
             ReadyAcknowledgedEarly, ReadWithoutQuorum, EntriesNotPersisted, VotesWhileRejoining,
             LeasesNotExtended, MembersForgotten, SnapshotNamesFirstVoters; in the system world
             PlanNumberIgnored, HostLeasesNotExtended, PlansBeforeObserving, RoutesBeforePlan,
             RoutesFromOpinion, AdoptsNothing, RepeatsEverything, GivesUpAtOnce,
             ForgetsLostTries; in the database world TimelineByItself, GroupOfTheVerified,
             RemovedWithoutConfirming, RaisedWithoutConfirming, GuardSetAfterStore,
             PromisesAtOnce, PromiseNotDurable, OldUpstream, StoppedDoesNotBind, RepliesUnchecked,
             ServesWithoutGrants, RewindCounts, FollowsUnverified, ServesUnverified,
             RestartsUnverified, ChoosesByPlace
  --defects  look for every such bug
  --measure  how fast the control plane of a large system is

Exit status: 0 no seed failed, 1 a seed failed, 2 bad usage.
";

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    Seeds { world: World, first: u64, count: u64 },
    Defects,
    Planner { rounds: usize },
    Scale,
}

/// A simulated world, or all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum World {
    All,
    Consensus(consensus_world::Options),
    System(system_world::Options),
    Database(database_world::Options),
}

impl World {
    pub(crate) const CONSENSUS: Self = Self::Consensus(consensus_world::Options::NONE);
    pub(crate) const SYSTEM: Self = Self::System(system_world::Options::NONE);
    pub(crate) const DATABASE: Self = Self::Database(database_world::Options::NONE);
}

/// What was said so far.
#[derive(Debug, Default)]
struct Said {
    world: Option<String>,
    seed: u64,
    count: Option<u64>,
    hosts: Option<usize>,
    defect: Option<String>,
    defects: bool,
    measure: Option<String>,
    rounds: Option<usize>,
}

/// Reads the arguments.
///
/// # Errors
///
/// In words, if they make no sense.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut said = Said::default();
    while let Some(name) = arguments.next() {
        if name == "--defects" {
            said.defects = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        let wrong = || format!("`{value}` is no value for `{name}`");
        match name.as_str() {
            "--world" => said.world = Some(value),
            "--seed" => said.seed = value.parse().map_err(|_| wrong())?,
            "--count" => said.count = Some(value.parse().map_err(|_| wrong())?),
            "--rounds" => said.rounds = Some(value.parse().map_err(|_| wrong())?),
            "--hosts" => {
                let number = value.parse().ok().filter(|number| (2..=30).contains(number));
                said.hosts = Some(number.ok_or_else(wrong)?);
            }
            "--defect" => said.defect = Some(value),
            "--measure" => said.measure = Some(value),
            _ => return Err(format!("`{name}` is not known")),
        }
    }
    task(said).map(|task| Arguments { task })
}

fn task(said: Said) -> Result<Task, String> {
    if said.defects {
        return Ok(Task::Defects);
    }
    match said.measure.as_deref() {
        None => {}
        Some("planner") => return Ok(Task::Planner { rounds: said.rounds.unwrap_or(11) }),
        Some("scale") => return Ok(Task::Scale),
        Some(other) => return Err(format!("`{other}` is no value for `--measure`")),
    }
    let hosts = said.hosts;
    let world = match said.world.as_deref() {
        None | Some("all") if hosts.is_none() && said.defect.is_none() => World::All,
        Some(consensus_world::NAME) => {
            let defect = find_defect(Defect::ALL, said.defect)?;
            World::Consensus(consensus_world::Options { hosts, defect })
        }
        Some(system_world::NAME) => {
            let defect = find_defect(system_world::Defect::ALL, said.defect)?;
            World::System(system_world::Options { hosts, defect })
        }
        Some(database_world::NAME) => {
            let defect = find_defect(DatabaseDefect::ALL, said.defect)?;
            World::Database(database_world::Options { hosts, defect })
        }
        None | Some("all") => return Err("say with `--world` which one".to_owned()),
        Some(other) => return Err(format!("`{other}` is no value for `--world`")),
    };
    Ok(Task::Seeds { world, first: said.seed, count: said.count.unwrap_or(1) })
}

/// Finds the defect of a world by its name.
fn find_defect<D: std::fmt::Debug>(
    all: impl IntoIterator<Item = D>,
    name: Option<String>,
) -> Result<Option<D>, String> {
    let Some(name) = name else { return Ok(None) };
    let found = all.into_iter().find(|defect| format!("{defect:?}") == name);
    found.map(Some).ok_or_else(|| format!("`{name}` is no defect of this world"))
}
