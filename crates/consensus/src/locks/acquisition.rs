//! Decides the steps of a client that wants a lock, one at a time.
//!
//! ```text
//!            granted            placed            first            alive
//!  Granting ────────▶ Queueing ───────▶ Looking ────────▶ Keeping ──────▶ held
//!                         ▲              │   ▲  ╲                ╲ ended
//!        a lease is given ┘       behind │   │   ╲ time is up     ▼
//!                                        ▼   │    ▼            no lease
//!                                      Waiting   Leaving ──▶ in vain
//!                                        ▲│
//!                                        │▼ alive
//!                                      Keeping
//! ```
//! Each waits for the one before it alone: a lock that is released wakes one, not all. The place
//! before is gone for good once it is gone, whenever that was seen: what is created later comes
//! later. A lease that was made here is kept alive until the lock is held; one that was given is
//! the client's own business, and so is the place that goes with it.

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use prost::bytes::Bytes;

use super::{LeaseOwner, LockName, Place, Queue};
use crate::answer::{Answer, KeyEntry};
use crate::command::{
    Change, Command, Compare, LeaseId, Operand, Operation, Query, Relation, Space, Transaction,
};

/// Keys asked for at once.
const PAGE: usize = 256;
/// Changes asked for at once.
const BATCH: usize = 16;
/// Time after which a client that waits looks whether it still has its place.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The lock.
    pub name: LockName,
    /// The value of the place, for others to read.
    pub value: Bytes,
    /// The lease of the place.
    pub terms: Terms,
    /// How long to wait while others are before it.
    pub wait: Duration,
    /// A name under which the same wish finds its place again.
    pub idempotency: Option<String>,
}

/// With which lease a place goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    /// A lease of the client's, who keeps it alive. The place stays when the wait is over.
    Lease(LeaseId),
    /// One that is made for it, lasts so long, and ends when the wait is over.
    Ttl(Duration),
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Carry this out and hand the answer in.
    Change(Command),
    /// Ask this and hand the answer in.
    Ask(Query),
    /// Ask this as soon as there is a change after a revision, or at [`Acquisition::poll_timeout`],
    /// and hand the answer in. Any member's state will do.
    Await {
        /// The question.
        query: Query,
        /// The revision.
        after: u64,
    },
    /// Nothing is left to do.
    End(Ending),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The lock is held, and its lease has just been kept alive if it was made here.
    Held(Place),
    /// Others were before it until the wait was over.
    InVain {
        /// Who held the lock last.
        holder: Place,
        /// How many were before it.
        ahead: usize,
    },
    /// The lease has ended, or the place was taken away.
    NoLease(LeaseId),
    /// A step was answered so.
    Refused(Answer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Granting,
    Queueing(LeaseId),
    Looking { lease: LeaseId, seen: Vec<KeyEntry> },
    Waiting(Wait),
    Keeping(LeaseId, Then),
    Leaving { lease: LeaseId, holder: Place, ahead: usize },
    Ended(Ending),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wait {
    lease: LeaseId,
    /// The key of the place before.
    behind: String,
    /// The last revision of which all is known.
    after: u64,
    look_at: Timestamp,
}

/// What follows once a lease was kept alive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    Wait(Wait),
    Hold(Place),
}

/// One client on its way to a lock.
#[derive(Debug, Clone)]
pub struct Acquisition {
    wish: Wish,
    state: State,
    deadline: Timestamp,
    /// When the lease must be kept alive, if it was made here.
    keep_at: Timestamp,
}

impl Acquisition {
    /// Begins.
    #[must_use]
    pub fn new(wish: Wish, now: Timestamp) -> Self {
        let state = match wish.terms {
            Terms::Lease(lease) => State::Queueing(lease),
            Terms::Ttl(_) => State::Granting,
        };
        let deadline = now + wish.wait;
        Self { wish, state, deadline, keep_at: now }
    }

    /// Returns the next step; the same one until an answer was handed in.
    #[must_use]
    pub fn poll_action(&self) -> Action {
        match &self.state {
            State::Granting => {
                let Terms::Ttl(ttl) = self.wish.terms else { return self.ask_for_places(&[]) };
                Action::Change(self.command(Change::GrantLease { ttl }, "lease"))
            }
            State::Queueing(lease) => Action::Change(self.command(self.place(*lease), "place")),
            State::Looking { seen, .. } => self.ask_for_places(seen),
            State::Waiting(Wait { behind, after, .. }) => {
                let (prefix, after) = (behind.clone(), *after);
                Action::Await { query: Query::Changes { prefix, after, limit: BATCH }, after }
            }
            State::Keeping(lease, _) => Action::Ask(Query::KeepAlive { lease: *lease }),
            State::Leaving { lease, .. } => {
                Action::Change(Command::once(Change::RevokeLease { lease: *lease }))
            }
            State::Ended(ending) => Action::End(ending.clone()),
        }
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let State::Waiting(wait) = &self.state else { return None };
        let first = self.deadline.min(wait.look_at);
        Some(if self.keeps() { first.min(self.keep_at) } else { first })
    }

    /// Returns whether a place was taken for sure.
    #[must_use]
    pub const fn is_placed(&self) -> bool {
        !matches!(self.state, State::Granting | State::Queueing(_))
    }

    /// Returns the lease that was made here, for whoever gives up: to end it is to leave the queue.
    #[must_use]
    pub const fn own_lease(&self) -> Option<LeaseId> {
        match (&self.state, self.wish.terms) {
            (State::Ended(Ending::Held(Place { lease, .. })), Terms::Ttl(_)) => Some(*lease),
            (_, Terms::Lease(_)) | (State::Granting | State::Ended(_), _) => None,
            (
                State::Queueing(lease)
                | State::Looking { lease, .. }
                | State::Waiting(Wait { lease, .. })
                | State::Keeping(lease, _)
                | State::Leaving { lease, .. },
                Terms::Ttl(_),
            ) => Some(*lease),
        }
    }

    /// Lets time pass. Harmless when early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let State::Waiting(wait) = &self.state else { return };
        if now >= self.deadline || now >= wait.look_at {
            self.look(wait.lease);
        } else if self.keeps() && now >= self.keep_at {
            self.state = State::Keeping(wait.lease, Then::Wait(wait.clone()));
        }
    }

    /// Takes in the answer to the step.
    pub fn handle_answer(&mut self, answer: Answer, now: Timestamp) {
        match (std::mem::replace(&mut self.state, State::Granting), answer) {
            (State::Granting, Answer::Granted { lease, replayed }) => {
                // Nobody knows for how long one that was made earlier lasts yet.
                self.kept(if replayed { now - self.keep_every() } else { now });
                self.state = State::Queueing(lease);
            }
            (State::Queueing(lease), Answer::Transacted { .. }) => self.look(lease),
            (State::Looking { lease, seen }, Answer::Entries { entries, more, store_revision }) => {
                self.see(lease, [seen, entries].concat(), more, store_revision, now);
            }
            (State::Waiting(wait), Answer::Changes { changes, through }) => {
                let gone = |key: &str| {
                    changes.iter().any(|change| change.key == key && change.after.is_none())
                };
                if gone(&wait.behind) {
                    self.look(wait.lease);
                } else {
                    let after = through.max(wait.after);
                    self.state = State::Waiting(Wait { after, ..wait });
                }
            }
            // This member is behind, and was waited for in vain.
            (State::Waiting(wait), Answer::Future { .. }) => self.state = State::Waiting(wait),
            (State::Waiting(wait), Answer::Compacted { .. }) => self.look(wait.lease),
            (State::Keeping(_, then), Answer::Lease { .. }) => {
                self.kept(now);
                self.state = match then {
                    Then::Wait(wait) => State::Waiting(wait),
                    Then::Hold(place) => State::Ended(Ending::Held(place)),
                };
            }
            (
                State::Leaving { holder, ahead, .. },
                Answer::Revoked { .. } | Answer::NoLease { .. },
            ) => {
                self.state = State::Ended(Ending::InVain { holder, ahead });
            }
            (State::Ended(ending), _) => self.state = State::Ended(ending),
            (_, Answer::NoLease { lease }) => self.state = State::Ended(Ending::NoLease(lease)),
            (_, answer) => self.state = State::Ended(Ending::Refused(answer)),
        }
    }

    /// Returns whether the lease is kept alive here.
    const fn keeps(&self) -> bool {
        matches!(self.wish.terms, Terms::Ttl(_))
    }

    const fn owner(&self) -> LeaseOwner {
        match self.wish.terms {
            Terms::Lease(_) => LeaseOwner::Client,
            Terms::Ttl(_) => LeaseOwner::Place,
        }
    }

    fn keep_every(&self) -> Duration {
        match self.wish.terms {
            // Two tries may fail.
            Terms::Ttl(ttl) => ttl / 3,
            Terms::Lease(_) => Duration::MAX,
        }
    }

    fn kept(&mut self, now: Timestamp) {
        self.keep_at = now + self.keep_every();
    }

    fn look(&mut self, lease: LeaseId) {
        self.state = State::Looking { lease, seen: Vec::new() };
    }

    /// Decides from all places, once all are there.
    fn see(&mut self, lease: LeaseId, seen: Vec<KeyEntry>, more: bool, after: u64, now: Timestamp) {
        if more {
            self.state = State::Looking { lease, seen };
            return;
        }
        let queue = Queue::of(&self.wish.name, seen);
        let places = queue.places();
        let ahead = queue.ahead_of(lease);
        let before = ahead.and_then(|ahead| places.get(ahead.checked_sub(1)?));
        self.state = match (ahead, before, queue.holder()) {
            (Some(ahead), Some(_), Some(holder)) if now >= self.deadline => {
                let holder = holder.clone();
                if self.keeps() {
                    State::Leaving { lease, holder, ahead }
                } else {
                    State::Ended(Ending::InVain { holder, ahead })
                }
            }
            (Some(_), Some(before), _) => {
                let (behind, look_at) = (before.key.clone(), now + LOOK_EVERY);
                State::Waiting(Wait { lease, behind, after, look_at })
            }
            (Some(_), None, Some(first)) if self.keeps() => {
                State::Keeping(lease, Then::Hold(first.clone()))
            }
            (Some(_), None, Some(first)) => State::Ended(Ending::Held(first.clone())),
            (None, ..) | (_, _, None) => State::Ended(Ending::NoLease(lease)),
        };
    }

    fn command(&self, change: Change, step: &str) -> Command {
        // A line break stands in no name that a client gives.
        let name = self.wish.idempotency.as_ref();
        Command { change, idempotency: name.map(|name| format!("{name}\n{step}")) }
    }

    /// Takes a place, unless the lease has one.
    fn place(&self, lease: LeaseId) -> Change {
        let absent = |owner| Compare {
            key: self.wish.name.key(lease, owner),
            relation: Relation::Equal,
            operand: Operand::Created(0),
        };
        let put = Operation::Put {
            key: self.wish.name.key(lease, self.owner()),
            value: self.wish.value.clone(),
            lease: Some(lease),
        };
        Change::Transaction(Transaction {
            compare: vec![absent(LeaseOwner::Client), absent(LeaseOwner::Place)],
            success: vec![put],
            failure: Vec::new(),
        })
    }

    fn ask_for_places(&self, seen: &[KeyEntry]) -> Action {
        let after = seen.last().map(|entry| entry.key.clone());
        let (space, prefix) = (Space::User, self.wish.name.prefix());
        Action::Ask(Query::Range { space, prefix, after, limit: PAGE, at: None })
    }
}
