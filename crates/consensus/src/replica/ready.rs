//! What follows from what was taken in: writes, messages, applied entries, answers.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_model::time::Timestamp;
use prost::bytes::Bytes;
use raft::eraftpb::{self, EntryType, MessageType};
use raft::{ReadState, Ready};

use super::start::MESSAGE_BYTES;
use super::{Action, Held, Installing, Persist, Replica, Role};
use crate::answer::Answer;
use crate::cache::{Position, from_raft};
use crate::command::{Change, Space};
use crate::keys::KeySpace;
use crate::log::{Snapshot, State, Vote};
use crate::members::Members;
use crate::settings::{CROWD_MIN, Defect, Limits, MemberId};
use crate::wire::command::decode_command;
use crate::wire::message::encode_message;

/// How long followers may wait then for the news of what is committed.
const NEWS_WAIT: Duration = Duration::from_millis(2);

/// What a leader has told its followers of what is committed.
#[derive(Debug, Default)]
pub(super) struct CommitNews {
    /// The last entry of which they know it, or soon will.
    told: u64,
    /// When they must be told more.
    pub(super) due: Option<Timestamp>,
}

impl Replica {
    /// Turns everything that was taken in into actions.
    pub(super) fn advance(&mut self) {
        self.drop_stale_requests();
        let appended = self.append_proposals();
        self.tell_committed(appended);
        self.start_read_round();
        while self.raft.has_ready() {
            let ready = self.raft.ready();
            self.take_ready(ready);
        }
        self.received.clear();
        self.tell_role();
        self.tell_members();
        self.answer_reads();
        self.offer_snapshot();
        self.trim_log();
        self.save_snapshot();
    }

    /// Tells the followers what is committed, where Raft itself would at once send each a message
    /// for that alone, and get an answer: entries that are appended soon carry it as well.
    fn tell_committed(&mut self, appended: bool) {
        let committed = self.raft.raft.raft_log.committed;
        if appended || !self.leads() || committed <= self.news.told {
            self.news = CommitNews { told: committed, due: None };
            return;
        }
        let wait = if self.proposals.under_way() >= CROWD_MIN { NEWS_WAIT } else { Duration::ZERO };
        let now = self.now;
        if *self.news.due.get_or_insert(now + wait) <= now {
            self.raft.raft.bcast_append();
            self.news = CommitNews { told: committed, due: None };
        }
    }

    /// Hands waiting proposals to Raft, as many at once as fit into one message. Returns whether
    /// there were any that it took.
    fn append_proposals(&mut self) -> bool {
        let mut any = false;
        loop {
            let batch = self.proposals.take_batch(MESSAGE_BYTES as usize);
            if batch.is_empty() {
                return any;
            }
            let entries: Vec<eraftpb::Entry> = batch
                .iter()
                .map(|proposal| eraftpb::Entry {
                    data: proposal.data.clone(),
                    ..eraftpb::Entry::default()
                })
                .collect();
            let first = self.raft.raft.raft_log.last_index() + 1;
            let mut message =
                eraftpb::Message { msg_type: MessageType::MsgPropose, ..Default::default() };
            message.set_entries(entries.into());
            // A follower would forward the proposal; its answer could then not be known.
            let appended = self.leads() && self.raft.raft.step(message).is_ok();
            any |= appended;
            let (leader, term) =
                (self.leader().filter(|leader| *leader != self.member), self.term());
            for (index, proposal) in (first..).zip(batch) {
                if appended {
                    self.proposals.appended(&proposal, index, term);
                } else if let Some(request) = proposal.request {
                    self.answer(request, Answer::NotLeader { leader });
                }
            }
        }
    }

    /// Asks a quorum, on behalf of all waiting reads, whether this member still leads.
    fn start_read_round(&mut self) {
        // Before a leader has committed an entry of its term it does not know what is committed.
        if self.leads()
            && self.raft.raft.commit_to_current_term()
            && let Some(number) = self.reads.start_round(self.raft.raft.term)
        {
            self.raft.read_index(number.to_be_bytes().to_vec());
        }
    }

    fn take_ready(&mut self, mut ready: Ready) {
        let number = ready.number();
        self.send(ready.take_messages());
        let (answers, messages) = self.split_heartbeat_answers(ready.take_persisted_messages());
        self.send(answers);
        let is_idle = self.held.is_empty();
        self.held.push_back(Held { number, term: ready.hs().map(|vote| vote.term), messages });
        self.confirm_reads(ready.take_read_states());
        let unfinished = self.unfinished.take();
        let must_sync = ready.must_sync() || unfinished.is_some();
        let received = (!ready.snapshot().is_empty()).then(|| snapshot_of(ready.snapshot()));
        self.cache(&ready, received.as_ref());
        let mut persist = Persist {
            number,
            vote: ready.hs().map(vote_of),
            entries: ready.entries().iter().map(from_raft).collect(),
            snapshot: received.or(unfinished),
            must_sync,
        };
        let committed = ready.take_committed_entries();
        if committed.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal) {
            // From now on others decide. Who starts again without knowing that would go on waiting
            // for those of before.
            persist.vote = Some(vote_of(&self.raft.raft.hard_state()));
            persist.must_sync = true;
        }
        self.raft.advance_append_async(ready);
        self.introduce_defect(&mut persist);
        self.write(persist, is_idle);
        for entry in committed {
            self.apply(entry);
        }
        self.raft.advance_apply_to(self.applied.index);
        self.leave_joint();
    }

    /// Has a persist written, unless nothing in it must be durable and nothing before it is under
    /// way: it is done then. How far the log is committed is news that others have too, and goes
    /// with the next write.
    fn write(&mut self, mut persist: Persist, is_idle: bool) {
        if is_idle && persist.is_passing() {
            self.passing = persist.vote.or(self.passing);
            self.persisted(persist.number, self.now);
        } else {
            persist.vote = persist.vote.or(self.passing.take());
            self.actions.push_back(Action::Persist(persist));
        }
    }

    /// Splits off the answers to heartbeats that need not wait for the disk. They promise neither a
    /// vote nor an entry, only that this member follows in a term, so that term must be durable
    /// (Raft thesis, figure 3.1) and nothing more: a slow disk must not cost the leader its quorum.
    fn split_heartbeat_answers(
        &self,
        messages: Vec<eraftpb::Message>,
    ) -> (Vec<eraftpb::Message>, Vec<eraftpb::Message>) {
        messages.into_iter().partition(|message| {
            message.msg_type == MessageType::MsgHeartbeatResponse
                && message.term <= self.durable_term
        })
    }

    /// Lets Raft read what is about to be written.
    fn cache(&mut self, ready: &Ready, received: Option<&Snapshot>) {
        let number = ready.number();
        let cache = self.raft.mut_store();
        if let Some(snapshot) = received {
            let position = Position { index: snapshot.index, term: snapshot.term };
            cache.reset(position);
            let Some(place) = self.received.iter().position(|(of, _)| *of == position) else {
                unreachable!("a snapshot is decoded when it arrives, and taken at once or never")
            };
            let (_, keys) = self.received.swap_remove(place);
            self.installing = Some(Installing { number, position, keys });
        }
        cache.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            cache.save_hard_state(hard_state.clone());
        }
    }

    fn introduce_defect(&mut self, persist: &mut Persist) {
        match self.defect {
            Some(Defect::VoteNotPersisted) => {
                persist.vote = persist.vote.map(|vote| Vote { member: None, ..vote });
            }
            Some(Defect::EntriesNotPersisted) => persist.entries.clear(),
            Some(Defect::ReadyAcknowledgedEarly)
                if persist.vote.is_none()
                    && persist.entries.is_empty()
                    && persist.snapshot.is_none() =>
            {
                self.raft.on_persist_ready(persist.number);
                if let Some(held) = self.held.pop_back() {
                    self.send(held.messages);
                }
            }
            Some(
                Defect::ReadyAcknowledgedEarly
                | Defect::ReadWithoutQuorum
                | Defect::VotesWhileRejoining
                | Defect::LeasesNotExtended
                | Defect::MembersForgotten
                | Defect::SnapshotNamesFirstVoters,
            )
            | None => {}
        }
    }

    fn send(&mut self, messages: Vec<eraftpb::Message>) {
        for mut message in messages {
            self.complete_heartbeat(&mut message);
            let to = MemberId(message.to);
            let bulk = message.msg_type == MessageType::MsgSnapshot;
            if let Some(message) = encode_message(message) {
                self.actions.push_back(Action::Send { to, message, bulk });
            }
        }
    }

    /// Goes on from a persist that is durable.
    pub(super) fn persisted(&mut self, number: u64, now: Timestamp) {
        self.raft.on_persist_ready(number);
        while let Some(held) = self.held.pop_front_if(|held| held.number <= number) {
            self.durable_term = held.term.unwrap_or(self.durable_term);
            self.send(held.messages);
        }
        if let Some(installed) = self.installing.take_if(|installing| installing.number <= number) {
            self.install(installed);
            // Elections were suspended.
            self.timer.restart(now);
        }
    }

    /// Replaces the key space by a snapshot from the leader.
    fn install(&mut self, Installing { position, keys, .. }: Installing) {
        let before = std::mem::replace(&mut self.keys, keys);
        let system = |keys: &KeySpace| -> BTreeSet<(String, u64)> {
            keys.prefix(Space::System, "")
                .map(|(key, version)| (key.to_owned(), version.revision))
                .collect()
        };
        let (before, after) = (system(&before), system(&self.keys));
        let changed: BTreeSet<&String> =
            before.symmetric_difference(&after).map(|(key, _)| key).collect();
        for key in changed {
            self.actions.push_back(Action::SystemChanged { key: key.clone() });
        }
        self.applied = position;
        self.raft.advance_apply_to(position.index);
        self.saves.index = position.index;
        self.saves.begun = position.index;
        self.saves.bytes_since = 0;
        self.actions.push_back(Action::Compact { through: position.index });
    }

    /// Applies a committed entry, whatever it holds.
    fn apply(&mut self, entry: eraftpb::Entry) {
        self.applied = Position { index: entry.index, term: entry.term };
        self.saves.bytes_since += entry.data.len();
        let answer = match entry.get_entry_type() {
            EntryType::EntryNormal => self.apply_command(&entry.data),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.apply_members_change(&entry.data);
                None
            }
        };
        if let Some((request, term)) = self.proposals.take_applied(entry.index) {
            // An entry of another term stands where the proposal stood: the proposal is gone.
            let answer = if term == entry.term {
                answer.unwrap_or(Answer::Unknown)
            } else {
                Answer::NotLeader { leader: self.leader() }
            };
            self.answer(request, answer);
        }
    }

    /// Applies an entry's data; `None` if it is no command.
    fn apply_command(&mut self, data: &Bytes) -> Option<Answer> {
        if data.is_empty() {
            return None;
        }
        let Ok(command) = decode_command(data) else {
            self.counters.unknown_commands += 1;
            return None;
        };
        let system = command.system_key().map(str::to_owned);
        let revoked = match command.change {
            Change::RevokeLease { lease } => Some(lease),
            Change::Put { .. }
            | Change::Delete { .. }
            | Change::Transaction(_)
            | Change::GrantLease { .. }
            | Change::Compact { .. } => None,
        };
        let before = self.keys.revision();
        let answer = self.keys.apply(command);
        if let Some(key) = system.filter(|_| self.keys.revision() != before) {
            self.actions.push_back(Action::SystemChanged { key });
        }
        self.follow_leases(&answer, revoked);
        Some(answer)
    }

    fn confirm_reads(&mut self, states: Vec<ReadState>) {
        for state in states {
            if let Ok(number) = <[u8; 8]>::try_from(state.request_ctx) {
                self.reads.confirm(u64::from_be_bytes(number), state.index);
            }
        }
    }

    /// Answers what a lost leadership leaves open.
    fn drop_stale_requests(&mut self) {
        let term = self.leads().then_some(self.raft.raft.term);
        for request in self.proposals.take_stale(term) {
            self.answer(request, Answer::Unknown);
        }
        let leader = self.leader();
        for request in self.reads.take_stale(term) {
            self.answer(request, Answer::NotLeader { leader });
        }
        if term.is_none() {
            self.raft.mut_store().withdraw_snapshot();
        }
    }

    /// Tells who leads, if that has changed.
    fn tell_role(&mut self) {
        let role = Role { leader: self.leader(), term: self.term(), is_leader: self.is_leader() };
        if role != self.told {
            self.lead_leases(role);
            self.told = role;
            let Role { leader, term, is_leader } = role;
            self.actions.push_back(Action::Role { leader, term, is_leader });
        }
    }

    /// Has the snapshot encoded that a follower needs; Raft sends it at a heartbeat after that.
    fn offer_snapshot(&mut self) {
        if self.raft.store().take_snapshot_wanted() && !self.encoding {
            self.encoding = true;
            let state = self.state();
            self.actions.push_back(Action::EncodeSnapshot { state });
        }
    }

    pub(super) fn snapshot_encoded(&mut self, snapshot: Snapshot) {
        self.encoding = false;
        if self.leads() {
            let Snapshot { index, term, members, data } = snapshot;
            self.raft.mut_store().offer_snapshot(Position { index, term }, &members, data);
        }
    }

    fn state(&self) -> State {
        let Position { index, term } = self.applied;
        let members = match self.defect {
            Some(Defect::SnapshotNamesFirstVoters) => self.first.clone(),
            Some(_) | None => self.members(),
        };
        State { index, term, members, keys: self.keys.clone() }
    }

    /// Keeps the log in memory short: what is applied is on disk, and whoever lacks more than the
    /// tail gets a snapshot.
    fn trim_log(&mut self) {
        let Limits { held_entries, held_bytes, tail_entries, tail_bytes, .. } = self.limits;
        if self.raft.store().exceeds(held_entries, held_bytes) {
            let applied = self.applied.index;
            self.raft.mut_store().compact_to_tail(applied, tail_entries, tail_bytes);
        }
    }

    /// Begins to save a snapshot if the log has grown enough since the last one.
    fn save_snapshot(&mut self) {
        let grown = self.applied.index - self.saves.begun >= self.limits.compact_entries
            || self.saves.bytes_since >= self.limits.compact_bytes.max(self.keys.bytes());
        if self.saves.under_way.is_some() || !grown || self.installing.is_some() {
            return;
        }
        self.saves.under_way = Some(self.applied.index);
        self.saves.begun = self.applied.index;
        self.saves.bytes_since = 0;
        let state = self.state();
        self.actions.push_back(Action::SaveSnapshot { state });
    }

    /// Forgets the log that a durable snapshot holds, but for a tail.
    pub(super) fn snapshot_saved(&mut self, index: u64) {
        if self.saves.under_way != Some(index) {
            return;
        }
        self.saves.under_way = None;
        self.saves.index = self.saves.index.max(index);
        let Limits { tail_entries, tail_bytes, .. } = self.limits;
        self.raft.mut_store().compact_to_tail(index, tail_entries, tail_bytes);
        // A snapshot from the leader may have replaced the log in memory, and not on disk yet.
        let through = self.raft.store().before().index.min(self.saves.index);
        // Also when the log stays as it is: older snapshots are no longer needed.
        self.actions.push_back(Action::Compact { through });
    }
}

fn vote_of(hard_state: &eraftpb::HardState) -> Vote {
    Vote {
        term: hard_state.term,
        member: Some(hard_state.vote).filter(|id| *id != raft::INVALID_ID).map(MemberId),
        commit: hard_state.commit,
    }
}

fn snapshot_of(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let metadata = snapshot.get_metadata();
    Snapshot {
        index: metadata.index,
        term: metadata.term,
        members: Members::from_raft(metadata.get_conf_state()),
        data: snapshot.data.clone(),
    }
}
