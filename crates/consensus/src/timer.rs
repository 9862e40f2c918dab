//! When elections and heartbeats are due.
//!
//! Raft counts ticks, and this module tells it how many have passed: [`TICKS`] of them are the
//! least election timeout, however long that is, so that timings can change at run time and
//! nothing wakes up between two deadlines.

use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use raft::{Raft, StateRole, Storage};

use crate::settings::{MemberId, Settings};

/// The least election timeout, in ticks. The resolution of its randomisation.
pub(crate) const TICKS: usize = 1000;

/// The shortest time between two heartbeats.
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);

/// The clock of one member's Raft.
#[derive(Debug)]
pub(crate) struct Timer {
    member: MemberId,
    seed: u64,
    heartbeat: Duration,
    election_min: Duration,
    /// When Raft last began to count ticks.
    since: Timestamp,
    /// When a leader next says that it lives.
    heartbeat_at: Timestamp,
    led: bool,
    /// How many elections this member has called; each gets another timeout.
    elections: u64,
}

impl Timer {
    pub(crate) fn new(settings: &Settings, now: Timestamp) -> Self {
        Self {
            member: settings.member,
            seed: settings.seed,
            heartbeat: settings.heartbeat,
            election_min: settings.election_min,
            since: now,
            heartbeat_at: now,
            led: false,
            elections: 0,
        }
    }

    pub(crate) fn change(&mut self, heartbeat: Duration, election_min: Duration, now: Timestamp) {
        self.heartbeat = heartbeat.max(HEARTBEAT_MIN);
        self.election_min = election_min.max(self.heartbeat * 2);
        self.heartbeat_at = self.heartbeat_at.min(now + self.heartbeat);
    }

    /// Returns the least time that a follower waits before it calls an election.
    pub(crate) const fn election_min(&self) -> Duration {
        self.election_min
    }

    /// Starts counting again.
    pub(crate) const fn restart(&mut self, now: Timestamp) {
        self.since = now;
    }

    /// Tells Raft how many ticks have passed, before it takes something in: never none, so that a
    /// restart of its count can be seen, and never enough for an election, which only
    /// [`Self::fire`] may call.
    pub(crate) fn before_step<S: Storage>(&self, raft: &mut Raft<S>, now: Timestamp) {
        let passed =
            now.since(self.since).as_nanos() * TICKS as u128 / self.election_min.as_nanos().max(1);
        let most = self.ticks_to_deadline(raft) - 1;
        raft.election_elapsed = usize::try_from(passed).unwrap_or(most).clamp(1, most);
    }

    /// Follows Raft, after it has taken something in.
    pub(crate) fn after_step<S: Storage>(&mut self, raft: &mut Raft<S>, now: Timestamp) {
        if raft.election_elapsed == 0 {
            self.since = now;
        }
        let leads = raft.state == StateRole::Leader;
        if leads && !self.led {
            self.heartbeat_at = now + self.heartbeat;
        }
        self.led = leads;
        raft.set_randomized_election_timeout(self.timeout_ticks(raft));
    }

    /// Returns when something is due.
    pub(crate) fn deadline<S: Storage>(&self, raft: &Raft<S>) -> Timestamp {
        let election = self.election_at(raft);
        if self.led { election.min(self.heartbeat_at) } else { election }
    }

    /// Lets Raft do what is due: call an election, or, as its leader, check for a quorum.
    pub(crate) fn fire<S: Storage>(&mut self, raft: &mut Raft<S>, now: Timestamp) {
        if self.led && now >= self.heartbeat_at {
            self.heartbeat_at = now + self.heartbeat;
            raft.ping();
        }
        if now >= self.election_at(raft) {
            raft.election_elapsed = self.ticks_to_deadline(raft) - 1;
            self.elections += u64::from(!self.led);
            raft.tick();
            self.after_step(raft, now);
        }
    }

    fn election_at<S: Storage>(&self, raft: &Raft<S>) -> Timestamp {
        let ticks = self.ticks_to_deadline(raft) as u128;
        let nanos = self.election_min.as_nanos() * ticks / TICKS as u128;
        self.since + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn ticks_to_deadline<S: Storage>(&self, raft: &Raft<S>) -> usize {
        if raft.state == StateRole::Leader { TICKS } else { self.timeout_ticks(raft) }
    }

    /// Returns this election's timeout: a function of what both a run and its replay know. Raft's
    /// own choice comes from a generator without a seed.
    fn timeout_ticks<S: Storage>(&self, raft: &Raft<S>) -> usize {
        let mut rng = Rng::from_seed(self.seed);
        for part in [self.member.0, raft.term, self.elections] {
            rng = Rng::from_seed(rng.next_u64() ^ part);
        }
        TICKS + rng.index(TICKS)
    }
}
