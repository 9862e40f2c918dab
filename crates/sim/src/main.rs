//! Runs seeds of the simulated worlds, on every core of this machine.

mod arguments;
mod measure;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_sim::defects::{VARIANTS, Variant};
use evenkeel_sim::failure::Failure;
use evenkeel_sim::{consensus_world, database_world, system_world};

use arguments::{Arguments, Task, USAGE, World};

/// Time between two lines that say how far a long run has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Seeds of one run of which each is named by a line of its own.
const LINES_MAX: u64 = 100;

fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args().skip(1)) {
        Ok(Arguments { task: Task::Seeds { world, first, count } }) => run(world, first, count),
        Ok(Arguments { task: Task::Defects }) => find_defects(),
        Ok(Arguments { task: Task::Planner { rounds } }) => measure::planner(rounds),
        Ok(Arguments { task: Task::Scale }) => measure::scale(),
        Err(error) => io::stderr()
            .write_all(format!("error: {error}\n{USAGE}").as_bytes())
            .map(|()| ExitCode::from(2)),
    };
    done.unwrap_or(ExitCode::FAILURE)
}

/// What several threads do together.
#[derive(Debug)]
struct Shared {
    /// The next seed to run.
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<(u64, Box<Failure>)>>,
}

fn run(world: World, first: u64, count: u64) -> io::Result<ExitCode> {
    let shared = Shared {
        next: AtomicU64::new(first),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let end = first.saturating_add(count);
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        // Each worker holds a sender for as long as it works.
        let (working, at_work) = mpsc::channel::<()>();
        for _ in 0..threads {
            let (working, shared) = (working.clone(), &shared);
            scope.spawn(move || {
                work(world, end, count, shared);
                drop(working);
            });
        }
        drop(working);
        watch(&at_work, threads, first, count, &shared, begun);
    });
    let failure = shared.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut out = io::stdout().lock();
    let (done, seconds) = (shared.done.into_inner(), begun.elapsed().as_secs_f64());
    let Some((_, failure)) = failure else {
        writeln!(out, "{done} seeds from {first} on passed in {seconds:.1} s")?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(out, "{failure}")?;
    writeln!(out, "commit: {}", commit())?;
    Ok(ExitCode::FAILURE)
}

/// Runs one seed after the other, until there is none left or one has failed.
fn work(world: World, end: u64, count: u64, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match run_seed(world, seed) {
            Ok(summary) if count <= LINES_MAX => say(&format!("seed {seed}: {summary}")),
            Ok(_) => {}
            Err(failure) => {
                shared.stop.store(true, Ordering::Relaxed);
                let mut found =
                    shared.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // Whichever thread was first, the lowest seed is told.
                if found.as_ref().is_none_or(|(known, _)| seed < *known) {
                    *found = Some((seed, failure));
                }
            }
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says now and then how far the others have come, and how to go on from there.
fn watch(
    at_work: &mpsc::Receiver<()>,
    threads: usize,
    first: u64,
    count: u64,
    shared: &Shared,
    begun: Instant,
) {
    while at_work.recv_timeout(PROGRESS_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        let done = shared.done.load(Ordering::Relaxed);
        let next = shared.next.load(Ordering::Relaxed);
        let safe = next.saturating_sub(threads as u64).max(first);
        let left = first.saturating_add(count).saturating_sub(safe);
        let rate = done as f64 / begun.elapsed().as_secs_f64();
        let minutes = left as f64 / rate.max(f64::MIN_POSITIVE) / 60.0;
        say(&format!(
            "{done} of {count} seeds passed, {rate:.1} a second, {minutes:.0} min left; to go on \
             from here: --seed {safe} --count {left}"
        ));
    }
}

fn say(line: &str) {
    // Whoever reads no more has stopped to care.
    drop(io::stdout().lock().write_all(format!("{line}\n").as_bytes()));
}

fn run_seed(world: World, seed: u64) -> Result<String, Box<Failure>> {
    match world {
        World::All => match seed % 3 {
            0 => run_seed(World::SYSTEM, seed),
            1 => run_seed(World::CONSENSUS, seed),
            _ => run_seed(World::DATABASE, seed),
        },
        World::Consensus(options) => {
            let report = consensus_world::run(seed, options)?;
            Ok(format!(
                "{} of {} operations acknowledged, {} entries, {} terms, {} crashes, \
                 {} lost disks, {} snapshots, {} changes of members, \
                 digest {:016x}",
                report.acknowledged,
                report.operations,
                report.committed,
                report.terms,
                report.crashes,
                report.lost_disks,
                report.snapshots,
                report.changes,
                report.digest
            ))
        }
        World::Database(options) => run_database(seed, options),
        World::System(options) => {
            let report = system_world::run(seed, options)?;
            Ok(format!(
                "{} of {} operations acknowledged, {} faults, {} plans, {} terms, {} problems of \
                 gateways, {} holds, whole after {} ms, digest {:016x}",
                report.acknowledged,
                report.operations,
                report.faults,
                report.plans,
                report.terms,
                report.problems,
                report.holds,
                report.recovery.as_millis(),
                report.digest
            ))
        }
    }
}

/// Returns what a seed of the database world came to.
fn run_database(seed: u64, options: database_world::Options) -> Result<String, Box<Failure>> {
    let report = database_world::run(seed, options)?;
    Ok(format!(
        "{} writes acknowledged, {} reads, {} primaries, {} faults, {} rewinds and clones, whole \
         after {} ms, digest {:016x}",
        report.acknowledged,
        report.reads,
        report.primaries,
        report.faults,
        report.copies,
        report.recovery.as_millis(),
        report.digest
    ))
}

/// Looks for every bug that must be found.
fn find_defects() -> io::Result<ExitCode> {
    let next = AtomicU64::new(0);
    let missed = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let place = usize::try_from(place).unwrap_or(usize::MAX);
                    let Some(variant) = VARIANTS.get(place) else { return };
                    if !find(variant) {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner();
    say(&format!("{} of {} bugs were found", VARIANTS.len() as u64 - missed, VARIANTS.len()));
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks for one bug. A failure for another reason is told, but does not count.
fn find(variant: &Variant) -> bool {
    let begun = Instant::now();
    let mut other = None;
    for seed in 0..variant.seeds_max() {
        let Err(failure) = variant.run(seed) else { continue };
        if variant.explains(&failure) {
            let (seeds, seconds) = (seed + 1, begun.elapsed().as_secs_f64());
            let (defect, violation) = (variant.defect, failure.violation);
            say(&format!("{defect:?}: found by {seeds} seeds in {seconds:.1} s: {violation}"));
            return true;
        }
        other.get_or_insert((seed, failure.violation));
    }
    say(&format!("{:?}: NOT FOUND by {} seeds", variant.defect, variant.seeds_max()));
    if let Some((seed, violation)) = other {
        say(&format!("  seed {seed} failed for another reason: {violation}"));
    }
    false
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
