//! Who takes part, as this member knows it, and how its leader changes that.

use std::collections::BTreeMap;

use evenkeel_model::time::Timestamp;
use prost::bytes::Bytes;
use raft::ProgressState;
use raft::eraftpb::{self, ConfChangeV2};

use super::{Action, Replica};
use crate::members::{Members, MembersChange, MembersRefusal, Standing};
use crate::settings::MemberId;
use crate::wire::members::decode_change;

/// A learner that lacks no more entries than this holds what the others hold: they are under way.
const LEVEL_MAX: u64 = 1000;

/// Members count as heard for this many election timeouts.
const HEARD_TIMEOUTS: u32 = 2;

/// When a leader has heard each member.
#[derive(Debug, Default)]
pub(super) struct Heard {
    term: u64,
    at: BTreeMap<MemberId, Timestamp>,
}

/// How far a member has come, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that it is known to hold.
    pub matched: u64,
    /// When it was last heard in this term.
    pub heard: Option<Timestamp>,
    /// Whether it holds about what the leader holds.
    pub is_level: bool,
}

impl Replica {
    /// Returns who takes part.
    #[must_use]
    pub fn members(&self) -> Members {
        Members::from_raft(&self.raft.raft.prs().conf().to_conf_state())
    }

    /// Returns how far every other member has come; nothing unless this one leads.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<MemberId, Progress> {
        if !self.leads() {
            return BTreeMap::new();
        }
        let others = self.raft.raft.prs().iter().filter(|(id, _)| **id != self.member.0);
        let progress = others.map(|(&id, progress)| {
            let member = MemberId(id);
            let heard = self.heard_at(member);
            (member, Progress { matched: progress.matched, heard, is_level: self.is_level(member) })
        });
        progress.collect()
    }

    /// Decides whether a change may be made now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_change(&self, change: MembersChange) -> Result<(), MembersRefusal> {
        if !self.is_leader() {
            return Err(MembersRefusal::NotLeader);
        }
        let standing = Standing {
            leader: self.member,
            members: &self.members(),
            under_way: self.raft.raft.has_pending_conf(),
            is_heard: &|member| self.is_heard(member),
            is_level: &|member| self.is_level(member),
        };
        standing.check(change)
    }

    pub(super) fn change_members(&mut self, change: MembersChange) {
        if self.check_change(change).is_ok() {
            // It leads and no change is under way, so Raft takes it.
            drop(self.raft.propose_conf_change(Vec::new(), change.to_raft()));
        }
    }

    /// Takes note that a member lives, before Raft sees its message.
    pub(super) fn note_heard(&mut self, message: &eraftpb::Message, now: Timestamp) {
        if self.leads() && message.term == self.term() {
            if self.heard.term != message.term {
                self.heard = Heard { term: message.term, at: BTreeMap::new() };
            }
            self.heard.at.insert(MemberId(message.from), now);
        }
    }

    fn heard_at(&self, member: MemberId) -> Option<Timestamp> {
        let heard = self.heard.at.get(&member).copied();
        heard.filter(|_| self.heard.term == self.term())
    }

    fn is_heard(&self, member: MemberId) -> bool {
        let limit = self.timer.election_min() * HEARD_TIMEOUTS;
        self.heard_at(member).is_some_and(|at| self.now.since(at) <= limit)
    }

    fn is_level(&self, member: MemberId) -> bool {
        let committed = self.raft.raft.raft_log.committed;
        self.raft.raft.prs().get(member.0).is_some_and(|progress| {
            progress.state == ProgressState::Replicate
                && progress.matched + LEVEL_MAX >= committed
                && !self.begins_anew(member)
        })
    }

    /// Applies a committed change.
    pub(super) fn apply_members_change(&mut self, data: &Bytes) {
        let Ok(change) = decode_change(data) else {
            self.counters.unknown_commands += 1;
            return;
        };
        let could_vote = self.raft.raft.promotable();
        if self.raft.apply_conf_change(&change).is_err() {
            // What every member finds in the same way, so that all go on alike.
            self.counters.unknown_commands += 1;
        }
        if !could_vote && self.raft.raft.promotable() {
            // Until now its time was not running.
            self.timer.restart(self.now);
        }
        if self.leads() && !self.raft.raft.promotable() {
            // It led on, as Raft allows, until its own removal was committed.
            let term = self.term();
            self.raft.raft.become_follower(term, raft::INVALID_ID);
            self.timer.after_step(&mut self.raft.raft, self.now);
        }
    }

    /// Ends a joint change whose leader was deposed before it could: Raft leaves that to us.
    pub(super) fn leave_joint(&mut self) {
        if self.is_leader() && self.members().is_joint() && !self.raft.raft.has_pending_conf() {
            drop(self.raft.propose_conf_change(Vec::new(), ConfChangeV2::default()));
        }
    }

    /// Tells who takes part, if that has changed.
    pub(super) fn tell_members(&mut self) {
        let members = self.members();
        if members != self.told_members {
            self.told_members = members.clone();
            self.actions.push_back(Action::Members { members });
        }
    }
}
