//! One host: a member, its shell, its disk and its clock.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use evenkeel_consensus::command::RequestId;
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::settings::Settings;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use super::disk::Disk;
use super::invariants::LogView;

/// A host, up or down.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) settings: Settings,
    pub(super) disk: Disk,
    /// The process; none while the host is down.
    pub(super) process: Option<Process>,
    /// Counts the starts: what an earlier process waited for means nothing to a later one.
    pub(super) life: u64,
    clock: Clock,
}

/// What a crash takes away.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) replica: Replica,
    pub(super) log: LogView,
    /// What has arrived since the last step.
    pub(super) inbox: VecDeque<Event>,
    /// Whether a step is due for what has arrived.
    pub(super) step_due: bool,
    pub(super) paused: bool,
    /// The wake-up that counts; earlier ones are stale.
    pub(super) wake_at: Option<Timestamp>,
    /// Which client asked, and in which attempt.
    pub(super) requests: BTreeMap<RequestId, (usize, u64)>,
    requests_taken: u64,
}

/// A clock that starts with its process and runs a little fast or slow.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: Timestamp,
    /// What it counts while 1000 pass.
    rate: u64,
}

impl Clock {
    fn read(self, now: Timestamp) -> Timestamp {
        let passed = u64::try_from(now.since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanos(passed / 1000 * self.rate)
    }

    /// Returns the world's time at which the clock has reached `reading`.
    fn reaches(self, reading: Timestamp) -> Timestamp {
        let passed = (reading.as_nanos() / self.rate + 1).saturating_mul(1000);
        Timestamp::from_nanos(self.origin.as_nanos().saturating_add(passed))
    }
}

impl Host {
    pub(super) fn new(settings: Settings, rng: &mut Rng) -> Self {
        let clock = Clock { origin: Timestamp::ZERO, rate: 900 + rng.below(200) };
        Self { settings, disk: Disk::default(), process: None, life: 0, clock }
    }

    /// Starts the process from what the disk holds.
    pub(super) fn start(&mut self, now: Timestamp) -> Result<(), String> {
        let refused = |error: &dyn std::error::Error| format!("a member cannot start: {error}");
        let restored = self.disk.restore().map_err(|error| refused(&error))?;
        let applied = restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let log = LogView::restored(&restored.entries, applied);
        self.clock.origin = now;
        self.life += 1;
        let settings = self.settings.clone();
        let replica = guarded(|| Replica::new(settings, restored, Timestamp::ZERO))?
            .map_err(|error| refused(&error))?;
        self.process = Some(Process {
            replica,
            log,
            inbox: VecDeque::new(),
            step_due: false,
            paused: false,
            wake_at: None,
            requests: BTreeMap::new(),
            requests_taken: 0,
        });
        Ok(())
    }

    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.process = None;
        self.disk.crash(rng);
    }

    pub(super) fn lose_disk(&mut self) {
        self.process = None;
        self.disk = Disk::replacement();
    }

    /// Lets the process take in what has arrived, and returns what it wants done. Messages come
    /// before timeouts, as in a shell that was paused.
    pub(super) fn step(&mut self, now: Timestamp) -> Result<Vec<Action>, String> {
        let Some(process) = &mut self.process else { return Ok(Vec::new()) };
        process.step_due = false;
        let reading = self.clock.read(now);
        guarded(|| {
            while let Some(event) = process.inbox.pop_front() {
                process.replica.handle_event(event, reading);
            }
            if process.replica.poll_timeout().is_some_and(|deadline| deadline <= reading) {
                process.replica.handle_timeout(reading);
            }
            std::iter::from_fn(|| process.replica.poll_action()).collect()
        })
    }

    /// Returns when the process next wants to be woken.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let deadline = self.process.as_ref()?.replica.poll_timeout()?;
        Some(self.clock.reaches(deadline))
    }
}

impl Process {
    /// Notes who asked, and returns the name of the request.
    pub(super) fn take_request(&mut self, client: usize, attempt: u64) -> RequestId {
        self.requests_taken += 1;
        let request = RequestId(self.requests_taken);
        self.requests.insert(request, (client, attempt));
        request
    }
}

/// Turns a panic of the machine into a violation.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("a member panicked: {}", panic_message(&*panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("for no reason given")
}
