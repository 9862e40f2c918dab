//! A few members in lock-step, without faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_consensus::answer::{Answer, Version};
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Query, RequestId, Space};
use evenkeel_consensus::log::{Record, Snapshot};
use evenkeel_consensus::members::MembersChange;
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::restore::{RestoreError, Restored};
use evenkeel_consensus::settings::{Limits, MemberId, Settings};
use evenkeel_model::time::Timestamp;

/// Members whose messages and writes take no time, on one clock.
pub(crate) struct Group {
    pub(crate) now: Timestamp,
    pub(crate) settings: Settings,
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) cut: BTreeSet<MemberId>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    pub(crate) requests: u64,
    /// Messages from a leader that open a heartbeat round, or that carry a snapshot.
    pub(crate) sent: usize,
    pub(crate) bulk: usize,
}

pub(crate) struct Member {
    pub(crate) replica: Replica,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) system_changes: Vec<String>,
    pub(crate) hold_writes: bool,
    /// Whether snapshots of its own take for ever.
    pub(crate) hold_saves: bool,
    /// The snapshot of its own that is being written.
    pub(crate) saving: Option<u64>,
    /// Up to where the log on disk was dropped.
    pub(crate) compacted: u64,
    pub(crate) written: VecDeque<u64>,
}

impl Group {
    pub(crate) fn new(count: u64) -> Self {
        let limits = Limits { compact_entries: 20, tail_entries: 5, ..Limits::STANDARD };
        Self::with_limits(count, limits)
    }

    pub(crate) fn with_limits(count: u64, limits: Limits) -> Self {
        let settings = Settings {
            member: MemberId(1),
            voters: (1..=count).map(MemberId).collect(),
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            seed: 7,
            limits,
            defect: None,
        };
        let mut group = Self {
            now: Timestamp::ZERO,
            settings,
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            answers: BTreeMap::new(),
            requests: 0,
            sent: 0,
            bulk: 0,
        };
        for member in group.settings.voters.clone() {
            group.start(member, Vec::new(), None).unwrap();
        }
        group
    }

    pub(crate) fn start(
        &mut self,
        member: MemberId,
        records: Vec<Vec<u8>>,
        snapshot: Option<Vec<u8>>,
    ) -> Result<(), RestoreError> {
        let restored = restore(&records, snapshot.as_deref())?;
        let settings = Settings { member, ..self.settings.clone() };
        let replica = Replica::new(settings, restored, self.now)?;
        let member_state = Member {
            replica,
            records,
            snapshot,
            system_changes: Vec::new(),
            hold_writes: false,
            hold_saves: false,
            saving: None,
            compacted: 0,
            written: VecDeque::new(),
        };
        self.members.insert(member, member_state);
        Ok(())
    }

    /// Starts a member that knows nobody and has nothing.
    pub(crate) fn join(&mut self, member: MemberId) {
        let voters = std::mem::take(&mut self.settings.voters);
        self.start(member, Vec::new(), None).unwrap();
        self.settings.voters = voters;
    }

    /// Has the leader change who takes part, and waits for it.
    pub(crate) fn change(&mut self, leader: MemberId, change: MembersChange) {
        assert_eq!(self.members[&leader].replica.check_change(change), Ok(()), "{change:?}");
        self.handle(leader, Event::ChangeMembers { change });
        self.run(Duration::from_millis(500));
    }

    /// Starts a member that has lost all it had.
    pub(crate) fn begin_anew(&mut self, member: MemberId) {
        self.start(member, Vec::new(), None).unwrap();
        let settings = Settings { member, ..self.settings.clone() };
        let restored = Restored { rejoining: true, ..Restored::default() };
        let replica = Replica::new(settings, restored, self.now).unwrap();
        self.members.get_mut(&member).unwrap().replica = replica;
    }

    /// Restarts a member from its disk.
    pub(crate) fn restart(&mut self, member: MemberId) {
        let old = self.members.remove(&member).unwrap();
        self.start(member, old.records, old.snapshot).unwrap();
    }

    pub(crate) fn handle(&mut self, member: MemberId, event: Event) {
        let now = self.now;
        self.members.get_mut(&member).unwrap().replica.handle_event(event, now);
    }

    /// Carries out actions until there are none.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut events: Vec<(MemberId, Event)> = Vec::new();
            for (&id, member) in &mut self.members {
                while let Some(action) = member.replica.poll_action() {
                    match action {
                        Action::Persist(persist) => {
                            if let Some(snapshot) = &persist.snapshot {
                                member.snapshot = Some(snapshot.encode());
                            }
                            member.records.extend(persist.records().map(|record| record.encode()));
                            member.written.push_back(persist.number);
                        }
                        Action::Send { to, message, bulk } => {
                            self.sent += 1;
                            self.bulk += usize::from(bulk);
                            let lost = self.cut.contains(&id) || self.cut.contains(&to);
                            if !lost {
                                events.push((to, Event::Message(message)));
                            }
                            if bulk {
                                events.push((id, Event::SnapshotSent { member: to, ok: !lost }));
                            }
                        }
                        Action::Answer { request, answer } => {
                            assert_eq!(
                                self.answers.insert(request, answer),
                                None,
                                "answered twice"
                            );
                        }
                        Action::SystemChanged { key } => member.system_changes.push(key),
                        Action::EncodeSnapshot { state } => {
                            let snapshot = state.snapshot();
                            events.push((id, Event::SnapshotEncoded { snapshot }));
                        }
                        Action::SaveSnapshot { state } if member.hold_saves => {
                            member.saving = Some(state.index);
                        }
                        Action::SaveSnapshot { state } => {
                            let snapshot = state.snapshot();
                            member.snapshot = Some(snapshot.encode());
                            events.push((id, Event::SnapshotSaved { index: snapshot.index }));
                        }
                        Action::Compact { through } => {
                            member.compacted = through;
                            member.records.retain(|record| {
                                !matches!(Record::decode(record),
                                    Ok(Record::Entry(entry)) if entry.index <= through)
                            });
                        }
                        Action::Role { .. } | Action::Members { .. } | Action::Rejoined => {}
                    }
                }
                if !member.hold_writes {
                    events.extend(
                        member.written.drain(..).map(|number| (id, Event::Persisted { number })),
                    );
                }
            }
            if events.is_empty() {
                return;
            }
            for (id, event) in events {
                self.handle(id, event);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while self.now < end {
            let next = self.members.values().filter_map(|member| member.replica.poll_timeout());
            self.now = next.min().unwrap_or(end).clamp(self.now, end);
            for member in self.members.values_mut() {
                member.replica.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// Lets time pass until there is a leader that all others follow.
    pub(crate) fn elect(&mut self) -> MemberId {
        for _ in 0..100 {
            self.run(Duration::from_millis(50));
            let mut leaders = self
                .members
                .iter()
                .filter(|(id, member)| !self.cut.contains(id) && member.replica.is_leader());
            if let Some((&leader, _)) = leaders.next() {
                return leader;
            }
        }
        panic!("no leader after 5 s");
    }

    pub(crate) fn propose(&mut self, member: MemberId, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.handle(member, Event::Propose { request, command });
        request
    }

    pub(crate) fn read(&mut self, member: MemberId, key: &str) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let query = Query::Get { space: Space::User, key: key.to_owned(), at: None };
        self.handle(member, Event::Read { request, query });
        request
    }

    /// Asks a question and waits for its answer.
    pub(crate) fn ask(&mut self, member: MemberId, query: Query) -> Answer {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.handle(member, Event::Read { request, query });
        self.settle();
        self.answers.remove(&request).expect("an answer")
    }

    pub(crate) fn execute(&mut self, member: MemberId, command: Command) -> Answer {
        let request = self.propose(member, command);
        self.settle();
        self.answers.remove(&request).expect("an answer")
    }
}

pub(crate) fn restore(
    records: &[Vec<u8>],
    snapshot: Option<&[u8]>,
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    for record in records {
        restored.replay(decode(record))?;
    }
    restored.snapshot = snapshot.map(|bytes| Snapshot::decode(bytes.to_vec()).unwrap());
    Ok(restored)
}

pub(crate) fn decode(record: &[u8]) -> Record {
    Record::decode(record).unwrap()
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::once(Change::Put {
        space: Space::User,
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expect: Expect::Any,
        lease: None,
    })
}

/// Returns the answer to a question for a key that was last set at `revision`, for the first time
/// at `created`.
pub(crate) fn value(value: &str, created: u64, revision: u64) -> Answer {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let count = 1 + u64::from(created != revision);
    let version = Version { value, revision, created, count, lease: None };
    Answer::Value { version, store_revision: revision }
}

pub(crate) fn follower_of(leader: MemberId) -> MemberId {
    if leader == MemberId(1) { MemberId(2) } else { MemberId(1) }
}
