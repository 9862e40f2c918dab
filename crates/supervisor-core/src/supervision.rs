//! Decides what is done about one process: when it starts, is checked, is stopped, starts again.
//!
//! ```text
//!              wanted                    started
//!   Stopped ────────────▶ Starting ─────────────────▶ Running{ready}
//!      ▲                   ▲  │                         │        │
//!      │ unwanted     waited  │ start failed            │ exited │ unwanted,
//!      │                   │  ▼                         │        │ or not alive
//!      ├──────────────── BackingOff ◀───────────────────┘        ▼
//!      │                      ▲      exited after not alive  Stopping
//!      │                      └─────────────────────────────────┤
//!      └────────────────────────────────────────────────────────┘ exited
//! ```
//!
//! A process is never given up: the wait between two starts ends at 30 s. Readiness only says
//! whether it may get requests; only its `alive` check restarts it.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::service::HealthCheck;
use evenkeel_model::time::Timestamp;

use crate::backoff::draw_wait;
use crate::gauge::Gauge;
use crate::status::{ExitStatus, Failure};

/// Time that a process must be ready without a break before its earlier failures are forgotten.
pub const HEALTHY_RESET: Duration = Duration::from_secs(60);

/// Time between two SIGKILLs of a process that has not gone, as one in an uninterruptible wait.
pub const KILL_EVERY: Duration = Duration::from_secs(5);

/// Failures in a row from which on a process counts as crash-looping.
pub const CRASH_LOOP_FAILURES: u32 = 5;

/// What is asked of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How it is checked. Without a check it is ready as soon as it runs.
    pub check: Option<HealthCheck>,
    /// Time after its start in which failed checks do not count; it ends early once the process
    /// is ready. Checks are at most 200 ms apart during it.
    pub start_grace: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

/// What a check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// May it get requests?
    Ready,
    /// Does it work at all, or must it be restarted?
    Alive,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The process is to run, or not to run. Must be the first event, before [`Self::Adopted`].
    Wanted(bool),
    /// The answer to [`Action::Start`]: it runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The other answer to [`Action::Start`]: it does not run.
    StartFailed {
        /// Why not.
        reason: String,
    },
    /// It was found running: started by an earlier run of this program.
    Adopted {
        /// Its process id.
        pid: u32,
    },
    /// It ended.
    Exited(ExitStatus),
    /// Its shim was killed, and the whole process group has been ended.
    Lost,
    /// The answer to [`Action::Check`].
    CheckFinished {
        /// The number in the action.
        number: u64,
        /// The purpose in the action.
        purpose: Purpose,
        /// Nothing, or why the check failed; a timeout is a failure.
        result: Result<(), String>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it; answered by [`Event::Started`] or [`Event::StartFailed`].
    Start,
    /// Send SIGTERM to its process group.
    Terminate,
    /// Send SIGKILL to its process group.
    Kill,
    /// Ask it; answered by [`Event::CheckFinished`], also when it does not answer in time.
    Check {
        /// To be repeated in the answer.
        number: u64,
        /// Which question.
        purpose: Purpose,
    },
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not wanted, and not running.
    Stopped,
    /// Its start was asked for and is not yet answered.
    Starting,
    /// It runs.
    Running {
        /// It may get requests.
        ready: bool,
    },
    /// It failed, and waits for its next start.
    BackingOff,
    /// It was told to end and has not ended.
    Stopping,
}

/// The machine of one process.
#[derive(Debug, Clone)]
pub struct Supervision {
    policy: Policy,
    rng: Rng,
    wanted: bool,
    phase: Phase,
    checks: u64,
    starts: u64,
    crashes: u64,
    failures_in_row: u32,
    last_failure: Option<Failure>,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone)]
enum Phase {
    Stopped,
    Starting,
    Running(Run),
    BackingOff { until: Timestamp },
    Stopping { pid: u32, kill_at: Timestamp, because: StopCause },
}

#[derive(Debug, Clone)]
enum StopCause {
    Unwanted,
    NotAlive(String),
}

/// What is known of a running process.
#[derive(Debug, Clone)]
struct Run {
    pid: u32,
    grace_until: Timestamp,
    ready: Option<Gauge>,
    alive: Option<Gauge>,
    ready_since: Option<Timestamp>,
    has_been_ready: bool,
    /// Why enough checks in a row failed.
    unready: Option<String>,
}

impl Supervision {
    /// Starts with a process that is neither wanted nor running.
    #[must_use]
    pub const fn new(policy: Policy, rng: Rng) -> Self {
        Self {
            policy,
            rng,
            wanted: false,
            phase: Phase::Stopped,
            checks: 0,
            starts: 0,
            crashes: 0,
            failures_in_row: 0,
            last_failure: None,
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened. An event that does not fit the state, such as an exit of a process
    /// already written off, changes nothing.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Wanted(wanted) => self.handle_wanted(wanted, now),
            Event::Started { pid } => self.handle_running(Run::new(&self.policy, pid, now), now),
            Event::Adopted { pid } => {
                self.handle_running(Run::new_adopted(&self.policy, pid, now), now);
            }
            Event::StartFailed { reason } => {
                if matches!(self.phase, Phase::Starting) {
                    self.fail(Failure::StartFailed(reason), now);
                }
            }
            Event::Exited(status) => self.handle_end(Failure::Exited(status), now),
            Event::Lost => self.handle_end(Failure::Lost, now),
            Event::CheckFinished { number, purpose, result } => {
                self.handle_check(number, purpose, result, now);
            }
        }
        self.handle_timeout(now);
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Stopped | Phase::Starting => None,
            Phase::Running(run) => {
                let gauges = [&run.ready, &run.alive].into_iter().flatten();
                let forgive_at = (self.failures_in_row > 0)
                    .then_some(run.ready_since)
                    .flatten()
                    .map(|since| since + HEALTHY_RESET);
                gauges.map(Gauge::next_at).chain(forgive_at).min()
            }
            Phase::BackingOff { until } => Some(*until),
            Phase::Stopping { kill_at, .. } => Some(*kill_at),
        }
    }

    /// Does what time alone makes due; harmless when early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        match &mut self.phase {
            Phase::Stopped | Phase::Starting => {}
            Phase::Running(run) => {
                if run.ready_since.is_some_and(|since| now >= since + HEALTHY_RESET) {
                    self.failures_in_row = 0;
                }
                let gauges = [(&mut run.ready, Purpose::Ready), (&mut run.alive, Purpose::Alive)];
                for (gauge, purpose) in gauges {
                    let number = self.checks + 1;
                    if gauge.as_mut().is_some_and(|gauge| gauge.ask(number, now)) {
                        self.checks = number;
                        self.actions.push_back(Action::Check { number, purpose });
                    }
                }
            }
            Phase::BackingOff { until } => {
                if now >= *until {
                    self.start();
                }
            }
            Phase::Stopping { kill_at, .. } => {
                if now >= *kill_at {
                    *kill_at = now + KILL_EVERY;
                    self.actions.push_back(Action::Kill);
                }
            }
        }
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns where the process is in its life.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.phase {
            Phase::Stopped => State::Stopped,
            Phase::Starting => State::Starting,
            Phase::Running(run) => State::Running { ready: run.ready_since.is_some() },
            Phase::BackingOff { .. } => State::BackingOff,
            Phase::Stopping { .. } => State::Stopping,
        }
    }

    /// Returns whether the process is to run.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Returns whether the process that runs now has ever been ready: one that is not ready and
    /// has never been is still coming up, one that has been is ill.
    #[must_use]
    pub const fn has_been_ready(&self) -> bool {
        match &self.phase {
            Phase::Running(run) => run.has_been_ready,
            Phase::Stopped
            | Phase::Starting
            | Phase::BackingOff { .. }
            | Phase::Stopping { .. } => false,
        }
    }

    /// Returns why it is not ready, once enough checks in a row have failed after its start.
    #[must_use]
    pub fn unready(&self) -> Option<&str> {
        match &self.phase {
            Phase::Running(run) => run.unready.as_deref(),
            Phase::Stopped
            | Phase::Starting
            | Phase::BackingOff { .. }
            | Phase::Stopping { .. } => None,
        }
    }

    /// Returns the process id while there is a process.
    #[must_use]
    pub const fn pid(&self) -> Option<u32> {
        match &self.phase {
            Phase::Running(Run { pid, .. }) | Phase::Stopping { pid, .. } => Some(*pid),
            Phase::Stopped | Phase::Starting | Phase::BackingOff { .. } => None,
        }
    }

    /// Returns how often a start was asked for.
    #[must_use]
    pub const fn starts(&self) -> u64 {
        self.starts
    }

    /// Returns how often the process failed while it was wanted.
    #[must_use]
    pub const fn crashes(&self) -> u64 {
        self.crashes
    }

    /// Returns whether it failed so often in a row that waiting is unlikely to cure it. It is
    /// started again all the same.
    #[must_use]
    pub const fn is_crash_looping(&self) -> bool {
        self.failures_in_row >= CRASH_LOOP_FAILURES
    }

    /// Returns why it last failed.
    #[must_use]
    pub const fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    fn handle_wanted(&mut self, wanted: bool, now: Timestamp) {
        if wanted && !self.wanted {
            // Whoever asks for it anew has a reason to expect that it works now.
            self.failures_in_row = 0;
        }
        self.wanted = wanted;
        match (&self.phase, wanted) {
            (Phase::Stopped, true) => self.start(),
            (Phase::BackingOff { .. }, false) => self.phase = Phase::Stopped,
            (Phase::Running(run), false) => self.stop(run.pid, StopCause::Unwanted, now),
            // A process that is starting is stopped once it runs; one that is stopping is
            // started once it has ended.
            (Phase::Stopped | Phase::Starting | Phase::Stopping { .. }, _)
            | (Phase::BackingOff { .. } | Phase::Running(_), true) => {}
        }
    }

    fn handle_running(&mut self, run: Run, now: Timestamp) {
        match self.phase {
            Phase::Stopped | Phase::Starting | Phase::BackingOff { .. } => {
                // A process that was found running needs no start.
                self.actions.retain(|action| *action != Action::Start);
                let pid = run.pid;
                self.phase = Phase::Running(run);
                if !self.wanted {
                    self.stop(pid, StopCause::Unwanted, now);
                }
            }
            Phase::Running(_) | Phase::Stopping { .. } => {}
        }
    }

    fn handle_end(&mut self, failure: Failure, now: Timestamp) {
        match &mut self.phase {
            Phase::Stopped | Phase::BackingOff { .. } => {}
            Phase::Starting | Phase::Running(_) => self.fail(failure, now),
            Phase::Stopping { because: StopCause::Unwanted, .. } => {
                self.actions.clear();
                self.phase = Phase::Stopped;
                if self.wanted {
                    self.start();
                }
            }
            Phase::Stopping { because: StopCause::NotAlive(reason), .. } => {
                let reason = std::mem::take(reason);
                self.fail(Failure::NotAlive(reason), now);
            }
        }
    }

    fn handle_check(
        &mut self,
        number: u64,
        purpose: Purpose,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let Phase::Running(run) = &mut self.phase else { return };
        let starting = !run.has_been_ready && now < run.grace_until;
        let gauge = match purpose {
            Purpose::Ready => run.ready.as_mut(),
            Purpose::Alive => run.alive.as_mut(),
        };
        let Some(gauge) = gauge else { return };
        if !gauge.answer(number, result.is_ok(), starting, now) {
            return;
        }
        match (purpose, gauge.healthy()) {
            (Purpose::Ready, Some(true)) => {
                run.has_been_ready = true;
                run.ready_since = run.ready_since.or(Some(now));
                run.unready = None;
            }
            (Purpose::Ready, Some(false)) => {
                run.ready_since = None;
                // A first success after failures does not make it ready yet.
                run.unready = result.err().or_else(|| run.unready.take());
            }
            (Purpose::Ready, None) => run.ready_since = None,
            (Purpose::Alive, Some(false)) => {
                let reason = result.err().unwrap_or_default();
                let pid = run.pid;
                self.stop(pid, StopCause::NotAlive(reason), now);
            }
            (Purpose::Alive, Some(true) | None) => {}
        }
    }

    fn start(&mut self) {
        self.starts += 1;
        self.phase = Phase::Starting;
        self.actions.push_back(Action::Start);
    }

    fn stop(&mut self, pid: u32, because: StopCause, now: Timestamp) {
        let kill_at = now + self.policy.stop_grace;
        self.phase = Phase::Stopping { pid, kill_at, because };
        self.actions.clear();
        self.actions.push_back(Action::Terminate);
    }

    fn fail(&mut self, failure: Failure, now: Timestamp) {
        self.actions.clear();
        self.last_failure = Some(failure);
        if !self.wanted {
            self.phase = Phase::Stopped;
            return;
        }
        self.crashes += 1;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        let until = now + draw_wait(self.failures_in_row, &mut self.rng);
        self.phase = Phase::BackingOff { until };
    }
}

impl Run {
    fn new(policy: &Policy, pid: u32, now: Timestamp) -> Self {
        let check = policy.check.as_ref();
        let ready_since = check.is_none().then_some(now);
        Self {
            pid,
            grace_until: now + policy.start_grace,
            ready: check.map(|check| Gauge::new(check, now)),
            alive: check.filter(|check| check.alive.is_some()).map(|check| Gauge::new(check, now)),
            ready_since,
            has_been_ready: ready_since.is_some(),
            unready: None,
        }
    }

    /// As [`Self::new`], but one good answer makes it ready: it was, most likely, before.
    fn new_adopted(policy: &Policy, pid: u32, now: Timestamp) -> Self {
        let ready = policy.check.as_ref().map(|check| Gauge::new_adopted(check, now));
        Self { ready, ..Self::new(policy, pid, now) }
    }
}
