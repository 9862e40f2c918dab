//! How a member that has lost its log comes back without breaking what it once promised.
//!
//! It has forgotten for whom it voted and which entries it acknowledged, so it must not take part in
//! an election until it holds again all that was committed. Its leader may be one that was deposed
//! with this member's own forgotten vote: only a majority of the *others* can tell.
//!
//! ```text
//!             first answer                  answers of a majority without it
//!  begins anew ──────────▶ filled from entry 1 ──────────▶ told what is committed ──▶ holds it: votes
//! ```
//!
//! The heartbeats carry what this needs, in fields that Raft leaves unused in them: a number that
//! answers repeat, what the leader knows to be committed, and how far the follower's log reaches.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::time::Timestamp;
use raft::eraftpb::{self, MessageType};

use super::{Action, Replica};
use crate::settings::MemberId;

/// What a member knows about members that begin anew, itself among them.
#[derive(Debug, Default)]
pub(super) struct Rejoin {
    /// Whether this member has lost its log and does not hold all again.
    pub(super) under_way: bool,
    /// How many heartbeats this member has sent since it started.
    beats: u64,
    /// The number of the latest heartbeat heard, and its term.
    heard: Heard,
    /// The members that begin anew, as seen by their leader.
    members: BTreeMap<MemberId, Confirmation>,
    /// The term in which `members` was collected.
    term: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    term: u64,
    beat: u64,
}

/// Who has said, since a member began anew, that it still follows this leader.
#[derive(Debug)]
struct Confirmation {
    since: u64,
    by: BTreeSet<MemberId>,
}

impl Rejoin {
    pub(super) fn new(under_way: bool) -> Self {
        Self { under_way, ..Self::default() }
    }
}

impl Replica {
    /// Returns whether this member began anew after it had lost its log, and does not yet hold
    /// again all that was committed. Until then it neither votes nor calls an election.
    #[must_use]
    pub const fn is_rejoining(&self) -> bool {
        self.rejoin.under_way
    }

    /// Returns whether a follower has said that it begins anew, and not yet that it has it all.
    pub(super) fn begins_anew(&self, member: MemberId) -> bool {
        self.rejoin.term == self.term() && self.rejoin.members.contains_key(&member)
    }

    /// Returns whether a message asks for something that a member without its promises must not do.
    pub(super) fn is_beyond_rejoining(&self, message: &eraftpb::Message) -> bool {
        let kind = message.msg_type;
        let is_election = kind == MessageType::MsgRequestVote
            || kind == MessageType::MsgRequestPreVote
            || kind == MessageType::MsgTimeoutNow;
        self.rejoin.under_way && is_election
    }

    /// Completes a heartbeat, or its answer, that is about to leave.
    pub(super) fn complete_heartbeat(&mut self, message: &mut eraftpb::Message) {
        if message.msg_type == MessageType::MsgHeartbeat {
            self.rejoin.beats += 1;
            message.log_term = self.rejoin.beats;
            message.index = self.confirmed_commit(MemberId(message.to));
        } else if message.msg_type == MessageType::MsgHeartbeatResponse {
            let heard = self.rejoin.heard;
            message.log_term = if heard.term == message.term { heard.beat } else { 0 };
            message.index = self.raft.raft.raft_log.last_index();
            message.reject = self.rejoin.under_way;
        }
    }

    /// Returns what is committed, for a member that begins anew; 0 while that is not certain.
    fn confirmed_commit(&self, to: MemberId) -> u64 {
        let confirmed = self.rejoin.term == self.term()
            && self.raft.raft.commit_to_current_term()
            && self.rejoin.members.get(&to).is_some_and(|seen| {
                let follows = |member| member == self.member || seen.by.contains(&member);
                self.members().is_quorum(follows)
            });
        if confirmed { self.raft.raft.raft_log.committed } else { 0 }
    }

    /// Takes note of a heartbeat or of an answer to one, before Raft sees it.
    pub(super) fn note_heartbeat(&mut self, message: &eraftpb::Message) {
        let (term, beat) = (message.term, message.log_term);
        let kind = message.msg_type;
        if kind == MessageType::MsgHeartbeat && term >= self.term() {
            self.rejoin.heard = Heard { term, beat };
        } else if kind == MessageType::MsgHeartbeatResponse && self.leads() && term == self.term() {
            self.note_answer(MemberId(message.from), beat, message.reject);
            self.follow_loss(message);
        }
    }

    fn note_answer(&mut self, from: MemberId, beat: u64, begins_anew: bool) {
        if self.rejoin.term != self.term() {
            self.rejoin.term = self.term();
            self.rejoin.members.clear();
        }
        if begins_anew {
            let since = self.rejoin.beats + 1;
            let new = Confirmation { since, by: BTreeSet::new() };
            self.rejoin.members.entry(from).or_insert(new);
        } else {
            self.rejoin.members.remove(&from);
        }
        for (member, seen) in &mut self.rejoin.members {
            if *member != from && beat >= seen.since && !begins_anew {
                seen.by.insert(from);
            }
        }
    }

    /// Forgets what a follower has acknowledged when it no longer has it, so that it is neither
    /// counted nor waited for, and fills it from where its log ends.
    fn follow_loss(&mut self, message: &eraftpb::Message) {
        let last = message.index;
        if let Some(progress) = self.raft.raft.mut_prs().get_mut(message.from)
            && last < progress.matched
        {
            progress.become_probe();
            progress.matched = 0;
            progress.next_idx = last + 1;
        }
    }

    /// Ends the rejoining once this member holds all that `heartbeat` says is committed.
    pub(super) fn maybe_rejoined(&mut self, heartbeat: &eraftpb::Message, now: Timestamp) {
        let commit = heartbeat.index;
        let log = &self.raft.raft.raft_log;
        let holds_all = commit > 0 && log.committed >= commit && log.persisted >= commit;
        if self.rejoin.under_way
            && self.installing.is_none()
            && heartbeat.term == self.term()
            && holds_all
        {
            self.rejoin.under_way = false;
            self.timer.restart(now);
            self.actions.push_back(Action::Rejoined);
        }
    }
}
