//! Runs seeds of a simulated world.

use std::io::{self, Write as _};
use std::process::ExitCode;

use evenkeel_consensus::settings::Defect;
use evenkeel_sim::consensus_world::{self, Options};
use evenkeel_sim::failure::Failure;

const USAGE: &str =
    "usage: sim [--world consensus] [--seed N] [--count N] [--hosts N] [--defect NAME]

  --world    which world (default: consensus)
  --seed     the first seed (default: 0)
  --count    how many seeds, one after the other (default: 1)
  --hosts    how many members (default: drawn from the seed)
  --defect   a bug that the simulator must find: VoteNotPersisted, ReadyAcknowledgedEarly,
             ReadWithoutQuorum, EntriesNotPersisted

Exit status: 0 no seed failed, 1 a seed failed, 2 bad usage.
";

/// A simulated world.
#[derive(Debug, Clone, Copy)]
enum World {
    Consensus,
}

#[derive(Debug)]
struct Arguments {
    world: World,
    seed: u64,
    count: u64,
    hosts: Option<usize>,
    defect: Option<Defect>,
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
    let mut parsed =
        Arguments { world: World::Consensus, seed: 0, count: 1, hosts: None, defect: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        let wrong = || format!("`{value}` is no value for `{name}`");
        match name.as_str() {
            "--world" => {
                parsed.world = match value.as_str() {
                    consensus_world::NAME => World::Consensus,
                    _ => return Err(wrong()),
                }
            }
            "--seed" => parsed.seed = value.parse().map_err(|_| wrong())?,
            "--count" => parsed.count = value.parse().map_err(|_| wrong())?,
            "--hosts" => {
                let hosts = value.parse().ok().filter(|hosts| (2..=30).contains(hosts));
                parsed.hosts = Some(hosts.ok_or_else(wrong)?);
            }
            "--defect" => {
                let named = |defect: &Defect| format!("{defect:?}") == value;
                parsed.defect = Some(Defect::ALL.into_iter().find(named).ok_or_else(wrong)?);
            }
            _ => return Err(format!("`{name}` is not known")),
        }
    }
    Ok(parsed)
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
        World::Consensus => {
            let options = Options { hosts: arguments.hosts, defect: arguments.defect };
            let report = consensus_world::run(seed, options)?;
            Ok(format!(
                "{} of {} operations acknowledged, {} entries, {} terms, digest {:016x}",
                report.acknowledged,
                report.operations,
                report.committed,
                report.terms,
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
