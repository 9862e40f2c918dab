//! Makes experiments: load, a look at what is normal, a fault, its end, and a verdict.
//!
//! ```text
//! ready ── control ── fault ── hold ── heal ── settle, full redundancy ── read back ── verdict
//!          └─────────────────── open-loop load ──────────────────────┘
//! ```

use std::io;
use std::time::Duration;

use evenkeel_chaos::InjectError;
use evenkeel_checker::history::{Operation, Rule};
use evenkeel_checker::{linearizability, measure, survival};
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::place::SurvivalGoal;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::bench::Bench;
use crate::budgets::{Budget, Overrides};
use crate::clock::now;
use crate::history::HistoryFile;
use crate::load::{Finished, Live, Load, LoadOptions, Traffic};
use crate::plan::{Experiment, Only, Phases, Scope, experiments};
use crate::readback::read_back;
use crate::report::{Report, Row, word};
use crate::screen::Screen;
use crate::status::Status;
use crate::strike::{Strike, strike};
use crate::table::time;
use crate::targets::{Role, resolve};
use crate::verdict::{Measured, judge};
use crate::watch::{Seen, Watch};

/// Time between two live lines.
const TICK: Duration = Duration::from_millis(200);
/// Time for a system to become ready for the next experiment.
const READY_MAX: Duration = Duration::from_secs(60);
/// Redundancy must be full for this long before it is believed.
const STABLE: Duration = Duration::from_millis(500);
/// Operations that the search for an order may try on one key.
const SEARCH_STEPS_MAX: usize = 1_000_000;

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
    /// No leader was found.
    #[error("no host says that it leads the coordinator, {waited:?} after it was asked first")]
    NoLeader {
        /// How long it was waited for.
        waited: Duration,
    },
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
    rng: Rng,
    /// Operations of every experiment made, with the prefix of their keys.
    made: Vec<(String, Vec<Operation>)>,
}

impl std::fmt::Debug for Drill<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Drill").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the load left behind, with the times of the phases.
struct Course {
    finished: Finished,
    seen: Seen,
    effect: Timestamp,
    healed: Timestamp,
    stopped: Timestamp,
    invalid: Option<String>,
}

impl<'a> Drill<'a> {
    /// Prepares a drill of a system that runs. `history` gets every operation.
    pub fn new(
        bench: &'a Bench,
        options: DrillOptions,
        screen: &'a mut dyn Screen,
        history: Option<HistoryFile>,
    ) -> Self {
        let rng = Rng::from_seed(options.seed);
        Self { bench, options, screen, history, rng, made: Vec::new() }
    }

    /// Makes every experiment, then reads back once more what all of them have written.
    ///
    /// # Errors
    /// See [`DrillError`]. A broken promise is no error: the report says it.
    pub fn run(mut self) -> Result<Report, DrillError> {
        let planned = experiments(self.options.scope, self.options.only.as_ref());
        let mut rows = Vec::new();
        for (index, experiment) in planned.iter().enumerate() {
            let place = format!("[{}/{}]", index + 1, planned.len());
            if let Some(row) = self.make(experiment, &place, &format!("x{}", index + 1))? {
                self.screen.line(&format!("{place} {}", summary(&row)));
                rows.push(row);
            }
        }
        self.look_back(&mut rows)?;
        let not_made = planned.len() - rows.len();
        Ok(Report { survive: self.bench.lab.system().goal, rows, not_made })
    }

    /// Makes one experiment; `None` when it cannot be made or is an expected outage.
    fn make(
        &mut self,
        experiment: &Experiment,
        place: &str,
        prefix: &str,
    ) -> Result<Option<Row>, DrillError> {
        let status = self.await_ready(place)?;
        let system = self.bench.lab.system();
        let target = match resolve(&experiment.selector, system, &status, &mut self.rng) {
            Ok(target) => target,
            Err(error) => {
                self.screen.line(&format!("{place} {experiment}: not made, {error}"));
                return Ok(None);
            }
        };
        if let Err(reason) = self.bench.lab.can(experiment.fault, &target) {
            self.screen.line(&format!("{place} {experiment}: not injectable here, {reason}"));
            return Ok(None);
        }
        let placement = status.placement();
        let prediction =
            evenkeel_audit::prediction::predict(system, &placement, &target, experiment.fault);
        let promised = is_promised(system.goal, experiment.selector.role);
        if !prediction.survives && !promised && self.options.outages == Outages::Skipped {
            let because = &prediction.because;
            self.screen.line(&format!(
                "{place} {} {target}: not made, an expected outage ({because})",
                experiment.fault
            ));
            return Ok(None);
        }
        let course = self.take_course(experiment.fault, &target, place, prefix)?;
        let leads = status
            .leader()
            .is_some_and(|leader| self.bench.lab.hosts_of(&target).contains(&leader));
        let measured = self.measure(course, &target, leads, experiment, prefix)?;
        let budget = Budget::of(experiment.selector.role, self.options.overrides);
        let judgement = judge(&measured, &budget);
        Ok(Some(Row {
            experiment: experiment.clone(),
            target,
            predicted: prediction.survives,
            because: prediction.because,
            measured,
            budget,
            judgement,
        }))
    }

    /// Waits until the leader sees full redundancy; after a minute, goes on without.
    fn await_ready(&mut self, place: &str) -> Result<Status, DrillError> {
        let begun = now();
        let watch = self.watch(None)?;
        loop {
            let seen = watch.seen();
            let is_full = seen.full.last().is_some_and(|(_, full)| *full);
            let waited = now().since(begun);
            match seen.leader_view {
                Some(status) if is_full || waited >= READY_MAX => return Ok(status),
                None if waited >= READY_MAX => return Err(DrillError::NoLeader { waited }),
                Some(status) => {
                    let missing = status.redundancy.missing.join("; ");
                    self.screen.live(&format!("{place} waits for full redundancy: {missing}"));
                }
                None => self.screen.live(&format!("{place} waits for a leader")),
            }
            self.screen.key(TICK);
        }
    }

    fn watch(&self, target: Option<&Target>) -> Result<Watch, DrillError> {
        let enter = self.bench.enter(&self.bench.lookout(target));
        Watch::start(enter, self.bench.apis()).map_err(DrillError::Load)
    }

    /// Runs the load through all phases.
    fn take_course(
        &mut self,
        fault: FaultKind,
        target: &Target,
        place: &str,
        prefix: &str,
    ) -> Result<Course, DrillError> {
        let phases = self.options.phases;
        let stations = self.bench.stations();
        if stations.is_empty() {
            return Err(DrillError::NoGateway);
        }
        let load_options = LoadOptions {
            traffic: self.options.traffic.clone(),
            prefix: prefix.to_owned(),
            clients_per_station: self.options.clients_per_region,
            rate: self.options.rate,
            seed: self.rng.next_u64(),
            keep: true,
        };
        let watch = self.watch(Some(target))?;
        let load = Load::start(&stations, &load_options, self.history.take());
        let load = load.map_err(DrillError::Load)?;
        let live = load.live();
        let what = format!("{place} {fault} {target}");
        self.tick_until(&live, &format!("{what} · control"), now() + phases.control);
        let attempted = now();
        let struck = strike(self.bench, fault, target, phases.hold);
        let effect = struck.as_ref().map_or(attempted, Strike::applied);
        let mut invalid = unverified(&struck);
        if invalid.is_none() {
            self.tick_until(&live, &format!("{what} · broken"), effect + phases.hold);
        }
        let healed = now();
        if let Ok(strike) = struck
            && let Err(reason) = strike.heal(self.bench, target)
        {
            invalid.get_or_insert(format!("the fault could not be ended: {reason}"));
        }
        self.tick_until(&live, &format!("{what} · healed"), healed + phases.settle);
        self.await_redundancy(&live, &what, &watch, healed + phases.redundancy_max);
        let stopped = now();
        let mut finished = load.stop().map_err(DrillError::Load)?;
        self.history = finished.history.take();
        Ok(Course { finished, seen: watch.seen(), effect, healed, stopped, invalid })
    }

    fn tick_until(&mut self, live: &Live, what: &str, until: Timestamp) {
        loop {
            let left = until.since(now());
            if left.is_zero() {
                return;
            }
            self.screen.live(&live_line(what, live));
            self.screen.key(TICK.min(left));
        }
    }

    fn await_redundancy(&mut self, live: &Live, what: &str, watch: &Watch, until: Timestamp) {
        let what = format!("{what} · becomes redundant again");
        while now() < until {
            if watch.seen().full_since().is_some_and(|since| now().since(since) >= STABLE) {
                return;
            }
            self.tick_until(live, &what, until.min(now() + TICK));
        }
    }

    /// Draws everything that can be known out of one course.
    fn measure(
        &mut self,
        course: Course,
        target: &Target,
        leads: bool,
        experiment: &Experiment,
        prefix: &str,
    ) -> Result<Measured, DrillError> {
        let Course { finished, seen, effect, healed, stopped, invalid } = course;
        self.screen.live(&format!("{experiment}: reads every member back"));
        let enter = self.bench.enter(&self.bench.lookout(None));
        let back = read_back(&enter, &self.bench.apis(), prefix).map_err(DrillError::ReadBack)?;
        let operations = finished.operations;
        let order = linearizability::check(&operations, SEARCH_STEPS_MAX);
        let kept = survival::check(&operations, &back.members);
        let mut unseen = back.unseen;
        unseen.extend(order.undecided.iter().map(|key| format!("no order found for key `{key}`")));
        let hosts = self.bench.lab.hosts_of(target);
        // What was killed is started again by the system itself: nobody mends it.
        let is_self_healing =
            experiment.fault == FaultKind::Kill && experiment.selector.role.is_process();
        let mended = if is_self_healing { effect } else { healed };
        let gap = |from, to, operations: &[Operation]| {
            measure::longest_gap(operations, from, to).map_or(Duration::ZERO, |gap| gap.length)
        };
        let before: Vec<Operation> =
            operations.iter().filter(|operation| operation.intended < effect).cloned().collect();
        let mut violations = order.violations;
        violations.extend(kept.violations);
        let measured = Measured {
            invalid,
            counts: measure::count(&operations),
            lost_writes: kept.lost,
            violations,
            unseen,
            gap: gap(finished.started, stopped, &operations),
            gap_before: gap(finished.started, effect, &before),
            detect: seen
                .detected((effect, healed), target, &hosts, leads)
                .map(|at| at.since(effect)),
            recover: measure::recovery(&operations, effect, self.options.phases.steady),
            held: healed.since(effect),
            full_redundancy: seen.full_since().map(|since| since.since(mended)),
            lateness: finished.lateness,
        };
        self.made.push((prefix.to_owned(), operations));
        Ok(measured)
    }

    /// Reads back what every experiment has written: a later fault may have lost it.
    fn look_back(&mut self, rows: &mut [Row]) -> Result<(), DrillError> {
        let enter = self.bench.enter(&self.bench.lookout(None));
        for (row, (prefix, operations)) in rows.iter_mut().zip(&self.made) {
            self.screen.live("reads back what all experiments have written");
            let back = read_back(&enter, &self.bench.apis(), prefix);
            let back = back.map_err(DrillError::ReadBack)?;
            let kept = survival::check(operations, &back.members);
            let known = &mut row.measured;
            for violation in kept.violations {
                if !known.violations.contains(&violation) {
                    known.violations.push(violation);
                }
            }
            known.lost_writes = known.lost_writes.max(kept.lost);
            known.unseen.extend(back.unseen);
            row.judgement = judge(&row.measured, &row.budget);
        }
        Ok(())
    }
}

/// Writes the line that says what happens right now.
#[must_use]
pub fn live_line(what: &str, live: &Live) -> String {
    let pulse = live.pulse();
    let p99 = pulse.p99.map_or_else(|| "–".to_owned(), time);
    format!("{what} · {} requests/s · {} errors/s · p99 {p99}", pulse.rate, pulse.errors)
}

fn unverified(struck: &Result<Strike, InjectError>) -> Option<String> {
    match struck {
        Ok(strike) => {
            tracing::debug!(evidence = strike.evidence(), "the fault took effect");
            strike.unverified().map(|reason| format!("the fault was not seen: {reason}"))
        }
        Err(error) => Some(format!("the fault was not injected: {error}")),
    }
}

/// Returns whether a goal promises to live through the loss of a part with this role.
const fn is_promised(goal: SurvivalGoal, role: Role) -> bool {
    let size = match role {
        Role::Replica | Role::Gateway | Role::Node | Role::Shim | Role::Leader | Role::Follower => {
            SurvivalGoal::Process
        }
        Role::Host => SurvivalGoal::Host,
        Role::Zone => SurvivalGoal::Zone,
        Role::Region | Role::Link => SurvivalGoal::Region,
    };
    size as u8 <= goal as u8
}

fn summary(row: &Row) -> String {
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
