//! One member of the coordinator: its process, its disk and its clock.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use evenkeel_consensus::command::RequestId;
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::settings::Settings;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::agreement::LogView;
use crate::clock::Clock;
use crate::disk::Disk;

/// A member, up or down.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) settings: Settings,
    pub(crate) disk: Disk,
    /// The process; none while the host is down.
    pub(crate) process: Option<Process>,
    /// Counts the starts: what an earlier process waited for means nothing to a later one.
    pub(crate) life: u64,
    pub(crate) clock: Clock,
}

/// What a crash takes away.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) log: LogView,
    /// What has arrived since the last step.
    pub(crate) inbox: VecDeque<Event>,
    /// Whether a step is due for what has arrived.
    pub(crate) step_due: bool,
    pub(crate) paused: bool,
    /// The wake-up that counts; earlier ones are stale.
    pub(crate) wake_at: Option<Timestamp>,
    /// Who asked, and in which attempt.
    pub(crate) requests: BTreeMap<RequestId, (usize, u64)>,
    requests_taken: u64,
}

impl Member {
    pub(crate) fn new(settings: Settings, rng: &mut Rng) -> Self {
        let clock = Clock::draw(rng);
        Self { settings, disk: Disk::default(), process: None, life: 0, clock }
    }

    /// Starts the process from what the disk holds.
    pub(crate) fn start(&mut self, now: Timestamp) -> Result<(), String> {
        let refused = |error: String| format!("a member cannot start: {error}");
        let restored = self.disk.restore().map_err(refused)?;
        let applied = restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let log = LogView::restored(&restored.entries, applied);
        self.clock.origin = now;
        self.life += 1;
        let settings = self.settings.clone();
        let replica = guarded(|| Replica::new(settings, restored, Timestamp::ZERO))?
            .map_err(|error| refused(error.to_string()))?;
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

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.process = None;
        self.disk.crash(rng);
    }

    pub(crate) fn lose_disk(&mut self) {
        self.process = None;
        self.disk = Disk::replacement();
    }

    /// Lets the process take in what has arrived, and returns what it wants done. Messages come
    /// before timeouts, as in a shell that was paused.
    pub(crate) fn step(&mut self, now: Timestamp) -> Result<Vec<Action>, String> {
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
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let deadline = self.process.as_ref()?.replica.poll_timeout()?;
        Some(self.clock.reaches(deadline))
    }
}

impl Process {
    /// Notes who asked, and returns the name of the request.
    pub(crate) fn take_request(&mut self, client: usize, attempt: u64) -> RequestId {
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
