//! Clients that want to be the only one: each holds a lease and, with it, one and the same key.
//!
//! ```text
//!  idle ─ grant ─▶ granted ─ put if absent ─▶ holds ─ keep alive … ─▶ released, or no longer sure
//!                     └─ conflict: tries again later, with another lease
//! ```
//! A holder is sure of its lease from when it sent what was acknowledged, for a little less than
//! the time to live: clocks differ.

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, LeaseId, Query, Space};
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

use crate::clients::{Next, Request};

/// The key that all want.
const LOCK: &str = "lock";

/// The time to live of a lease: the shortest there is, so that some run out.
const TTL: Duration = Duration::from_secs(1);

/// For how long a holder is sure: members' clocks run up to a tenth fast.
const SURE: Duration = Duration::from_millis(800);

/// How often a lease is kept alive.
const KEEP_EVERY: Duration = Duration::from_millis(200);

/// One client.
#[derive(Debug)]
pub(crate) struct Holder {
    number: usize,
    hosts: usize,
    target: usize,
    /// Counts what it sent; an answer to an older attempt is ignored.
    pub(crate) attempt: u64,
    names: u64,
    state: State,
    sent: Timestamp,
    /// When it first asked for the lease: an answer that is a repetition speaks of that time.
    asked: Timestamp,
    /// What it holds, once it does.
    pub(crate) hold: Option<Hold>,
}

/// A time in which a holder is sure to be the only one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// The revision with which it got the key.
    pub(crate) token: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Asks for a lease, under this name.
    Granting(String),
    /// Asks for the key, under this name; sure of the lease until then.
    Acquiring(LeaseId, String, Timestamp),
    /// Holds it, and wants to until then.
    Holding(LeaseId, Timestamp),
    /// Gives it back.
    Releasing(LeaseId),
}

impl Holder {
    pub(crate) fn new(number: usize, hosts: usize) -> Self {
        let state = State::Granting(String::new());
        let (target, sent) = (number % hosts, Timestamp::ZERO);
        Self { number, hosts, target, attempt: 0, names: 0, state, sent, asked: sent, hold: None }
    }

    /// Returns the next attempt: which member, and what.
    pub(crate) fn send(&mut self, now: Timestamp) -> (usize, Request) {
        self.attempt += 1;
        self.sent = now;
        if let State::Granting(name) = &self.state
            && name.is_empty()
        {
            self.state = State::Granting(self.name());
            self.asked = now;
        }
        let request = match &self.state {
            State::Granting(name) => change(Change::GrantLease { ttl: TTL }, Some(name)),
            State::Acquiring(lease, name, _) => {
                let put = Change::Put {
                    space: Space::User,
                    key: LOCK.to_owned(),
                    value: Bytes::from(format!("h{}", self.number)),
                    expect: Expect::Absent,
                    lease: Some(*lease),
                };
                change(put, Some(name))
            }
            State::Holding(lease, _) => Request::Question(Query::KeepAlive { lease: *lease }),
            State::Releasing(lease) => change(Change::RevokeLease { lease: *lease }, None),
        };
        (self.target, request)
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("h{}-{}", self.number, self.names)
    }

    /// Takes in an answer; `None` if none came in time.
    pub(crate) fn answered(
        &mut self,
        attempt: u64,
        answer: Option<Answer>,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Next {
        if attempt != self.attempt {
            return Next::Ignore;
        }
        self.attempt += 1;
        match answer {
            None | Some(Answer::Unknown | Answer::Overloaded) => self.elsewhere(rng),
            Some(Answer::NotLeader { leader }) => {
                let known = leader.and_then(|leader| usize::try_from(leader.0).ok());
                self.target = known.map_or_else(|| rng.index(self.hosts), |leader| leader - 1);
                Next::Wait(Duration::from_millis(1 + rng.below(30)))
            }
            Some(Answer::NoLease { .. }) => self.lost(now, rng),
            Some(Answer::Granted { lease, replayed }) => {
                let since = if replayed { self.asked } else { self.sent };
                self.state = State::Acquiring(lease, self.name(), since + SURE);
                Next::Wait(Duration::ZERO)
            }
            Some(Answer::Written { revision, .. }) => self.acquired(revision, now, rng),
            Some(Answer::Lease { .. }) => self.kept(now),
            Some(Answer::Conflict { .. } | Answer::Revoked { .. }) => {
                self.begin_again();
                Next::Wait(Duration::from_millis(20 + rng.below(200)))
            }
            Some(answer) => Next::Complain(format!("h{} was answered {answer:?}", self.number)),
        }
    }

    fn elsewhere(&mut self, rng: &mut Rng) -> Next {
        self.target = rng.index(self.hosts);
        Next::Wait(Duration::from_millis(1 + rng.below(30)))
    }

    fn begin_again(&mut self) {
        self.state = State::Granting(String::new());
    }

    fn acquired(&mut self, token: u64, now: Timestamp, rng: &mut Rng) -> Next {
        let State::Acquiring(lease, _, sure) = self.state else { return Next::Ignore };
        // One that is no longer sure of its lease must not act on the key, but may keep it alive.
        self.hold = Some(Hold { from: now, until: sure, token }).filter(|hold| hold.until > now);
        let wanted = now + Duration::from_millis(500 + rng.below(2500));
        self.state = State::Holding(lease, wanted);
        Next::Wait(Duration::ZERO)
    }

    fn kept(&mut self, now: Timestamp) -> Next {
        let State::Holding(lease, wanted) = self.state else { return Next::Ignore };
        if let Some(hold) = &mut self.hold {
            hold.until = hold.until.max(self.sent + SURE);
        }
        if now >= wanted {
            self.end_hold(now);
            self.state = State::Releasing(lease);
            return Next::Wait(Duration::ZERO);
        }
        Next::Wait(KEEP_EVERY)
    }

    /// A lease that is gone must not be one that was sure to live.
    fn lost(&mut self, now: Timestamp, rng: &mut Rng) -> Next {
        if let Some(hold) = self.hold.filter(|hold| hold.until > now) {
            let left = hold.until.since(now);
            return Next::Complain(format!("h{} lost its lease {left:?} too early", self.number));
        }
        if let State::Acquiring(_, _, sure) = self.state
            && sure > now
        {
            let left = sure.since(now);
            return Next::Complain(format!("h{} lost a new lease {left:?} too early", self.number));
        }
        self.end_hold(now);
        self.begin_again();
        Next::Wait(Duration::from_millis(20 + rng.below(200)))
    }

    fn end_hold(&mut self, now: Timestamp) {
        if let Some(hold) = &mut self.hold {
            hold.until = hold.until.min(now);
        }
    }
}

fn change(change: Change, name: Option<&String>) -> Request {
    Request::Change(Command { change, idempotency: name.cloned() })
}

/// Checks that no two are sure at the same time, and that who came later has the higher token.
pub(crate) fn check(holders: &[Holder]) -> Result<(), String> {
    for (place, one) in holders.iter().enumerate() {
        for other in holders.iter().skip(place + 1) {
            let (Some(mine), Some(theirs)) = (one.hold, other.hold) else { continue };
            let (first, second) =
                if mine.from <= theirs.from { (mine, theirs) } else { (theirs, mine) };
            if first.until > second.from {
                return Err(format!("h{} and h{} both hold the key", one.number, other.number));
            }
            if first.token >= second.token {
                return Err(format!(
                    "token {} was given after token {}",
                    second.token, first.token
                ));
            }
        }
    }
    Ok(())
}
