//! The machine: one member of the coordinator.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_model::time::Timestamp;

use crate::command::{Answer, Command, Query, RequestId};
use crate::keys::KeySpace;
use crate::log::{Entry, Record, Snapshot, Vote};
use crate::restore::{RestoreError, Restored};
use crate::settings::{MemberId, Settings};

/// Something that happened to the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another member's message arrived: the bytes of its [`Action::Send`].
    Message(Vec<u8>),
    /// A client asks for a change.
    Propose {
        /// What the answer will be called.
        request: RequestId,
        /// The change.
        command: Command,
    },
    /// A client asks a question that must be answered with the latest state.
    Read {
        /// What the answer will be called.
        request: RequestId,
        /// The question.
        query: Query,
    },
    /// An [`Action::Persist`], and with it every earlier one, is durable.
    Persisted {
        /// Its number.
        number: u64,
    },
    /// The snapshot of an [`Action::SaveSnapshot`] is durable.
    SnapshotSaved {
        /// Its index.
        index: u64,
    },
    /// A message to this member was lost on this side: no connection, or a full queue.
    Unreachable {
        /// To whom.
        member: MemberId,
    },
    /// A message that was `bulk` has left, or was lost. Must be told once for each of them.
    SnapshotSent {
        /// To whom.
        member: MemberId,
        /// Whether it left.
        ok: bool,
    },
    /// The timings have changed, see [`Settings`].
    Timings {
        /// How often a leader says that it lives.
        heartbeat: Duration,
        /// How long a follower waits at least before it calls an election.
        election_min: Duration,
    },
    /// The leader is asked to hand over. Ignored by a member that does not lead.
    TransferLeadership {
        /// To whom.
        to: MemberId,
    },
}

/// Something the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write, in order of number, then tell [`Event::Persisted`].
    Persist(Persist),
    /// Send a message; it may be lost.
    Send {
        /// To whom.
        to: MemberId,
        /// The bytes for its [`Event::Message`].
        message: Vec<u8>,
        /// Whether it carries a snapshot: it must not delay other messages, and its end is told
        /// by [`Event::SnapshotSent`].
        bulk: bool,
    },
    /// Answer a request.
    Answer {
        /// Which one.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Who leads has changed, or the term, or [`Replica::is_leader`].
    Role {
        /// Who leads, as far as known.
        leader: Option<MemberId>,
        /// The term.
        term: u64,
        /// See [`Replica::is_leader`].
        is_leader: bool,
    },
    /// A key of [`Space::System`](crate::command::Space::System) was changed. After a snapshot
    /// from the leader it is told for every such key, and for those that are gone.
    SystemChanged {
        /// The key.
        key: String,
    },
    /// Write a snapshot of this member's own state, then tell [`Event::SnapshotSaved`]. In its own
    /// time: no promise waits for it. There is at most one at a time.
    SaveSnapshot {
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// Entries up to `through` are no longer needed on disk: a durable snapshot holds them.
    Compact {
        /// The last one.
        through: u64,
    },
}

/// What must be durable before the member says so to others.
///
/// To be written in order of `number`; one write and one sync may cover several. First, if there
/// is one, the snapshot (durable, as a file of its own), then [`Self::records`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// Rises by one, from 1 on after each start.
    pub number: u64,
    /// The vote from here on.
    pub vote: Option<Vote>,
    /// Entries; they replace those at the same positions and all behind them.
    pub entries: Vec<Entry>,
    /// A snapshot from the leader; it replaces the whole log.
    pub snapshot: Option<Snapshot>,
    /// Whether a sync is needed. If not, [`Event::Persisted`] may be told as soon as the records
    /// are handed to the operating system *and every earlier one is durable*, not before.
    pub must_sync: bool,
}

impl Persist {
    /// Returns what to append to the log, in this order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let reset = self
            .snapshot
            .as_ref()
            .map(|snapshot| Record::Reset { index: snapshot.index, term: snapshot.term });
        let entries = self.entries.iter().cloned().map(Record::Entry);
        reset.into_iter().chain(entries).chain(self.vote.map(Record::Vote))
    }
}

/// What a member has met that it could not use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Committed entries that are no command this version knows; each was applied as a no-op.
    pub unknown_commands: u64,
    /// Messages that were dropped: malformed, of another format, or from no voter.
    pub rejected_messages: u64,
}

/// One member: Raft, the key space, and the requests that wait.
///
/// ```text
///             election timeout, pre-vote won         votes of a quorum
///  follower ───────────────────────────▶ candidate ─────────────────▶ leader
///     ▲  ▲                                   │                          │
///     │  └────── higher term, other leader ──┘                          │
///     └───────── higher term, or no quorum heard for one timeout ───────┘
/// ```
#[derive(Debug)]
pub struct Replica {
    keys: KeySpace,
    actions: VecDeque<Action>,
    counters: Counters,
}

impl Replica {
    /// Starts a member from what its disk holds.
    ///
    /// # Errors
    ///
    /// If the settings make no sense or the disk has lost something it had promised to keep.
    pub fn new(
        settings: Settings,
        restored: Restored,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        todo!("{settings:?} {restored:?} {now:?}")
    }

    /// Takes an event in.
    ///
    /// Hand over everything that has arrived before taking actions out: requests and messages
    /// that come together share one write, one message and one heartbeat round.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        todo!("{event:?} {now:?}")
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// Does what is due at `now`; harmless when early. A shell that was paused should hand over
    /// the messages that have arrived first, lest it miss a heartbeat that is already there.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        todo!("{now:?}")
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the key space as far as this member has applied the log: possibly stale.
    #[must_use]
    pub const fn keys(&self) -> &KeySpace {
        &self.keys
    }

    /// Returns who leads, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        None
    }

    /// Returns whether this member leads *and* has applied an entry of its own term, so that its
    /// key space holds every change that any earlier leader has answered.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        false
    }

    /// Returns the latest term this member has seen.
    #[must_use]
    pub fn term(&self) -> u64 {
        0
    }

    /// Returns what could not be used so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}
