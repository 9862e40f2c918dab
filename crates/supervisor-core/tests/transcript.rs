//! Replays the scripts in `tests/golden`: lines with `>` are events, the others what the machine
//! did. `UPDATE_EXPECT=1` rewrites the other lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::service::{HealthCheck, Probe};
use evenkeel_model::time::Timestamp;
use evenkeel_supervisor_core::status::ExitStatus;
use evenkeel_supervisor_core::supervision::{Action, Event, Policy, Purpose, Supervision};
use expect_test::expect_file;

fn policy() -> Policy {
    let check = HealthCheck {
        probe: Probe::Http("/healthz".to_owned()),
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        unhealthy_after: 3,
        healthy_after: 2,
        alive: Some("/alive".to_owned()),
    };
    Policy {
        check: Some(check),
        start_grace: Duration::from_secs(10),
        stop_grace: Duration::from_secs(5),
    }
}

/// Drives one machine through a script and writes down what it does.
struct Replay {
    machine: Supervision,
    now: Timestamp,
    asked: BTreeMap<Purpose, u64>,
    answers: BTreeMap<Purpose, bool>,
    transcript: String,
}

impl Replay {
    fn new() -> Self {
        Self {
            machine: Supervision::new(policy(), Rng::from_seed(1)),
            now: Timestamp::ZERO,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            transcript: String::new(),
        }
    }

    fn note(&mut self, text: &str) {
        let seconds = Duration::from_nanos(self.now.as_nanos()).as_secs_f64();
        writeln!(self.transcript, "{seconds:9.3} s  {text}").expect("a string takes everything");
    }

    /// Performs what is due and, for checks with a standing answer, answers at once.
    fn settle(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let Action::Check { number, purpose } = action else {
                self.note(&format!("{action:?}"));
                continue;
            };
            if let Some(ok) = self.answers.get(&purpose).copied() {
                let before = self.machine.state();
                self.answer(number, purpose, ok);
                if self.machine.state() != before {
                    let state = self.machine.state();
                    self.note(&format!("{purpose:?} check {ok}: {state:?}"));
                }
            } else {
                self.asked.insert(purpose, number);
                self.note(&format!("{action:?}"));
            }
        }
    }

    fn answer(&mut self, number: u64, purpose: Purpose, ok: bool) {
        let result = if ok { Ok(()) } else { Err("status 500".to_owned()) };
        self.machine.handle_event(Event::CheckFinished { number, purpose, result }, self.now);
    }

    fn run_until(&mut self, until: Timestamp) {
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn perform(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let purpose = |word: &str| if word == "ready" { Purpose::Ready } else { Purpose::Alive };
        let event = match words.as_slice() {
            ["after", millis, "ms"] => {
                let pause = Duration::from_millis(number(millis));
                return self.run_until(self.now + pause);
            }
            ["checks", word, "answer", answer] => {
                self.answers.insert(purpose(word), *answer == "good");
                return;
            }
            ["status"] => {
                let machine = &self.machine;
                let last = machine.last_failure().map_or("none".to_owned(), ToString::to_string);
                let looping = if machine.is_crash_looping() { ", crash-looping" } else { "" };
                let text = format!(
                    "status: {} starts, {} crashes, last failure: {last}{looping}",
                    machine.starts(),
                    machine.crashes()
                );
                return self.note(&text);
            }
            [word @ ("ready" | "alive"), answer @ ("good" | "bad")] => {
                let number = self.asked.get(&purpose(word)).copied().unwrap_or(0);
                self.answer(number, purpose(word), *answer == "good");
                let state = self.machine.state();
                self.note(&format!("{state:?}"));
                return self.settle();
            }
            ["wanted"] => Event::Wanted(true),
            ["unwanted"] => Event::Wanted(false),
            ["started", pid] => Event::Started { pid: number(pid) },
            ["adopted", pid] => Event::Adopted { pid: number(pid) },
            ["start", "failed"] => Event::StartFailed { reason: "no such file".to_owned() },
            ["exited", "code", code] => Event::Exited(ExitStatus::Code(number(code))),
            ["exited", "signal", signal] => Event::Exited(ExitStatus::Signal(number(signal))),
            ["lost"] => Event::Lost,
            _ => panic!("unknown script line: {line}"),
        };
        self.machine.handle_event(event, self.now);
        let state = self.machine.state();
        self.note(&format!("{state:?}"));
        self.settle();
    }
}

fn number<N: FromStr>(word: &str) -> N {
    word.parse().ok().expect("a number in the script")
}

fn check(path: &str) {
    let full = format!("{}/tests/golden/{path}", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&full).expect("a script");
    let mut replay = Replay::new();
    for line in script.lines() {
        if line.starts_with('#') || line.is_empty() {
            replay.transcript.push_str(line);
            replay.transcript.push('\n');
        } else if let Some(event) = line.strip_prefix("> ") {
            writeln!(replay.transcript, "> {event}").expect("a string takes everything");
            replay.perform(event);
        }
    }
    expect_file![full].assert_eq(&replay.transcript);
}

#[test]
fn life_of_a_healthy_process() {
    check("healthy.txt");
}

#[test]
fn crash_loop_backs_off_and_is_forgiven() {
    check("crash-loop.txt");
}

#[test]
fn stop_has_a_deadline() {
    check("stop.txt");
}

#[test]
fn failed_alive_checks_restart() {
    check("not-alive.txt");
}

#[test]
fn adoption_needs_one_good_answer() {
    check("adopted.txt");
}
