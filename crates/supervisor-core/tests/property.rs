//! Checks what must hold for every sequence of events, with an obvious model of the process
//! beside the machine.

use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::service::{HealthCheck, Probe};
use evenkeel_model::time::Timestamp;
use evenkeel_supervisor_core::backoff::BACKOFF_MAX;
use evenkeel_supervisor_core::status::ExitStatus;
use evenkeel_supervisor_core::supervision::{Action, Event, Policy, Purpose, State, Supervision};
use proptest::prelude::*;

const STOP_GRACE: Duration = Duration::from_secs(5);

/// What the world does next; that it does only possible things is up to [`World::step`].
#[derive(Debug, Clone)]
enum Step {
    Want(bool),
    AnswerStart { ok: bool },
    End { lost: bool },
    AnswerCheck { ok: bool },
    StrayAnswer { number: u64, ok: bool },
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(Step::Want),
        4 => any::<bool>().prop_map(|ok| Step::AnswerStart { ok }),
        2 => any::<bool>().prop_map(|lost| Step::End { lost }),
        6 => any::<bool>().prop_map(|ok| Step::AnswerCheck { ok }),
        1 => (0..50_u64, any::<bool>()).prop_map(|(number, ok)| Step::StrayAnswer { number, ok }),
        6 => (0..8000_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

/// The process and its shell, as simple as can be.
struct World {
    machine: Supervision,
    now: Timestamp,
    wanted: bool,
    start_asked: bool,
    running: bool,
    terminated_at: Option<Timestamp>,
    checks: Vec<(u64, Purpose)>,
}

impl World {
    fn new(seed: u64, checked: bool) -> Self {
        let check = HealthCheck {
            probe: Probe::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: 3,
            healthy_after: 1,
            alive: Some("/alive".to_owned()),
        };
        let policy = Policy {
            check: checked.then_some(check),
            start_grace: Duration::from_secs(10),
            stop_grace: STOP_GRACE,
        };
        Self {
            machine: Supervision::new(policy, Rng::from_seed(seed)),
            now: Timestamp::ZERO,
            wanted: false,
            start_asked: false,
            running: false,
            terminated_at: None,
            checks: Vec::new(),
        }
    }

    fn feed(&mut self, event: Event) {
        self.machine.handle_event(event, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Start => {
                    assert!(self.wanted, "an unwanted process is never started");
                    assert!(!self.running && !self.start_asked, "never two at a time");
                    self.start_asked = true;
                }
                Action::Terminate => {
                    assert!(self.running && self.terminated_at.is_none(), "one SIGTERM each");
                    self.terminated_at = Some(self.now);
                }
                Action::Kill => {
                    let since = self.terminated_at.expect("SIGKILL only after SIGTERM");
                    assert!(self.now.since(since) >= STOP_GRACE, "SIGKILL before the deadline");
                }
                Action::Check { number, purpose } => {
                    assert!(self.running && self.terminated_at.is_none(), "checked for nothing");
                    self.checks.retain(|(_, other)| *other != purpose);
                    self.checks.push((number, purpose));
                }
            }
        }
        let state = self.machine.state();
        match state {
            State::Stopped => assert!(!self.wanted && !self.running && !self.start_asked),
            State::Starting => assert!(self.start_asked && !self.running),
            State::Running { .. } => assert!(self.running && self.wanted),
            State::BackingOff => {
                assert!(self.wanted && !self.running && !self.start_asked);
                let due = self.machine.poll_timeout().expect("a wait has an end");
                assert!(due.since(self.now) <= BACKOFF_MAX, "never given up");
            }
            State::Stopping => {
                assert!(self.running && self.terminated_at.is_some());
                assert!(self.machine.poll_timeout().is_some(), "a stop has a deadline");
            }
        }
    }

    fn pass(&mut self, until: Timestamp) {
        let mut turns = 0;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.collect();
            turns += 1;
            assert!(turns < 1000, "time stands still at {:?}", self.now);
        }
        self.now = until;
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Want(wanted) => {
                self.wanted = wanted;
                self.feed(Event::Wanted(wanted));
            }
            Step::AnswerStart { ok } if self.start_asked => {
                self.start_asked = false;
                self.running = ok;
                let reason = "no such file".to_owned();
                self.feed(if ok {
                    Event::Started { pid: 7 }
                } else {
                    Event::StartFailed { reason }
                });
            }
            Step::End { lost } if self.running => {
                self.running = false;
                self.terminated_at = None;
                self.feed(if lost { Event::Lost } else { Event::Exited(ExitStatus::Code(0)) });
            }
            Step::AnswerCheck { ok } => {
                if let Some((number, purpose)) = self.checks.pop() {
                    let result = if ok { Ok(()) } else { Err(String::new()) };
                    self.feed(Event::CheckFinished { number, purpose, result });
                }
            }
            Step::StrayAnswer { number, ok } => {
                let result = if ok { Ok(()) } else { Err(String::new()) };
                let purpose = Purpose::Ready;
                self.checks.retain(|asked| *asked != (number, purpose));
                self.feed(Event::CheckFinished { number, purpose, result });
            }
            Step::Pass { millis } => self.pass(self.now + Duration::from_millis(millis)),
            Step::AnswerStart { .. } | Step::End { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn never_breaks_the_rules(
        seed: u64,
        checked: bool,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(seed, checked);
        for step in &steps {
            world.step(step);
        }
    }

    #[test]
    fn a_wanted_process_always_comes_back(
        seed: u64,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut world = World::new(seed, true);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Want(true));
        for _ in 0..4 {
            if world.terminated_at.is_some() {
                world.step(&Step::End { lost: false });
            }
            world.step(&Step::AnswerStart { ok: true });
            // No answer to a check comes: that alone never ends a process.
            world.pass(world.now + BACKOFF_MAX);
        }
        let running = matches!(world.machine.state(), State::Running { .. });
        prop_assert!(running, "{:?}", world.machine.state());
    }

    #[test]
    fn an_unwanted_process_always_ends(
        seed: u64,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut world = World::new(seed, true);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Want(false));
        world.step(&Step::AnswerStart { ok: true });
        prop_assert_eq!(world.terminated_at.is_some(), world.running);
        world.step(&Step::End { lost: false });
        prop_assert_eq!(world.machine.state(), State::Stopped);
        prop_assert_eq!(world.machine.poll_timeout(), None);
    }
}
