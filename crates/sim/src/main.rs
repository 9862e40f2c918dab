//! Runs seeds of a simulated world.

use std::io::{self, Write as _};
use std::process::ExitCode;

use evenkeel_consensus::settings::Defect;
use evenkeel_sim::consensus_world;
use evenkeel_sim::control_world;
use evenkeel_sim::failure::Failure;

const USAGE: &str =
    "usage: sim [--world consensus|control] [--seed N] [--count N] [--hosts N] [--defect NAME]

  --world    which world (default: consensus)
  --seed     the first seed (default: 0)
  --count    how many seeds, one after the other (default: 1)
  --hosts    how many members or hosts (default: drawn from the seed)
  --defect   a bug that the simulator must find, in the consensus world VoteNotPersisted,
             ReadyAcknowledgedEarly, ReadWithoutQuorum, EntriesNotPersisted,
             VotesWhileRejoining, LeasesNotExtended; in the control world PlanNumberIgnored, LeasesNotExtended

Exit status: 0 no seed failed, 1 a seed failed, 2 bad usage.
";

/// A simulated world.
#[derive(Debug, Clone, Copy)]
enum World {
    Consensus(consensus_world::Options),
    Control(control_world::Options),
}

#[derive(Debug)]
struct Arguments {
    world: World,
    seed: u64,
    count: u64,
}

fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(arguments) => run(&arguments, &mut io::stdout().lock()),
        Err(error) => io::stderr()
            .write_all(format!("error: {error}\n{USAGE}").as_bytes())
            .map(|()| ExitCode::from(2)),
    };
    done.unwrap_or(ExitCode::FAILURE)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut world, mut seed, mut count) = (consensus_world::NAME.to_owned(), 0, 1);
    let (mut hosts, mut defect) = (None, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        let wrong = || format!("`{value}` is no value for `{name}`");
        match name.as_str() {
            "--world" => world = value,
            "--seed" => seed = value.parse().map_err(|_| wrong())?,
            "--count" => count = value.parse().map_err(|_| wrong())?,
            "--hosts" => {
                let number = value.parse().ok().filter(|number| (2..=30).contains(number));
                hosts = Some(number.ok_or_else(wrong)?);
            }
            "--defect" => defect = Some(value),
            _ => return Err(format!("`{name}` is not known")),
        }
    }
    let world = match world.as_str() {
        consensus_world::NAME => {
            let defect = find_defect(Defect::ALL, defect)?;
            World::Consensus(consensus_world::Options { hosts, defect })
        }
        control_world::NAME => {
            let defect = find_defect(control_world::Defect::ALL, defect)?;
            World::Control(control_world::Options { hosts, defect })
        }
        _ => return Err(format!("`{world}` is no value for `--world`")),
    };
    Ok(Arguments { world, seed, count })
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

fn run(arguments: &Arguments, out: &mut impl io::Write) -> io::Result<ExitCode> {
    let first = arguments.seed;
    for seed in first..first.saturating_add(arguments.count) {
        match run_seed(arguments, seed) {
            Ok(summary) => writeln!(out, "seed {seed}: {summary}")?,
            Err(failure) => {
                writeln!(out, "{failure}")?;
                writeln!(out, "commit: {}", commit())?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_seed(arguments: &Arguments, seed: u64) -> Result<String, Box<Failure>> {
    match arguments.world {
        World::Consensus(options) => {
            let report = consensus_world::run(seed, options)?;
            Ok(format!(
                "{} of {} operations acknowledged, {} entries, {} terms, {} crashes, \
                 {} lost disks, {} snapshots, \
                 digest {:016x}",
                report.acknowledged,
                report.operations,
                report.committed,
                report.terms,
                report.crashes,
                report.lost_disks,
                report.snapshots,
                report.digest
            ))
        }
        World::Control(options) => {
            let report = control_world::run(seed, options)?;
            Ok(format!(
                "{} faults, {} plans, {} terms, whole after {} ms, digest {:016x}",
                report.faults,
                report.plans,
                report.terms,
                report.recovery.as_millis(),
                report.digest
            ))
        }
    }
}

/// Returns the commit of the working tree, if it can be found out.
fn commit() -> String {
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=40"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |commit| commit.trim().to_owned())
}
