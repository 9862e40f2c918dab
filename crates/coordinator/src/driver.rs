//! Carries out what a voter's [`Replica`] decides, on a thread of its own.
//!
//! The thread runs the machine and the links to other voters, and nothing else: a busy API or a
//! slow disk delays no heartbeat. Commands come in over a bounded channel, answers go out over
//! one-shot channels, the disk reports back over a channel.

mod timings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Command, Query, RequestId};
use evenkeel_consensus::lineage::Lineage;
use evenkeel_consensus::members::{Members, MembersChange, MembersRefusal};
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::settings::{CROWD_MIN, MemberId};
use evenkeel_consensus::wire::carries_entries;
use evenkeel_model::name::HostName;
use evenkeel_model::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::LeaderView;
use crate::log::{self, Log};
use crate::options::{RoundTrips, Voter};
use crate::peers::{Incoming, Peers, Succession};
use crate::standing::{Follower, Standing};
pub(crate) use timings::Timings;

/// Most commands that wait for the thread.
const COMMANDS_MAX: usize = 1024;
/// Most messages that wait for the thread; the network waits then.
const INBOX_MAX: usize = 1024;
/// Most things that are taken in before their consequences are carried out.
const BATCH_MAX: usize = 512;
/// A thread that wakes up this late was held, and first hears what has arrived meanwhile.
const LATE: Duration = Duration::from_millis(20);
/// How long this thread lets a crowd gather: it goes before the one that reads requests, which
/// would otherwise hand them over one by one, each with a write and messages of its own. Questions
/// share rounds without it: the next one gathers while one is under way.
const CROWD_PAUSE: Duration = Duration::from_micros(50);
/// Time between two tries to hand leadership to a voter whose disk has space.
const HANDOVER_EVERY: Duration = Duration::from_secs(2);

/// What a driver is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Propose { command: Command, reply: oneshot::Sender<Reply> },
    Read { query: Query, reply: oneshot::Sender<Reply> },
    ReadStale { query: Query, reply: oneshot::Sender<Reply> },
    Standing { reply: oneshot::Sender<Standing> },
    ChangeMembers { change: MembersChange, reply: oneshot::Sender<Result<(), MembersRefusal>> },
    HandOver { to: MemberId },
    Close,
}

/// What a driver replies.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    /// No space for the change on this host. It was surely not applied.
    DiskFull,
    /// The store would hold more than it may. The change was surely not applied.
    StoreFull,
}

/// Whose driver it is.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) host: HostName,
    /// Where all are found that may take part.
    pub(crate) hosts: Vec<Voter>,
    /// See [`Options`](crate::options::Options).
    pub(crate) store_bytes_max: usize,
}

/// What a driver shows of itself.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) leader: watch::Sender<LeaderView>,
    /// The store's revision when a system key was last applied.
    pub(crate) system_changes: watch::Sender<u64>,
    /// The store's revision, as far as applied here.
    pub(crate) revision: Arc<watch::Sender<u64>>,
    pub(crate) space: watch::Sender<log::Space>,
    /// The voters, as the log names them.
    pub(crate) voters: watch::Sender<Arc<[Voter]>>,
    pub(crate) round_trips: watch::Receiver<RoundTrips>,
    /// Answers, all together that came of one step: see [`deliver`].
    pub(crate) answers: mpsc::UnboundedSender<Answers>,
    pub(crate) succession: Arc<Succession>,
}

/// Answers, and who waits for them.
pub(crate) type Answers = Vec<(oneshot::Sender<Reply>, Reply)>;

/// Hands answers on, on the thread of those who wait for them: to wake each from the driver's
/// thread would cost a system call an answer, and the other thread would sleep between any two.
pub(crate) async fn deliver(mut answers: mpsc::UnboundedReceiver<Answers>) {
    while let Some(together) = answers.recv().await {
        for (waiting, reply) in together {
            // Who asked may have gone.
            drop(waiting.send(reply));
        }
    }
}

/// What a driver hears.
pub(crate) struct Inlets {
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) inbox: mpsc::Receiver<Incoming>,
    pub(crate) log_events: mpsc::UnboundedReceiver<log::Event>,
    pub(crate) round_trips: watch::Receiver<RoundTrips>,
    pub(crate) later: watch::Receiver<Option<Lineage>>,
}

/// Makes the channel for [`Ask`]s.
pub(crate) fn ask_channel() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(COMMANDS_MAX)
}

/// Makes the channel for what the links report.
pub(crate) fn inbox_channel() -> (mpsc::Sender<Incoming>, mpsc::Receiver<Incoming>) {
    mpsc::channel(INBOX_MAX)
}

/// The machine and everything it acts on.
pub(crate) struct Driver {
    replica: Replica,
    clock: Clock,
    log: Log,
    peers: Peers,
    member: Member,
    outlets: Outlets,
    /// The other voters.
    others: Vec<Voter>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    timings: Timings,
    space: log::Space,
    /// When leadership may be handed over (again), while there is no space.
    handover_at: Timestamp,
    handovers: usize,
}

/// The driver's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::ZERO + self.0.elapsed()
    }

    fn instant(self, timestamp: Timestamp) -> tokio::time::Instant {
        (self.0 + timestamp.since(Timestamp::ZERO)).into()
    }
}

/// What woke the driver up.
enum Wake {
    Incoming(Incoming),
    Log(log::Event),
    Ask(Ask),
    RoundTrips,
    /// The system goes on from another member's state.
    Superseded,
    Time,
}

impl Driver {
    pub(crate) fn new(
        replica: Replica,
        clock: Clock,
        log: Log,
        peers: Peers,
        member: Member,
        outlets: Outlets,
    ) -> Self {
        Self {
            replica,
            clock,
            log,
            peers,
            member,
            outlets,
            others: Vec::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            timings: Timings::FIRST,
            space: log::Space::Free,
            handover_at: Timestamp::ZERO,
            handovers: 0,
        }
    }

    /// Runs until it is asked to close or nobody can ask any more.
    pub(crate) async fn run(mut self, mut inlets: Inlets) {
        self.adapt_timings(&inlets.round_trips.borrow_and_update().clone());
        self.act();
        loop {
            let Some(wake) = self.sleep(&mut inlets).await else { break };
            let is_change = matches!(wake, Wake::Ask(Ask::Propose { .. }));
            if is_change && self.waiting.len() >= CROWD_MIN {
                std::thread::sleep(CROWD_PAUSE);
            }
            if self.take(wake, &mut inlets.round_trips).is_break() || self.drain(&mut inlets) {
                break;
            }
            let now = self.clock.now();
            if self.replica.poll_timeout().is_some_and(|deadline| deadline <= now) {
                self.replica.handle_timeout(now);
            }
            self.hand_over_when_full(now);
            self.act();
        }
        let Self { log, waiting, peers, .. } = self;
        drop((waiting, peers));
        log.close();
    }

    /// Waits for something to do. `None` when nobody can ask any more.
    async fn sleep(&self, inlets: &mut Inlets) -> Option<Wake> {
        let deadline = self.replica.poll_timeout().map(|deadline| self.clock.instant(deadline));
        let far = tokio::time::Instant::now() + Duration::from_secs(1);
        let deadline = deadline.unwrap_or(far).min(far);
        let wake = tokio::select! {
            biased;
            Some(incoming) = inlets.inbox.recv() => Wake::Incoming(incoming),
            Some(event) = inlets.log_events.recv() => Wake::Log(event),
            ask = inlets.asks.recv() => Wake::Ask(ask?),
            Ok(()) = inlets.round_trips.changed() => Wake::RoundTrips,
            Ok(()) = inlets.later.changed() => Wake::Superseded,
            () = tokio::time::sleep_until(deadline) => Wake::Time,
        };
        if tokio::time::Instant::now() > deadline + LATE {
            // Let the links deliver what has come while this thread did not run.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        Some(wake)
    }

    /// Takes in everything else that is there, so that it shares one write and one message.
    /// Returns whether to close.
    fn drain(&mut self, inlets: &mut Inlets) -> bool {
        for _ in 0..BATCH_MAX {
            let wake = if let Ok(incoming) = inlets.inbox.try_recv() {
                Wake::Incoming(incoming)
            } else if let Ok(event) = inlets.log_events.try_recv() {
                Wake::Log(event)
            } else if let Ok(ask) = inlets.asks.try_recv() {
                Wake::Ask(ask)
            } else {
                return false;
            };
            if self.take(wake, &mut inlets.round_trips).is_break() {
                return true;
            }
        }
        false
    }

    fn take(
        &mut self,
        wake: Wake,
        round_trips: &mut watch::Receiver<RoundTrips>,
    ) -> std::ops::ControlFlow<()> {
        match wake {
            Wake::Incoming(incoming) => self.take_incoming(incoming),
            Wake::Log(event) => self.take_log_event(event),
            Wake::Ask(Ask::Close) | Wake::Superseded => return std::ops::ControlFlow::Break(()),
            Wake::Ask(ask) => self.take_ask(ask),
            Wake::RoundTrips => {
                let measured = round_trips.borrow_and_update().clone();
                self.adapt_timings(&measured);
            }
            Wake::Time => {}
        }
        std::ops::ControlFlow::Continue(())
    }

    fn handle(&mut self, event: Event) {
        self.replica.handle_event(event, self.clock.now());
    }

    fn take_incoming(&mut self, incoming: Incoming) {
        match incoming {
            // Without space, entries would fill the reserve that votes need. The leader sends
            // them again.
            Incoming::Message(message)
                if self.space == log::Space::Full && carries_entries(&message) => {}
            Incoming::Message(message) => self.handle(Event::Message(message)),
            Incoming::Unreachable(member) => self.handle(Event::Unreachable { member }),
            Incoming::BulkSent { to, ok } => self.handle(Event::SnapshotSent { member: to, ok }),
        }
    }

    fn take_log_event(&mut self, event: log::Event) {
        match event {
            log::Event::Persisted { number } => self.handle(Event::Persisted { number }),
            log::Event::SnapshotSaved { index } => self.handle(Event::SnapshotSaved { index }),
            log::Event::SnapshotEncoded(snapshot) => {
                self.handle(Event::SnapshotEncoded { snapshot: *snapshot });
            }
            log::Event::Space(space) => {
                self.space = space;
                self.outlets.space.send_replace(space);
            }
        }
    }

    fn take_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Propose { reply, .. } if self.space == log::Space::Full => {
                drop(reply.send(Reply::DiskFull));
            }
            Ask::Propose { command, reply } if self.fills_store(&command) => {
                tracing::debug!("the store is full");
                drop(reply.send(Reply::StoreFull));
            }
            Ask::Propose { command, reply } => {
                let request = self.expect_answer(reply);
                self.handle(Event::Propose { request, command });
            }
            Ask::Read { query, reply } => {
                let request = self.expect_answer(reply);
                self.handle(Event::Read { request, query });
            }
            Ask::ReadStale { query, reply } => {
                drop(reply.send(Reply::Answer(self.replica.keys().query(&query))));
            }
            Ask::Standing { reply } => drop(reply.send(self.standing())),
            Ask::ChangeMembers { change, reply } => {
                let decided = self.replica.check_change(change);
                if decided.is_ok() {
                    tracing::info!(?change, "changes who takes part in the coordinator");
                    self.handle(Event::ChangeMembers { change });
                }
                // Who asked may have gone.
                _ = reply.send(decided);
            }
            Ask::HandOver { to } => {
                if self.replica.is_leader() {
                    tracing::info!("another voter is asked to lead");
                }
                self.handle(Event::TransferLeadership { to });
            }
            Ask::Close => {}
        }
    }

    /// Returns whether a user's change would make the store larger than it may be. What is proposed
    /// but not applied is not counted: it is bounded by itself.
    fn fills_store(&self, command: &Command) -> bool {
        let keys = self.replica.keys();
        let growth = keys.growth_max(command);
        self.replica.is_leader()
            && growth > 0
            && keys.bytes() + growth > self.member.store_bytes_max
    }

    fn expect_answer(&mut self, reply: oneshot::Sender<Reply>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.waiting.insert(request, reply);
        request
    }

    /// Carries out everything that the machine has decided.
    fn act(&mut self) {
        let mut answers = Answers::new();
        while let Some(action) = self.replica.poll_action() {
            match action {
                Action::Persist(persist) => self.log.persist(persist),
                Action::Send { to, message, bulk: true } => self.peers.send_bulk(to, message),
                Action::Send { to, message, bulk: false } => {
                    if self.peers.send(to, message) {
                        self.handle(Event::Unreachable { member: to });
                    }
                }
                Action::Answer { request, answer } => {
                    if let Some(waiting) = self.waiting.remove(&request) {
                        answers.push((waiting, Reply::Answer(answer)));
                    }
                }
                Action::Role { leader, term, is_leader } => self.show_role(leader, term, is_leader),
                Action::Members { members } => self.follow_members(&members),
                Action::SystemChanged { .. } => {
                    self.outlets.system_changes.send_replace(self.replica.keys().revision());
                }
                Action::EncodeSnapshot { state } => self.log.encode_snapshot(state),
                Action::SaveSnapshot { state } => self.log.save_snapshot(state),
                Action::Compact { through } => self.log.compact(through),
                Action::Rejoined => {
                    tracing::info!("the lost log is filled again: this host votes");
                    self.log.rejoined();
                }
            }
        }
        if !answers.is_empty() {
            // Without the other side nobody waits any more.
            drop(self.outlets.answers.send(answers));
        }
        if self.replica.applied() > 0 {
            self.outlets.succession.adopt(self.replica.keys().lineage());
        }
        let revision = self.replica.keys().revision();
        self.outlets.revision.send_if_modified(|known| {
            let changed = *known != revision;
            *known = revision;
            changed
        });
    }

    /// Speaks with those that take part by now, and shows who votes.
    fn follow_members(&mut self, members: &Members) {
        self.peers.follow(members);
        let hosts = self.member.hosts.iter();
        let voters: Vec<Voter> =
            hosts.filter(|host| members.is_voter(host.member())).cloned().collect();
        let own = &self.member.host;
        self.others = voters.iter().filter(|voter| voter.host != *own).cloned().collect();
        let names: Vec<&str> = voters.iter().map(|voter| voter.host.as_str()).collect();
        tracing::info!(voters = names.join(" "), "who votes in the coordinator");
        // One that joins knows nobody yet; what it was told about the voters will do until then.
        if !voters.is_empty() {
            self.outlets.voters.send_replace(voters.into());
        }
        let measured = self.outlets.round_trips.borrow().clone();
        self.adapt_timings(&measured);
    }

    /// Says who takes part, and how far everybody has come if this member leads.
    fn standing(&self) -> Standing {
        let hosts = |members: &[MemberId]| {
            let known = self.member.hosts.iter().filter(|host| members.contains(&host.member()));
            known.map(|host| host.host.clone()).collect()
        };
        let Members { voters, outgoing, learners } = self.replica.members();
        let (progress, now) = (self.replica.progress(), self.clock.now());
        let known = self.member.hosts.iter();
        let progress = known.filter_map(|host| {
            let progress = progress.get(&host.member())?;
            let silence = progress.heard.map(|at| now.since(at));
            Some((host.host.clone(), Follower { silence, is_level: progress.is_level }))
        });
        Standing {
            voters: hosts(&voters),
            outgoing: hosts(&outgoing),
            learners: hosts(&learners),
            followers: progress.collect(),
        }
    }

    fn show_role(&self, leader: Option<MemberId>, term: u64, is_self: bool) {
        let leader = leader.and_then(|member| {
            let known = self.member.hosts.iter().find(|host| host.member() == member);
            known.map(|host| host.host.clone())
        });
        self.outlets.leader.send_modify(|view| view.change(leader, term, is_self));
    }

    fn adapt_timings(&mut self, round_trips: &RoundTrips) {
        let others = self.others.iter().map(|voter| &voter.host);
        let Some(wanted) = Timings::for_round_trips(round_trips, others) else { return };
        if self.timings.is_off(wanted) {
            tracing::debug!(
                heartbeat_ms = wanted.heartbeat.as_millis(),
                election_min_ms = wanted.election_min.as_millis(),
                "adapted to the measured round trips"
            );
            self.timings = wanted;
            let Timings { heartbeat, election_min } = wanted;
            self.handle(Event::Timings { heartbeat, election_min });
        }
    }

    /// A leader without space lets another voter lead: it may have some.
    fn hand_over_when_full(&mut self, now: Timestamp) {
        if self.space == log::Space::Full && self.replica.is_leader() && self.handover_at <= now {
            self.handover_at = now + HANDOVER_EVERY;
            self.handovers += 1;
            let others = &self.others;
            if let Some(voter) = others.get(self.handovers % others.len().max(1)) {
                tracing::warn!(to = %voter.host, "disk full: another voter is asked to lead");
                let to = voter.member();
                self.handle(Event::TransferLeadership { to });
            }
        }
    }
}
