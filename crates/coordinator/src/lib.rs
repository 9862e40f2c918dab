//! The replicated brain of a system, as one host sees it.
//!
//! On a *voter* it is Raft with a durable log: the [`log`] on disk, links to the other voters, and
//! a driver thread for the pure machine of `evenkeel-consensus`. On every host it serves the
//! key-value API and answers for any key: what only the leader can answer is forwarded to it.
//!
//! What holds here:
//! - A request that is reported as failed was surely not applied; what may have been applied is
//!   reported as [`Failure::Unknown`].
//! - No API request and no disk can delay a heartbeat.
//! - Nothing here needs the gateway, names or the services.

mod api;
mod client;
mod critical;
mod digest;
mod driver;
mod executor;
mod failure;
mod leader;
pub mod log;
pub mod options;
mod peers;
mod standing;
mod start;
pub mod survivor;
mod thread;

use std::sync::Arc;

use axum::Router;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Command, Query};
use evenkeel_consensus::lineage::Lineage;
use evenkeel_consensus::members::{MembersChange, MembersRefusal};
use evenkeel_consensus::settings::MemberId;
use tokio::sync::watch;

use crate::executor::Executor;
use crate::log::Space;
use crate::options::{Options, RoundTrips, Voter};
use crate::thread::DriverThread;

pub use crate::failure::Failure;
pub use crate::leader::LeaderView;
pub use crate::standing::{Follower, Standing};
pub use crate::start::StartError;

/// What can be asked of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A change.
    Command(Command),
    /// A question, answered with the latest state.
    Query(Query),
}

/// The coordinator on one host. Cheap to clone; all clones are the same one.
#[derive(Debug, Clone)]
pub struct Coordinator {
    executor: Arc<Executor>,
    leader: watch::Receiver<LeaderView>,
    system_changes: watch::Receiver<u64>,
    space: watch::Receiver<Space>,
    superseded: watch::Receiver<Option<Lineage>>,
    background: Arc<Background>,
}

/// What runs until the coordinator is shut down or its last clone is dropped.
#[derive(Debug)]
enum Background {
    Member(DriverThread),
    Client(leader::Watcher, watch::Sender<Arc<[Voter]>>),
}

impl Coordinator {
    /// Starts the coordinator of a host; must be called within a tokio runtime. A voter opens its
    /// log and joins the others; any other host begins to look for the leader. Serving
    /// [`Self::router`] is the caller's part.
    ///
    /// # Errors
    /// Why this host cannot take part, with what to do about it: [`StartError::help`].
    pub async fn start(
        options: Options,
        round_trips: watch::Receiver<RoundTrips>,
    ) -> Result<Self, StartError> {
        start::start(options, round_trips).await
    }

    /// Begins the log of a voter in its folder, durably, and takes part in nothing yet. A log that
    /// is there stays as it is. Whoever remembers that a voter has a log does so between this and
    /// [`Self::start`]: then no log that was lost is taken for one that was never begun, nor the
    /// other way round.
    ///
    /// # Errors
    /// Why this host can't have a log there: [`StartError::help`].
    pub async fn begin_log(options: &Options) -> Result<(), StartError> {
        start::begin_log(options).await
    }

    /// Returns the HTTP API: `/v1/kv…` and `/v1/health` for everyone, `/internal/coordinator/…`
    /// for the other hosts of the system.
    pub fn router(&self) -> Router {
        api::router(&self.executor)
    }

    /// Carries out a request, here or at the leader, within 3 s. While an election is young (2 s)
    /// it waits for its end.
    ///
    /// # Errors
    /// Why there is no answer; only after [`Failure::Unknown`] may a change be applied.
    pub async fn execute(&self, request: Request) -> Result<Answer, Failure> {
        self.executor.execute(&request, 0).await
    }

    /// Answers a question with the state of this host, or, if it has none, of any voter: fast and
    /// without a quorum, but possibly old.
    ///
    /// # Errors
    /// No voter can be reached.
    pub async fn stale(&self, query: Query) -> Result<Answer, Failure> {
        self.executor.execute_stale(&query, 0).await
    }

    /// Returns who leads, as far as known here, and its changes.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<LeaderView> {
        self.leader.clone()
    }

    /// Returns the store's revision when a key of the system space was last applied on this voter,
    /// and its changes. On any other host it stays 0.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.system_changes.clone()
    }

    /// Returns whether this voter's disk has room for changes. Always free on any other host.
    #[must_use]
    pub fn space(&self) -> watch::Receiver<Space> {
        self.space.clone()
    }

    /// Returns a lineage that is later than that of this member's log, once it has heard of one: the
    /// system goes on from another member's state. This member has then stopped, and can take part
    /// again with an empty log only: [`log::set_aside`]. Never on a host that takes no part.
    #[must_use]
    pub fn superseded(&self) -> watch::Receiver<Option<Lineage>> {
        self.superseded.clone()
    }

    /// Tells a host that takes no part who votes by now. One that takes part learns it from its log.
    pub fn set_voters(&self, voters: Vec<Voter>) {
        if let Background::Client(_, known) = &*self.background {
            known.send_replace(voters.into());
        }
    }

    /// Returns who takes part, as far as this member has applied its log; `None` on a host that
    /// takes no part.
    pub async fn standing(&self) -> Option<Standing> {
        self.executor.standing().await
    }

    /// Asks this host, which must lead, to change who takes part. The change is under way when this
    /// returns, and may still come to nothing if the leader changes.
    ///
    /// # Errors
    /// Why not, or not now.
    pub async fn change_members(&self, change: MembersChange) -> Result<(), MembersRefusal> {
        self.executor.change_members(change).await
    }

    /// Asks this host, if it leads, to let another voter lead: without the pause of an election, and
    /// to no effect if that voter can't.
    pub async fn hand_over(&self, to: MemberId) {
        self.executor.hand_over(to).await;
    }

    /// Ends everything that runs in the background and closes the log. Later requests fail. A
    /// voter that leads does not hand over before: the others notice within an election timeout.
    pub async fn shutdown(self) {
        match &*self.background {
            Background::Member(thread) => thread.close().await,
            Background::Client(watcher, _) => watcher.close(),
        }
    }
}
