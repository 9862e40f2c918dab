//! The machine: one member of the coordinator.

mod lease_clock;
pub mod members;
mod ready;
mod rejoin;
mod requests;
mod start;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use evenkeel_model::time::Timestamp;
use raft::eraftpb::MessageType;
use raft::{RawNode, SnapshotStatus, StateRole};

use crate::answer::Answer;
use crate::cache::{LogCache, Position};
use crate::command::{Command, Query, RequestId};
use crate::keys::KeySpace;
use crate::log::{Entry, Record, Snapshot, State, Vote};
use crate::members::{Members, MembersChange};
use crate::pending::{Proposals, Reads};
use crate::restore::{RestoreError, Restored};
use crate::settings::{Defect, Limits, MemberId, Settings};
use crate::timer::Timer;
use crate::wire::message::{decode_message, describe_message};
use lease_clock::LeaseClock;
use members::Heard;
use rejoin::Rejoin;

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
    /// The snapshot of an [`Action::EncodeSnapshot`].
    SnapshotEncoded {
        /// It.
        snapshot: Snapshot,
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
    /// The timings have changed, see [`Settings`]. An `election_min` of less than two heartbeats
    /// is raised to that.
    Timings {
        /// How often a leader says that it lives.
        heartbeat: Duration,
        /// How long a follower waits at least before it calls an election.
        election_min: Duration,
    },
    /// The leader is asked to change who takes part. Ignored if [`Replica::check_change`] refuses it.
    ChangeMembers {
        /// How.
        change: MembersChange,
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
    /// Who takes part has changed, or is now known. At the position that is applied, except while a
    /// snapshot from the leader is being written, which is ahead.
    Members {
        /// Those.
        members: Members,
    },
    /// A key of [`Space::System`](crate::command::Space::System) was changed, by an entry or by a
    /// snapshot from the leader. Not told for what the member started with.
    SystemChanged {
        /// The key.
        key: String,
    },
    /// This member had begun anew, see [`Restored::rejoining`], and holds all again that was
    /// committed: it need no longer be started so.
    Rejoined,
    /// Encode a snapshot for a follower, then tell [`Event::SnapshotEncoded`]. In its own time.
    EncodeSnapshot {
        /// Of what.
        state: State,
    },
    /// Write a snapshot of this member's own state, then tell [`Event::SnapshotSaved`]. In its own
    /// time: no promise waits for it. There is at most one at a time.
    SaveSnapshot {
        /// Of what. At the next start the one with the highest index counts, which need not be the
        /// one that was written last.
        state: State,
    },
    /// Entries up to `through` are no longer needed on disk: a durable snapshot holds them. Drop
    /// records from the beginning of the log only, since a record may void an earlier one, and
    /// keep the last vote.
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
    /// Rises, from 1 on after each start. Those that need no write are left out.
    pub number: u64,
    /// The vote from here on.
    pub vote: Option<Vote>,
    /// Entries; they replace those at the same positions and all behind them.
    pub entries: Vec<Entry>,
    /// A snapshot from the leader; it replaces the whole log. The first persist after a start may
    /// bring one again that is already there: a crash had come between the snapshot and the log.
    pub snapshot: Option<Snapshot>,
    /// Whether a sync is needed. If not, [`Event::Persisted`] may be told as soon as the records
    /// are handed to the operating system *and every earlier one is durable*, not before.
    pub must_sync: bool,
}

/// Puts the bytes of an [`Action::Send`] into words, for logs and transcripts.
#[must_use]
pub fn describe(message: &[u8]) -> String {
    describe_message(message)
}

impl Persist {
    /// Returns whether nothing in it must be durable.
    const fn is_passing(&self) -> bool {
        !self.must_sync && self.entries.is_empty() && self.snapshot.is_none()
    }

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
    /// Messages that were dropped: malformed, or of another format.
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
pub struct Replica {
    member: MemberId,
    /// The voters that it was told when it started.
    first: Members,
    limits: Limits,
    defect: Option<Defect>,
    raft: RawNode<LogCache>,
    timer: Timer,
    keys: KeySpace,
    /// The last entry that `keys` holds.
    applied: Position,
    proposals: Proposals,
    news: ready::CommitNews,
    reads: Reads,
    leases: LeaseClock,
    /// The latest time that was told.
    now: Timestamp,
    actions: VecDeque<Action>,
    /// Messages that promise what is still being written.
    held: VecDeque<Held>,
    /// News of the last vote that is to go with the next write: only how far the log is committed.
    passing: Option<Vote>,
    /// The latest term that is on disk.
    durable_term: u64,
    installing: Option<Installing>,
    /// What the snapshots hold that have arrived since the last look at what Raft took in.
    received: Vec<(Position, KeySpace)>,
    /// Whether a snapshot for followers is being encoded.
    encoding: bool,
    /// A snapshot that replaces the log on disk, where a crash has left the old one.
    unfinished: Option<Snapshot>,
    saves: Saves,
    told: Role,
    told_members: Members,
    /// When this leader has last heard each member, in [`Self::term`].
    heard: Heard,
    rejoin: Rejoin,
    counters: Counters,
}

/// The messages of one persist, which leave after it.
#[derive(Debug)]
struct Held {
    number: u64,
    /// The term that is on disk with it, if it writes one.
    term: Option<u64>,
    messages: Vec<raft::eraftpb::Message>,
}

/// A snapshot from the leader that is being written.
#[derive(Debug)]
struct Installing {
    number: u64,
    position: Position,
    keys: KeySpace,
}

/// The snapshots of this member's own state.
#[derive(Debug, Default)]
struct Saves {
    /// The one that is being written.
    under_way: Option<u64>,
    /// The newest that is durable.
    index: u64,
    /// The length of the entries applied since the last one was begun.
    bytes_since: usize,
    /// The entry with which the last one ended.
    begun: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Role {
    leader: Option<MemberId>,
    term: u64,
    is_leader: bool,
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
        start::start(settings, restored, now)
    }

    /// Takes an event in.
    ///
    /// Hand over everything that has arrived before taking actions out: requests and messages
    /// that come together share one write, one message and one heartbeat round.
    ///
    /// # Panics
    ///
    /// If Raft finds that a member has lost what it had promised to keep: to go on would make it
    /// worse.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        self.now = self.now.max(now);
        match event {
            Event::Message(bytes) => self.take_message(bytes, now),
            Event::Propose { request, command } => self.take_proposal(request, command),
            Event::Read { request, query } => self.take_read(request, query, now),
            Event::Persisted { number } => self.persisted(number, now),
            Event::SnapshotSaved { index } => self.snapshot_saved(index),
            Event::SnapshotEncoded { snapshot } => self.snapshot_encoded(snapshot),
            Event::Unreachable { member } => self.raft.report_unreachable(member.0),
            Event::SnapshotSent { member, ok } => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raft.report_snapshot(member.0, status);
            }
            Event::Timings { heartbeat, election_min } => {
                self.timer.change(heartbeat, election_min, now);
            }
            Event::ChangeMembers { change } => self.change_members(change),
            Event::TransferLeadership { to } => self.transfer_leadership(to, now),
        }
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.may_call_election() {
            return None;
        }
        let raft = self.timer.deadline(&self.raft.raft);
        let lease = self.leases.poll_timeout().filter(|_| self.told.is_leader);
        let news = self.news.due.filter(|_| self.leads());
        lease.into_iter().chain(news).chain([raft]).min()
    }

    /// Does what is due at `now`; harmless when early. A shell that was paused should hand over
    /// the messages that have arrived first, lest it miss a heartbeat that is already there.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if self.may_call_election() {
            self.timer.fire(&mut self.raft.raft, now);
        }
        if self.told.is_leader && self.leads() {
            self.revoke_expired(now);
        }
    }

    /// A member without its state, or without its promises, must not call an election, nor one
    /// whose vote does not count.
    fn may_call_election(&self) -> bool {
        self.installing.is_none() && !self.rejoin.under_way && self.raft.raft.promotable()
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            self.advance();
        }
        self.actions.pop_front()
    }

    /// Returns the key space as far as this member has applied the log: possibly stale.
    #[must_use]
    pub const fn keys(&self) -> &KeySpace {
        &self.keys
    }

    /// Returns the last entry that [`Self::keys`] holds.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied.index
    }

    /// Returns who leads, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        Some(self.raft.raft.leader_id).filter(|id| *id != raft::INVALID_ID).map(MemberId)
    }

    /// Returns whether this member leads *and* has applied an entry of its own term, so that its
    /// key space holds every change that any earlier leader has answered.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leads() && self.applied.term == self.term()
    }

    /// Returns the latest term this member has seen.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Returns what could not be used so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn take_message(&mut self, bytes: Vec<u8>, now: Timestamp) {
        let Ok(mut message) = decode_message(bytes, self.member) else {
            self.counters.rejected_messages += 1;
            return;
        };
        // The leader remembers what this member had. One that begins anew, because its log was
        // damaged, has less, and Raft takes that for a fault that must end the process.
        if message.msg_type == MessageType::MsgHeartbeat {
            message.commit = message.commit.min(self.raft.raft.raft_log.last_index());
        }
        if !self.may_call_election() && message.msg_type == MessageType::MsgTimeoutNow
            || self.is_beyond_rejoining(&message)
        {
            return;
        }
        if message.msg_type == MessageType::MsgSnapshot {
            let snapshot = message.get_snapshot();
            let Ok(keys) = KeySpace::decode(&snapshot.data, self.limits.state) else {
                self.counters.rejected_messages += 1;
                return;
            };
            let metadata = snapshot.get_metadata();
            let position = Position { index: metadata.index, term: metadata.term };
            self.received.push((position, keys));
        }
        self.note_heard(&message, now);
        self.note_heartbeat(&message);
        let heartbeat = (message.msg_type == MessageType::MsgHeartbeat).then(|| message.clone());
        self.timer.before_step(&mut self.raft.raft, now);
        // Raft refuses what it cannot use, which is no fault: messages may come late.
        drop(self.raft.step(message));
        self.timer.after_step(&mut self.raft.raft, now);
        if let Some(heartbeat) = heartbeat {
            self.maybe_rejoined(&heartbeat, now);
        }
    }

    fn transfer_leadership(&mut self, to: MemberId, now: Timestamp) {
        if self.leads() && to != self.member && self.members().is_voter(to) {
            self.timer.before_step(&mut self.raft.raft, now);
            self.raft.transfer_leader(to.0);
            self.timer.after_step(&mut self.raft.raft, now);
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Replica")
            .field("member", &self.member)
            .field("role", &self.told)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
