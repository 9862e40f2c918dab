//! Carries out requests: here when this host leads, otherwise at the leader.
//!
//! A request is tried until it has an answer, within a deadline. What happened to a try decides
//! about the next one:
//! - *not applied* (no leader, not delivered, refused by a follower): it is tried again;
//! - *lost* (delivered, but no answer): only a question, or a change with an idempotency key, is
//!   tried again; any other change has an unknown outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use evenkeel_consensus::answer::{Answer, KeyEntry};
use evenkeel_consensus::command::{Command, Query};
use evenkeel_consensus::members::{MembersChange, MembersRefusal};
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::name::HostName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::Request;
use crate::client::{CallError, Client, wire};
use crate::driver::{Ask, Reply};
use crate::failure::Failure;
use crate::leader::LeaderView;
use crate::options::{Places, RoundTrips, Voter};
use crate::standing::Standing;

/// Time for a request, over all tries.
const DEADLINE: Duration = Duration::from_secs(3);
/// Time since there was a leader for which requests wait for the next one.
const ELECTION_PATIENCE: Duration = Duration::from_secs(2);
/// Time after which a try is given up when another host leads by now, and for the state of a host
/// near by.
const TRY_PATIENCE: Duration = Duration::from_secs(1);
/// Time for a leader with a full disk to hand over.
const DISK_FULL_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between tries, unless the leader changes.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a request may be forwarded.
const HOPS_MAX: u8 = 2;
/// Most bytes of keys and values in a list.
const LIST_BYTES_MAX: usize = 4 << 20;

/// What a host needs to carry out requests.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) host: HostName,
    places: Places,
    pub(crate) client: Client,
    /// The driver, on a voter.
    asks: Option<mpsc::Sender<Ask>>,
    leader: watch::Receiver<LeaderView>,
    /// The store's revision, as far as known here.
    revision: Arc<watch::Sender<u64>>,
    round_trips: watch::Receiver<RoundTrips>,
}

/// What became of one try.
enum Outcome {
    Done(Answer),
    /// Surely not applied, and another try would fare no better.
    Refused(Failure),
    /// Surely not applied.
    NotApplied(Failure),
    Lost,
}

/// Where to try.
enum Route {
    Here,
    /// At a voter, which forwards it if it is not the `target` itself.
    At {
        voter: Voter,
        target: HostName,
    },
    Wait,
    GiveUp(Failure),
}

impl Executor {
    pub(crate) fn new(
        host: HostName,
        places: Places,
        client: Client,
        asks: Option<mpsc::Sender<Ask>>,
        leader: watch::Receiver<LeaderView>,
        revision: Arc<watch::Sender<u64>>,
        round_trips: watch::Receiver<RoundTrips>,
    ) -> Self {
        Self { host, places, client, asks, leader, revision, round_trips }
    }

    /// Returns who leads, as far as known here.
    pub(crate) fn leader(&self) -> LeaderView {
        self.leader.borrow().clone()
    }

    /// Returns the store's revision, as far as known here.
    pub(crate) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Carries out a request that was forwarded `hops` times.
    pub(crate) async fn execute(&self, request: &Request, hops: u8) -> Result<Answer, Failure> {
        let effort = Effort {
            executor: self,
            leader: self.leader.clone(),
            request,
            encoded: None,
            hops,
            hint: None,
            unreachable: BTreeSet::new(),
            begun: Instant::now(),
        };
        effort.run().await
    }

    /// Returns who takes part, as this member tells it.
    pub(crate) async fn standing(&self) -> Option<Standing> {
        let (reply, standing) = oneshot::channel();
        self.asks.as_ref()?.send(Ask::Standing { reply }).await.ok()?;
        standing.await.ok()
    }

    /// Has this host, which must lead, change who takes part.
    pub(crate) async fn change_members(&self, change: MembersChange) -> Result<(), MembersRefusal> {
        let (reply, decided) = oneshot::channel();
        let asks = self.asks.as_ref().ok_or(MembersRefusal::NotLeader)?;
        let asked = asks.send(Ask::ChangeMembers { change, reply }).await;
        asked.map_err(|_| MembersRefusal::NotLeader)?;
        decided.await.unwrap_or(Err(MembersRefusal::NotLeader))
    }

    /// Asks this host's member to hand over; one that does not lead ignores it.
    pub(crate) async fn hand_over(&self, to: MemberId) {
        if let Some(asks) = &self.asks {
            drop(asks.send(Ask::HandOver { to }).await);
        }
    }

    /// Notes that the store has reached a revision.
    fn learn(&self, revision: u64) {
        self.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
    }

    /// Answers from the state of this host, or, if it has none, of a voter, the nearest first.
    pub(crate) async fn execute_stale(&self, query: &Query, hops: u8) -> Result<Answer, Failure> {
        if self.asks.is_some() {
            return self.ask_own_state(query).await;
        }
        self.ask_any_state(query, Duration::ZERO, hops).await
    }

    /// Answers a question for changes like [`Self::execute_stale`], but waits for at most `wait` for
    /// one behind revision `after`.
    pub(crate) async fn changes(
        &self,
        query: &Query,
        after: u64,
        wait: Duration,
        hops: u8,
    ) -> Result<Answer, Failure> {
        if self.asks.is_none() {
            return self.ask_any_state(query, wait, hops).await;
        }
        let mut revision = self.revision.subscribe();
        // The time may pass without a change.
        drop(timeout(wait, revision.wait_for(|revision| *revision > after)).await);
        self.ask_own_state(query).await
    }

    async fn ask_own_state(&self, query: &Query) -> Result<Answer, Failure> {
        let Some(asks) = &self.asks else { return Err(self.no_quorum()) };
        let (reply, answer) = oneshot::channel();
        let ask = Ask::ReadStale { query: query.clone(), reply };
        asks.try_send(ask).map_err(|_| self.overloaded())?;
        match timeout(DEADLINE, answer).await {
            Ok(Ok(Reply::Answer(answer))) => Ok(bound_list(answer)),
            Ok(Ok(Reply::DiskFull | Reply::StoreFull) | Err(_)) | Err(_) => Err(self.no_quorum()),
        }
    }

    async fn ask_any_state(
        &self,
        query: &Query,
        wait: Duration,
        hops: u8,
    ) -> Result<Answer, Failure> {
        if hops >= HOPS_MAX {
            return Err(self.no_quorum());
        }
        let request = wire::encode_request(&Request::Query(query.clone()), true);
        for voter in self.nearest_voters() {
            let call = self.client.execute_after(voter.api, request.clone(), hops + 1, wait);
            let patience = self.client.patience(&voter.host, TRY_PATIENCE) + wait;
            if let Ok(Ok(forwarded)) = timeout(patience, call).await
                && let Ok(answer) = forwarded.result
            {
                self.learn(forwarded.revision);
                return Ok(answer);
            }
        }
        Err(self.no_quorum())
    }

    fn nearest_voters(&self) -> Vec<Voter> {
        let round_trips = self.round_trips.borrow();
        let mut voters = self.places.voters.borrow().to_vec();
        voters.sort_by_key(|voter| {
            round_trips.get(&voter.host).map_or(Duration::MAX, |trip| trip.median)
        });
        voters
    }

    fn place(&self, host: &HostName) -> Option<Voter> {
        self.places.hosts.iter().find(|known| known.host == *host).cloned()
    }

    fn no_quorum(&self) -> Failure {
        Failure::NoQuorum { host: self.host.clone() }
    }

    fn overloaded(&self) -> Failure {
        Failure::Overloaded { host: self.host.clone() }
    }
}

/// One request and everything that was tried for it.
struct Effort<'a> {
    executor: &'a Executor,
    leader: watch::Receiver<LeaderView>,
    request: &'a Request,
    encoded: Option<Bytes>,
    hops: u8,
    /// Who leads, as another host said.
    hint: Option<HostName>,
    /// Hosts that could not be reached.
    unreachable: BTreeSet<HostName>,
    begun: Instant,
}

impl Effort<'_> {
    async fn run(mut self) -> Result<Answer, Failure> {
        let is_question = matches!(self.request, Request::Query(_));
        let mut lost = false;
        loop {
            let outcome = match self.route() {
                Route::Here => self.try_here().await,
                Route::At { voter, target } => self.try_at(&voter, &target).await,
                Route::Wait => Outcome::NotApplied(self.executor.no_quorum()),
                Route::GiveUp(failure) => Outcome::Refused(failure),
            };
            let failure = match outcome {
                Outcome::Done(answer) => return Ok(answer),
                // What an earlier try has done stays unknown.
                Outcome::Refused(_) if lost => return Err(Failure::Unknown),
                Outcome::Refused(failure) => return Err(failure),
                Outcome::NotApplied(failure) => failure,
                Outcome::Lost if is_question => self.executor.no_quorum(),
                Outcome::Lost if !self.is_repeatable() => return Err(Failure::Unknown),
                Outcome::Lost => {
                    lost = true;
                    Failure::Unknown
                }
            };
            let disk_full = matches!(failure, Failure::DiskFull { .. });
            let patience = if disk_full { DISK_FULL_PATIENCE } else { DEADLINE };
            if self.begun.elapsed() + PAUSE >= patience {
                return Err(if lost { Failure::Unknown } else { failure });
            }
            tokio::select! {
                _ = self.leader.changed() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Returns whether the request may be carried out twice.
    fn is_repeatable(&self) -> bool {
        match self.request {
            Request::Query(_) => true,
            Request::Command(Command { idempotency, .. }) => idempotency.is_some(),
        }
    }

    fn deadline(&self) -> Instant {
        self.begun + DEADLINE
    }

    fn route(&mut self) -> Route {
        let view = self.leader.borrow_and_update().clone();
        let executor = self.executor;
        let hint = self.hint.take().filter(|host| !self.unreachable.contains(host));
        let Some(target) = hint.or(view.leader) else {
            return if self.hops > 0 {
                let host = executor.host.clone();
                Route::GiveUp(Failure::NotLeader { host, leader: None })
            } else if view.since.elapsed() < ELECTION_PATIENCE {
                Route::Wait
            } else {
                Route::GiveUp(executor.no_quorum())
            };
        };
        if target == executor.host {
            return Route::Here;
        }
        if self.hops >= HOPS_MAX {
            let host = executor.host.clone();
            return Route::GiveUp(Failure::NotLeader { host, leader: Some(target) });
        }
        let direct = executor.place(&target);
        let around = executor
            .nearest_voters()
            .into_iter()
            .find(|voter| voter.host != executor.host && !self.unreachable.contains(&voter.host));
        // A leader that this host cannot reach may be reached by another one.
        let voter = match (direct, around) {
            (Some(_), Some(around))
                if self.unreachable.contains(&target) && self.hops + 1 < HOPS_MAX =>
            {
                around
            }
            (Some(direct), _) => direct,
            (None, _) => return Route::Wait,
        };
        if self.unreachable.len() >= executor.places.voters.borrow().len() {
            self.unreachable.clear();
        }
        Route::At { voter, target }
    }

    async fn try_here(&mut self) -> Outcome {
        let executor = self.executor;
        let (reply, answer) = oneshot::channel();
        let ask = match self.request.clone() {
            Request::Command(command) => Ask::Propose { command, reply },
            Request::Query(query) => Ask::Read { query, reply },
        };
        let Some(asks) = &executor.asks else {
            return Outcome::NotApplied(executor.no_quorum());
        };
        match asks.try_send(ask) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Outcome::Refused(executor.overloaded());
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Outcome::Refused(executor.no_quorum());
            }
        }
        match timeout_at(self.deadline(), answer).await {
            Ok(Ok(Reply::DiskFull)) => {
                Outcome::NotApplied(Failure::DiskFull { host: executor.host.clone() })
            }
            Ok(Ok(Reply::StoreFull)) => Outcome::Refused(Failure::StoreFull),
            Ok(Ok(Reply::Answer(Answer::NotLeader { .. }))) => {
                Outcome::NotApplied(executor.no_quorum())
            }
            Ok(Ok(Reply::Answer(Answer::Overloaded))) => Outcome::Refused(executor.overloaded()),
            Ok(Ok(Reply::Answer(Answer::TooLarge))) => Outcome::Refused(Failure::TooLarge),
            Ok(Ok(Reply::Answer(Answer::Unknown)) | Err(_)) | Err(_) => Outcome::Lost,
            Ok(Ok(Reply::Answer(answer))) => Outcome::Done(bound_list(answer)),
        }
    }

    async fn try_at(&mut self, voter: &Voter, target: &HostName) -> Outcome {
        let encoded =
            self.encoded.get_or_insert_with(|| wire::encode_request(self.request, false)).clone();
        let client = self.executor.client.clone();
        let call = client.execute(voter.api, encoded, self.hops + 1);
        tokio::select! {
            result = call => match result {
                Ok(forwarded) => {
                    self.executor.learn(forwarded.revision);
                    self.judge(voter, forwarded.result)
                }
                Err(error @ CallError::NotSent(_)) => {
                    tracing::debug!(to = %voter.host, %error, "cannot forward");
                    self.unreachable.insert(voter.host.clone());
                    Outcome::NotApplied(self.executor.no_quorum())
                }
                Err(error @ CallError::Lost(_)) => {
                    tracing::debug!(to = %voter.host, %error, "forwarded without a reply");
                    Outcome::Lost
                }
            },
            () = self.until_hopeless(target) => Outcome::Lost,
        }
    }

    fn judge(&mut self, voter: &Voter, result: Result<Answer, Failure>) -> Outcome {
        match result {
            Ok(answer) => Outcome::Done(answer),
            Err(Failure::NotLeader { leader, .. }) => {
                self.hint = leader.filter(|leader| *leader != voter.host);
                Outcome::NotApplied(self.executor.no_quorum())
            }
            Err(failure @ (Failure::NoQuorum { .. } | Failure::DiskFull { .. })) => {
                Outcome::NotApplied(failure)
            }
            Err(
                failure @ (Failure::Overloaded { .. } | Failure::TooLarge | Failure::StoreFull),
            ) => Outcome::Refused(failure),
            Err(Failure::Unknown) => Outcome::Lost,
        }
    }

    /// Ends when there is no point in waiting for `target` any longer: the deadline has come, or
    /// another host leads by now. What may not be repeated is given a little more time, because
    /// an answer may still be under way.
    async fn until_hopeless(&self, target: &HostName) {
        let mut leader = self.leader.clone();
        let another_leads = async {
            let another = |view: &LeaderView| view.leader.as_ref().is_some_and(|l| l != target);
            if leader.wait_for(another).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let patience = if self.is_repeatable() { Duration::ZERO } else { TRY_PATIENCE };
        let patience_ends = Instant::now() + patience;
        let outrun = async {
            another_leads.await;
            sleep_until(patience_ends).await;
        };
        drop(timeout_at(self.deadline(), outrun).await);
    }
}

/// Cuts a list that would take too much memory on its way.
fn bound_list(answer: Answer) -> Answer {
    let Answer::Entries { mut entries, mut more, store_revision } = answer else { return answer };
    let length = |entry: &KeyEntry| entry.key.len() + entry.version.value.len();
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        let fits = bytes == 0 || bytes + length(entry) <= LIST_BYTES_MAX;
        bytes += length(entry);
        fits
    });
    let fitting = fitting.count();
    more |= fitting < entries.len();
    entries.truncate(fitting);
    Answer::Entries { entries, more, store_revision }
}
