//! One course: the load runs through all phases of an experiment, and what it met is measured.

use std::time::Duration;

use evenkeel_chaos::InjectError;
use evenkeel_checker::history::Operation;
use evenkeel_checker::{linearizability, measure, store_order, survival};
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::time::Timestamp;

use crate::bench::Bench;
use crate::clock::now;
use crate::experiment::{DrillError, TICK, live_line};
use crate::history::HistoryFile;
use crate::load::{Finished, Live, Load, LoadOptions, lateness};
use crate::machine::Usage;
use crate::plan::{Experiment, Phases};
use crate::readback::read_back;
use crate::screen::Screen;
use crate::status::Status;
use crate::strike::{Strike, strike};
use crate::targets::resolve;
use crate::verdict::Measured;
use crate::watch::{Seen, Watch, ask_leader};

/// Time for a target to be there at the moment of the strike: an election may be under way.
const AIM_MAX: Duration = Duration::from_secs(5);
/// Redundancy must be full for this long before it is believed.
const STABLE: Duration = Duration::from_millis(500);
/// Operations that the search for an order may try on one key: each is remembered, so that this
/// bounds memory as well as time.
const SEARCH_STEPS_MAX: usize = 2_000_000;

/// What one course is about.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) experiment: &'a Experiment,
    pub(crate) phases: Phases,
    pub(crate) load: LoadOptions,
    /// Seed of the target's choice.
    pub(crate) seed: u64,
    /// `[3/10]`.
    pub(crate) place: &'a str,
}

/// What the load left behind, with the times of the phases.
#[derive(Debug)]
pub(crate) struct Course {
    /// What was struck.
    pub(crate) target: Target,
    /// The system as it was just before.
    pub(crate) status: Status,
    pub(crate) history: Option<HistoryFile>,
    operations: Vec<Operation>,
    seen: Seen,
    started: Timestamp,
    effect: Timestamp,
    healed: Timestamp,
    stopped: Timestamp,
    invalid: Option<String>,
    foreign_percent: u64,
}

/// Runs the load through all phases. `aimed` is what would be struck now.
pub(crate) fn run(
    bench: &Bench,
    screen: &mut dyn Screen,
    plan: &Plan<'_>,
    aimed: (Target, Status),
    history: Option<HistoryFile>,
) -> Result<Course, DrillError> {
    let phases = plan.phases;
    let (mut target, mut status) = aimed;
    let enter = bench.enter(&bench.lookout(Some(&target)));
    let watch = Watch::start(enter, bench.apis()).map_err(DrillError::Load)?;
    let usage = Usage::now();
    let load = Load::start(&bench.stations(), &plan.load, history).map_err(DrillError::Load)?;
    let mut ticker = Ticker { screen, live: load.live(), what: String::new() };
    ticker.what = format!("{} {} {target}", plan.place, plan.experiment.fault);
    ticker.until("control", now() + phases.control);
    let aim = aim(bench, plan, &mut ticker);
    let attempted = now();
    let mut struck = None;
    let mut invalid = match aim {
        Err(reason) => Some(format!("nothing was struck: {reason}")),
        Ok(found) => {
            (target, status) = found;
            ticker.what = format!("{} {} {target}", plan.place, plan.experiment.fault);
            let result = strike(bench, plan.experiment.fault, &target, phases.hold);
            let unverified = unverified(&result);
            struck = result.ok();
            unverified
        }
    };
    let effect = struck.as_ref().map_or(attempted, Strike::applied);
    if let (None, Some(strike)) = (&invalid, &struck) {
        ticker.until("broken", effect + phases.hold);
        let early = strike.check_in_force(bench, &target).err();
        invalid = early.map(|reason| format!("the fault was over before its time: {reason}"));
    }
    let healed = now();
    if let Some(strike) = struck
        && let Err(reason) = strike.heal(bench, &target)
    {
        invalid.get_or_insert(format!("the fault could not be ended: {reason}"));
    }
    ticker.until("healed", healed + phases.settle);
    await_redundancy(&mut ticker, &watch, healed + phases.redundancy_max);
    let stopped = now();
    let Finished { operations, history, started } = load.stop().map_err(DrillError::Load)?;
    let foreign = usage.zip(Usage::now()).map(|(before, after)| after.foreign_since(before));
    let seen = watch.seen();
    Ok(Course {
        target,
        status,
        history,
        operations,
        seen,
        started,
        effect,
        healed,
        stopped,
        invalid,
        foreign_percent: foreign.unwrap_or(0),
    })
}

/// Finds what has the wanted role at this very moment: the leader may have moved since the
/// experiment began, and a replica may have gone.
fn aim(
    bench: &Bench,
    plan: &Plan<'_>,
    ticker: &mut Ticker<'_>,
) -> Result<(Target, Status), String> {
    let enter = bench.enter(&bench.lookout(None));
    let until = now() + AIM_MAX;
    loop {
        let status = ask_leader(&enter, &bench.apis()).map_err(|error| error.to_string())?;
        let found = match status {
            None => Err("no host leads the coordinator now".to_owned()),
            Some(status) => {
                let system = bench.lab.system();
                let target = resolve(&plan.experiment.selector, system, &status, plan.seed);
                target.map(|target| (target, status)).map_err(|error| error.to_string())
            }
        };
        if found.is_ok() || now() >= until {
            return found;
        }
        ticker.until("looks for its target", now() + TICK);
    }
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

fn await_redundancy(ticker: &mut Ticker<'_>, watch: &Watch, until: Timestamp) {
    while now() < until {
        if watch.seen().full_since().is_some_and(|since| now().since(since) >= STABLE) {
            return;
        }
        ticker.until("becomes redundant again", until.min(now() + TICK));
    }
}

/// Shows the live line while time passes.
struct Ticker<'a> {
    screen: &'a mut dyn Screen,
    live: std::sync::Arc<Live>,
    what: String,
}

impl Ticker<'_> {
    fn until(&mut self, phase: &str, until: Timestamp) {
        loop {
            let left = until.since(now());
            if left.is_zero() {
                return;
            }
            self.screen.live(&live_line(&format!("{} · {phase}", self.what), &self.live));
            self.screen.key(TICK.min(left));
        }
    }
}

impl Course {
    /// Draws everything that can be known out of it. Reads every member back.
    pub(crate) fn measure(
        self,
        bench: &Bench,
        plan: &Plan<'_>,
    ) -> Result<(Measured, Vec<Operation>), DrillError> {
        let Self { effect, healed, seen, operations, .. } = &self;
        let enter = bench.enter(&bench.lookout(None));
        let back = read_back(&enter, &bench.apis(), &plan.load.prefix);
        let back = back.map_err(DrillError::ReadBack)?;
        let kept = survival::check(operations, &back.members);
        let (mut violations, mut unproven) = judge_order(operations);
        violations.extend(kept.violations);
        unproven.extend(back.unseen);
        let before: Vec<Operation> =
            operations.iter().filter(|operation| operation.intended < *effect).cloned().collect();
        let ended_before = before.iter().filter(|operation| operation.returned < *effect);
        let before_counts = measure::count(ended_before);
        let hosts = bench.lab.hosts_of(&self.target);
        let leads = self.status.leader().is_some_and(|leader| hosts.contains(&leader));
        let experiment = plan.experiment;
        // What was killed is started again by the system itself: nobody mends it.
        let is_self_healing =
            experiment.fault == FaultKind::Kill && experiment.selector.role.is_process();
        let mended = if is_self_healing { *effect } else { *healed };
        let gap = |to, operations: &[Operation]| {
            let gap = measure::longest_gap(operations, self.started, to);
            gap.map_or(Duration::ZERO, |gap| gap.length)
        };
        let measured = Measured {
            invalid: self.invalid.clone(),
            counts: measure::count(operations),
            lost_writes: kept.lost,
            violations,
            unproven,
            gap: gap(self.stopped, operations),
            gap_before: gap(*effect, &before),
            failed_before: before_counts.failed + before_counts.unknown,
            detect: seen
                .detected((*effect, *healed), &self.target, &hosts, leads)
                .map(|at| at.since(*effect)),
            recover: measure::recovery(operations, *effect, plan.phases.steady),
            held: healed.since(*effect),
            full_redundancy: seen.full_since().map(|since| since.since(mended)),
            lateness: lateness(operations),
            lateness_before: lateness(&before),
            foreign_percent: self.foreign_percent,
        };
        Ok((measured, self.operations))
    }
}

/// Judges the order of operations, on each key and over all keys. Returns what is broken, and what
/// could not be proven.
fn judge_order(
    operations: &[Operation],
) -> (Vec<evenkeel_checker::history::Violation>, Vec<String>) {
    let order = linearizability::check(operations, SEARCH_STEPS_MAX);
    let mut violations = order.violations;
    violations.extend(store_order::check(operations));
    let suspected = order.suspected.iter().map(|violation| {
        format!("{violation}; whether an operation in doubt excuses it was not found out")
    });
    let undecided = order.undecided.iter().map(|key| format!("no order found for key `{key}`"));
    (violations, suspected.chain(undecided).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_checker::history::{OperationKind, Outcome, Rule};

    fn put(key: &str, at: u64, revision: u64) -> Operation {
        let (from, to) = (Timestamp::from_nanos(at), Timestamp::from_nanos(at + 5));
        Operation {
            client: "fra-1".to_owned(),
            kind: OperationKind::Put,
            key: key.to_owned(),
            value: Some(format!("{key}-{at}")),
            expect: None,
            intended: from,
            invoked: from,
            returned: to,
            outcome: Outcome::Ok,
            revision: Some(revision),
        }
    }

    #[test]
    fn an_experiment_is_judged_over_all_its_keys() {
        let (violations, unproven) = judge_order(&[put("x1-a", 0, 2), put("x1-b", 10, 1)]);
        let rules: Vec<Rule> = violations.iter().map(|violation| violation.rule).collect();
        assert_eq!((rules, unproven), (vec![Rule::RealTimeOrder], Vec::new()));
        assert_eq!(judge_order(&[put("x1-a", 0, 1), put("x1-b", 10, 2)]), Default::default());
    }
}
