//! Makes experiments: load, a look at what is normal, a fault, its end, and a verdict.
//!
//! ```text
//! ready ── control ── fault ── hold ── heal ── settle, full redundancy ── read back ── verdict
//!          └─────────────────── open-loop load ──────────────────────┘
//! ```

use std::io;
use std::time::Duration;

use evenkeel_checker::history::{Operation, Rule, Violation};
use evenkeel_checker::{store_order, survival};
use evenkeel_model::fault::Target;

use crate::bench::Bench;
use crate::budgets::{Budget, Overrides};
use crate::clock::now;
use crate::course::{self, Plan};
use crate::history::HistoryFile;
use crate::load::{Live, LoadOptions, Traffic};
use crate::plan::{Experiment, Only, Phases, Scope, experiments, is_promised, is_required};
use crate::readback::read_back;
use crate::report::{Made, NotMade, Report, Row, word};
use crate::screen::Screen;
use crate::status::Status;
use crate::table::time;
use crate::targets::{exists, mixed, resolve};
use crate::verdict::{Verdict, judge};
use crate::watch::Watch;

/// Time between two live lines.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// Time for a system to become ready for the next experiment.
const READY_MAX: Duration = Duration::from_secs(60);

/// How a drill is made.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// Which experiments.
    pub scope: Scope,
    /// Only these of them.
    pub only: Option<Only>,
    /// How long each phase lasts.
    pub phases: Phases,
    /// Limits in place of the standard ones.
    pub overrides: Overrides,
    /// What clients ask for.
    pub traffic: Traffic,
    /// Clients in each region.
    pub clients_per_region: usize,
    /// Operations per second of all clients.
    pub rate: u32,
    /// Seed of every choice.
    pub seed: u64,
    /// What to do with a fault beyond the goal that is expected to end the service.
    pub outages: Outages,
}

/// Whether expected outages are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outages {
    /// They are only named.
    Skipped,
    /// They are made like all others.
    Made,
}

/// Reports why a drill could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The system has no way in.
    #[error("the system has no gateway, so clients cannot reach it")]
    NoGateway,
    /// Clients or watchers could not work.
    #[error("run the load")]
    Load(#[source] io::Error),
    /// The members could not be asked.
    #[error("read the members back")]
    ReadBack(#[source] io::Error),
}

/// A drill under way.
pub struct Drill<'a> {
    bench: &'a Bench,
    options: DrillOptions,
    screen: &'a mut dyn Screen,
    history: Option<HistoryFile>,
    /// Operations of every experiment made, with the prefix of their keys.
    made: Vec<(String, Vec<Operation>)>,
}

impl std::fmt::Debug for Drill<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Drill").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What became of a planned experiment.
enum Outcome {
    Made(Box<Made>),
    /// It could not be made, for this reason.
    Missing(String),
    /// It is beyond the system or its promise.
    LeftOut(String),
    /// The system has no leader any more: nothing can be made.
    NoLeader,
}

impl<'a> Drill<'a> {
    /// Prepares a drill of a system that runs. `history` gets every operation.
    pub fn new(
        bench: &'a Bench,
        options: DrillOptions,
        screen: &'a mut dyn Screen,
        history: Option<HistoryFile>,
    ) -> Self {
        Self { bench, options, screen, history, made: Vec::new() }
    }

    /// Makes every experiment, then reads back once more what all of them have written.
    ///
    /// # Errors
    /// See [`DrillError`]. A broken promise is no error: the report says it.
    pub fn run(mut self) -> Result<Report, DrillError> {
        if self.bench.stations().is_empty() {
            return Err(DrillError::NoGateway);
        }
        let planned = experiments(self.options.scope, self.options.only.as_ref());
        let mut rows = Rows::default();
        for (index, experiment) in planned.iter().enumerate() {
            let place = format!("[{}/{}]", index + 1, planned.len());
            let outcome = if rows.has_no_leader {
                self.classify(experiment, "the system has had no leader since".to_owned())
            } else {
                self.make(experiment, &place, &format!("x{}", index + 1))?
            };
            if let Some(line) = rows.add(experiment, outcome) {
                self.screen.line(&format!("{place} {line}"));
            }
        }
        self.look_back(&mut rows.rows)?;
        let only_read = match &self.options.traffic {
            Traffic::Profiles => None,
            Traffic::Page(page) => Some(page.path.clone()),
        };
        let survive = self.bench.lab.system().goal;
        Ok(Report { survive, rows: rows.rows, left_out: rows.left_out, only_read })
    }

    /// Says what it means that an experiment cannot be made.
    fn classify(&self, experiment: &Experiment, reason: String) -> Outcome {
        let (system, only) = (self.bench.lab.system(), self.options.only.as_ref());
        let is_named = only.is_some_and(|only| only.selector.is_some());
        let is_there = is_named || exists(experiment.selector.role, system);
        if is_there && is_required(experiment, only, system.goal) {
            Outcome::Missing(reason)
        } else {
            Outcome::LeftOut(reason)
        }
    }

    /// Makes one experiment, or says why not.
    fn make(
        &mut self,
        experiment: &Experiment,
        place: &str,
        prefix: &str,
    ) -> Result<Outcome, DrillError> {
        let Some(status) = self.await_ready(place)? else { return Ok(Outcome::NoLeader) };
        // Choices depend on the experiment alone, so that it can be repeated without the others.
        let seed = mixed(self.options.seed, &experiment.id());
        let system = self.bench.lab.system();
        let target = match resolve(&experiment.selector, system, &status, seed) {
            Ok(target) => target,
            Err(error) => return Ok(self.classify(experiment, error.to_string())),
        };
        if let Err(reason) = self.bench.lab.can(experiment.fault, &target) {
            return Ok(self.classify(experiment, format!("not injectable here: {reason}")));
        }
        if let Some(because) = self.expected_outage(experiment, &target, &status) {
            return Ok(Outcome::LeftOut(format!("an expected outage ({because})")));
        }
        let load = LoadOptions {
            traffic: self.options.traffic.clone(),
            prefix: prefix.to_owned(),
            clients_per_station: self.options.clients_per_region,
            rate: self.options.rate,
            seed: mixed(seed, "load"),
            keep: true,
        };
        let plan = Plan { experiment, phases: self.options.phases, load, seed, place };
        let history = self.history.take();
        let mut course = course::run(self.bench, self.screen, &plan, (target, status), history)?;
        self.history = course.history.take();
        self.screen.live(&format!("{experiment}: reads every member back"));
        let (target, placement) = (course.target.clone(), course.status.placement());
        let prediction =
            evenkeel_audit::prediction::predict(system, &placement, &target, experiment.fault);
        let (measured, operations) = course.measure(self.bench, &plan)?;
        self.made.push((prefix.to_owned(), operations));
        let budget = Budget::of(experiment.selector.role, self.options.overrides);
        let judgement = judge(&measured, &budget);
        Ok(Outcome::Made(Box::new(Made {
            experiment: experiment.clone(),
            target,
            predicted: prediction.survives,
            because: prediction.because,
            measured,
            budget,
            judgement,
        })))
    }

    /// Returns why a fault beyond the promise is expected to end the service, if it is and such
    /// faults are not to be made.
    fn expected_outage(
        &self,
        experiment: &Experiment,
        target: &Target,
        status: &Status,
    ) -> Option<String> {
        let system = self.bench.lab.system();
        if self.options.outages == Outages::Made
            || is_promised(system.goal, experiment.selector.role)
        {
            return None;
        }
        let placement = status.placement();
        let prediction =
            evenkeel_audit::prediction::predict(system, &placement, target, experiment.fault);
        (!prediction.survives).then_some(prediction.because)
    }

    /// Waits until the leader sees full redundancy; after a minute, goes on without. `None` when
    /// there is no leader by then.
    fn await_ready(&mut self, place: &str) -> Result<Option<Status>, DrillError> {
        let begun = now();
        let enter = self.bench.enter(&self.bench.lookout(None));
        let watch = Watch::start(enter, self.bench.apis()).map_err(DrillError::Load)?;
        loop {
            let seen = watch.seen();
            let is_full = seen.full.last().is_some_and(|(_, full)| *full);
            let is_over = now().since(begun) >= READY_MAX;
            match seen.leader_view {
                Some(status) if is_full || is_over => return Ok(Some(status)),
                None if is_over => return Ok(None),
                Some(status) => {
                    let missing = status.redundancy.missing.join("; ");
                    self.screen.live(&format!("{place} waits for full redundancy: {missing}"));
                }
                None => self.screen.live(&format!("{place} waits for a leader")),
            }
            self.screen.key(TICK);
        }
    }

    /// Reads back what every experiment has written: a later fault may have lost it.
    fn look_back(&mut self, rows: &mut [Row]) -> Result<(), DrillError> {
        let enter = self.bench.enter(&self.bench.lookout(None));
        let over_all = store_order::check(self.made.iter().flat_map(|(_, operations)| operations));
        let made = rows.iter_mut().filter_map(|row| match row {
            Row::Made(made) => Some(made),
            Row::NotMade(_) => None,
        });
        for (row, (prefix, operations)) in made.zip(&self.made) {
            self.screen.live("reads back what all experiments have written");
            let back = read_back(&enter, &self.bench.apis(), prefix);
            let back = back.map_err(DrillError::ReadBack)?;
            let kept = survival::check(operations, &back.members);
            let across = over_all.iter().filter(|violation| is_of(violation, prefix)).cloned();
            row.look_back(kept.violations.into_iter().chain(across), kept.lost, back.unseen);
        }
        Ok(())
    }
}

/// Returns whether a violation is on a key of the experiment with this prefix.
fn is_of(violation: &Violation, prefix: &str) -> bool {
    violation.key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}

impl Made {
    /// Takes in what was found out after all experiments, and judges again.
    fn look_back(
        &mut self,
        violations: impl Iterator<Item = Violation>,
        lost: u64,
        unseen: Vec<String>,
    ) {
        let known = &mut self.measured;
        for violation in violations {
            if !known.violations.contains(&violation) {
                known.violations.push(violation);
            }
        }
        known.lost_writes = known.lost_writes.max(lost);
        for what in unseen {
            if !known.unproven.contains(&what) {
                known.unproven.push(what);
            }
        }
        self.judgement = judge(&self.measured, &self.budget);
    }
}

/// The rows of a report as they come.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    left_out: usize,
    has_no_leader: bool,
}

impl Rows {
    /// Takes in what became of an experiment and returns the line that says it.
    fn add(&mut self, experiment: &Experiment, outcome: Outcome) -> Option<String> {
        let not_made = |verdict, reason: &str| {
            let reason = reason.to_owned();
            Row::NotMade(NotMade { experiment: experiment.clone(), verdict, reason })
        };
        let (row, line) = match outcome {
            Outcome::Made(made) => {
                let line = summary(&made);
                (Row::Made(made), line)
            }
            Outcome::LeftOut(reason) => {
                self.left_out += 1;
                return Some(format!("{experiment}: left out, {reason}"));
            }
            Outcome::Missing(reason) => {
                let line = format!("{experiment}: NOT MADE, {reason}");
                (not_made(Verdict::Invalid, &reason), line)
            }
            Outcome::NoLeader => {
                self.has_no_leader = true;
                let reason = format!("no leader came back within {} s", READY_MAX.as_secs());
                let line = format!("{experiment}: NOT MADE, {reason}");
                (not_made(Verdict::Fail, &reason), line)
            }
        };
        self.rows.push(row);
        Some(line)
    }
}

/// Writes the line that says what happens right now.
#[must_use]
pub fn live_line(what: &str, live: &Live) -> String {
    let pulse = live.pulse();
    let p99 = pulse.p99.map_or_else(|| "–".to_owned(), time);
    format!("{what} · {} requests/s · {} errors/s · p99 {p99}", pulse.rate, pulse.errors)
}

fn summary(row: &Made) -> String {
    let measured = &row.measured;
    let lost =
        measured.violations.iter().filter(|violation| violation.rule != Rule::LostWrite).count();
    let broken = if lost == 0 { String::new() } else { format!(", {lost} rules broken") };
    format!(
        "{} {}: {}. {} failed, {} in doubt, {} lost{broken}, longest gap {}, {}",
        row.experiment.fault,
        row.target,
        word(measured.survived()),
        measured.counts.failed,
        measured.counts.unknown,
        measured.lost_writes,
        time(measured.gap),
        row.judgement.verdict,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, row};
    use crate::targets::{Role, Selector};
    use evenkeel_model::fault::FaultKind;

    fn kill(role: Role) -> Experiment {
        Experiment { fault: FaultKind::Kill, selector: Selector { role, place: None } }
    }

    fn made() -> Box<Made> {
        let Row::Made(made) = row(Duration::from_millis(100)) else { unreachable!() };
        made
    }

    #[test]
    fn a_leader_that_does_not_come_back_fails_the_drill_but_ends_it_in_order() {
        let mut rows = Rows::default();
        rows.add(&kill(Role::Host), Outcome::Made(made()));
        rows.add(&kill(Role::Leader), Outcome::NoLeader);
        assert!(rows.has_no_leader);
        rows.add(&kill(Role::Zone), Outcome::Missing("no leader since".to_owned()));
        rows.add(&kill(Role::Region), Outcome::LeftOut("no such part".to_owned()));
        let verdicts: Vec<Verdict> = rows.rows.iter().map(Row::verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Fail, Verdict::Invalid]);
        assert_eq!(rows.rows[1].reasons(), ["no leader came back within 60 s"]);
        assert_eq!((rows.left_out, report(rows.rows).verdict()), (1, Verdict::Fail));
    }

    #[test]
    fn what_is_found_afterwards_counts() {
        let violation =
            Violation { rule: Rule::LostWrite, key: "x1-a".to_owned(), evidence: String::new() };
        assert!(is_of(&violation, "x1") && !is_of(&violation, "x"));
        let mut row = made();
        row.look_back(std::iter::empty(), 0, vec!["`waw-1` could not be read back".to_owned()]);
        assert_eq!(row.judgement.verdict, Verdict::Invalid);
        row.look_back([violation.clone(), violation].into_iter(), 1, Vec::new());
        assert_eq!((row.judgement.verdict, row.measured.violations.len()), (Verdict::Fail, 1));
    }
}
