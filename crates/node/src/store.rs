//! The system's own keys in the replicated store: the plan and the system file.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Query, Space};
use evenkeel_consensus::lineage::Lineage;
use evenkeel_consensus::members::MembersChange;
use evenkeel_control::declaration::Wanted;
use evenkeel_control::members::{MembersStep, Membership};
use evenkeel_control::plan::Plan;
use evenkeel_coordinator::log::Space as LogSpace;
use evenkeel_coordinator::options::{Voter, member};
use evenkeel_coordinator::{Coordinator, LeaderView, Request};
use evenkeel_model::name::HostName;
use evenkeel_model::voting::Voting;
use tokio::sync::watch;

use crate::wire::{PlanWire, declare};

/// The plan in force, as JSON.
pub(crate) const PLAN: &str = "plan";

/// The wanted system file, as text.
const SYSTEM: &str = "system";

/// The hosts that are to run no replica, as a JSON list of names.
const DRAINED: &str = "drained";

/// Most keys that are listed at once.
const KEYS_MAX: usize = 1000;

/// Who leads, and in which term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; this host only once it holds every change of the leaders before it.
    pub leader: Option<HostName>,
    /// The term.
    pub term: u64,
}

/// What became of a plan that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    Done,
    /// It is not, or nobody knows; with the plan that is stored, if that could be read.
    Refused(Option<Plan>),
}

/// The store, as the node uses it.
#[derive(Debug, Clone)]
pub struct Store {
    coordinator: Arc<Coordinator>,
    host: HostName,
}

impl Store {
    /// Wraps the coordinator of `host`.
    #[must_use]
    pub fn new(coordinator: Coordinator, host: HostName) -> Self {
        Self { coordinator: Arc::new(coordinator), host }
    }

    /// Returns the key-value API.
    pub fn router(&self) -> Router {
        self.coordinator.router()
    }

    /// Returns who leads now.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.describe(&self.coordinator.leader().borrow())
    }

    /// Returns the view behind [`Self::leadership`], to wait for its changes.
    #[must_use]
    pub fn leader_changes(&self) -> watch::Receiver<LeaderView> {
        self.coordinator.leader()
    }

    fn describe(&self, view: &LeaderView) -> Leadership {
        let ready = |leader: &HostName| *leader != self.host || view.is_self;
        Leadership { leader: view.leader.clone().filter(ready), term: view.term }
    }

    /// Returns a counter that rises when a system key was applied on this voter.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.coordinator.changes()
    }

    /// Returns who takes part in the coordinator, as this host's member tells it; `None` without one.
    pub async fn membership(&self) -> Option<Membership> {
        let standing = self.coordinator.standing().await?;
        let sorted = |mut hosts: Vec<HostName>| {
            hosts.sort_unstable();
            hosts
        };
        let level = standing.followers.iter().filter(|(_, follower)| follower.is_level);
        Some(Membership {
            leader: self.host.clone(),
            is_changing: !standing.outgoing.is_empty(),
            level: level.map(|(host, _)| host.clone()).collect(),
            voting: Voting { voters: sorted(standing.voters), learners: sorted(standing.learners) },
        })
    }

    /// Has this host's member, which must lead, change who takes part.
    ///
    /// # Errors
    /// In words, why not or not now.
    pub async fn change_members(&self, step: &MembersStep) -> Result<(), String> {
        let change = match step {
            MembersStep::HandOver(host) => {
                self.coordinator.hand_over(member(host)).await;
                return Ok(());
            }
            MembersStep::AddLearner(host) => MembersChange::AddLearner(member(host)),
            MembersStep::RemoveLearner(host) => MembersChange::RemoveLearner(member(host)),
            MembersStep::Promote { learner, in_place_of } => MembersChange::Promote {
                learner: member(learner),
                in_place_of: in_place_of.as_ref().map(member),
            },
        };
        self.coordinator.change_members(change).await.map_err(|refusal| refusal.to_string())
    }

    /// Returns a later lineage of the system than that of this host's log, see
    /// [`Coordinator::superseded`].
    #[must_use]
    pub fn superseded(&self) -> watch::Receiver<Option<Lineage>> {
        self.coordinator.superseded()
    }

    /// Tells a host that takes no part who votes by now.
    pub fn set_voters(&self, voters: Vec<Voter>) {
        self.coordinator.set_voters(voters);
    }

    /// Returns whether the log of this host's member has room for changes; always on other hosts.
    #[must_use]
    pub fn space(&self) -> watch::Receiver<LogSpace> {
        self.coordinator.space()
    }

    /// Reads the stored plan with the revision of its key.
    ///
    /// # Errors
    /// In words, when no leader answers or the plan can't be understood.
    pub async fn read_plan(&self) -> Result<Option<(Plan, u64)>, String> {
        match self.get(PLAN).await? {
            Some((value, revision)) => Ok(Some((parse_plan(&value)?, revision))),
            None => Ok(None),
        }
    }

    /// Reads the plan that this host's own member has applied last, without asking anybody.
    ///
    /// # Errors
    /// In words, when this host has no member or the plan can't be understood.
    pub async fn seen_plan(&self) -> Result<Option<Plan>, String> {
        match self.seen(PLAN).await? {
            Some((value, _)) => parse_plan(&value).map(Some),
            None => Ok(None),
        }
    }

    /// Stores a plan if the stored one still has the number of its parent.
    pub async fn replace_plan(&self, plan: &Plan) -> Stored {
        let present = match self.read_plan().await {
            Ok(present) => present,
            Err(reason) => {
                tracing::info!(reason, "a plan was not stored");
                return Stored::Refused(None);
            }
        };
        let number = present.as_ref().map_or(0, |(plan, _)| plan.number);
        if number != plan.parent {
            return Stored::Refused(present.map(|(plan, _)| plan));
        }
        let expect = present.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        let Ok(value) = serde_json::to_vec(&PlanWire::from(plan)) else {
            return Stored::Refused(None);
        };
        match self.put(PLAN, value, expect).await {
            Ok(Answer::Written { .. }) => Stored::Done,
            Ok(_) => Stored::Refused(None),
            Err(reason) => {
                tracing::info!(reason, "a plan was not stored");
                Stored::Refused(None)
            }
        }
    }

    /// Reads what is wanted, as the leader's store has it. `None` before any leader has stored its
    /// system file. `voting` says who takes part in the coordinator.
    ///
    /// # Errors
    /// In words, when no leader answers or the system file can't be understood.
    pub async fn read_wanted(&self, voting: &Voting) -> Result<Option<Wanted>, String> {
        let Some((text, revision)) = self.get(SYSTEM).await? else { return Ok(None) };
        let drained = self.get(DRAINED).await?;
        wanted_of(&text, revision, drained, voting).map(Some)
    }

    /// Reads what is wanted as this host's own member has applied it last, without asking anybody.
    ///
    /// # Errors
    /// As those of [`Self::read_wanted`], and when this host has no member.
    pub async fn seen_wanted(&self, voting: &Voting) -> Result<Option<Wanted>, String> {
        let Some((text, revision)) = self.seen(SYSTEM).await? else { return Ok(None) };
        let drained = self.seen(DRAINED).await?;
        wanted_of(&text, revision, drained, voting).map(Some)
    }

    /// Stores `text` as the system file if there is none yet.
    ///
    /// # Errors
    /// In words, when no leader answers.
    pub async fn begin_system(&self, text: &str) -> Result<(), String> {
        let text = text.as_bytes().to_vec();
        self.replace(SYSTEM, text, Expect::Absent).await.map(|_present| ())
    }

    /// Replaces the system file, if the stored one has `revision`. Returns the new revision, `None`
    /// when another one is stored.
    ///
    /// # Errors
    /// In words, when no leader answers: then nobody knows whether it is stored.
    pub async fn replace_system(&self, text: &str, revision: u64) -> Result<Option<u64>, String> {
        self.replace(SYSTEM, text.as_bytes().to_vec(), Expect::Revision(revision)).await
    }

    /// Replaces the list of drained hosts, if the stored one has `revision`, 0 standing for none.
    /// Returns the new revision, `None` when another one is stored.
    ///
    /// # Errors
    /// As those of [`Self::replace_system`].
    pub async fn replace_drained(
        &self,
        hosts: &BTreeSet<HostName>,
        revision: u64,
    ) -> Result<Option<u64>, String> {
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        let value = serde_json::to_vec(&names).map_err(|error| error.to_string())?;
        let expect = if revision == 0 { Expect::Absent } else { Expect::Revision(revision) };
        self.replace(DRAINED, value, expect).await
    }

    async fn replace(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
    ) -> Result<Option<u64>, String> {
        let answer = self.put(key, value, expect).await?;
        if let Answer::Conflict { .. } = answer {
            return Ok(None);
        }
        let Answer::Written { revision, .. } = answer else {
            return Err(format!("key `{key}` was not stored: {answer:?}"));
        };
        Ok(Some(revision))
    }

    /// Reads a key as this host's own member has applied it last.
    async fn seen(&self, key: &str) -> Result<Option<(Bytes, u64)>, String> {
        let query = Query::Get { space: Space::System, key: key.to_owned(), at: None };
        let answer = self.coordinator.stale(query).await.map_err(|error| error.to_string())?;
        let Answer::Value { version, .. } = answer else { return Ok(None) };
        Ok(Some((version.value, version.revision)))
    }

    /// Ends the coordinator on this host.
    pub async fn shutdown(self) {
        self.coordinator.as_ref().clone().shutdown().await;
    }

    /// Returns every key that begins with `prefix`, and its value.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, String> {
        let query = Query::Range {
            space: Space::System,
            prefix: prefix.to_owned(),
            after: None,
            limit: KEYS_MAX,
            at: None,
        };
        let answer = self.execute(Request::Query(query)).await?;
        let Answer::Entries { entries, .. } = answer else {
            return Err(format!("keys `{prefix}…` were not listed"));
        };
        Ok(entries.into_iter().map(|entry| (entry.key, entry.version.value)).collect())
    }

    /// Removes a key.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), String> {
        let delete =
            Change::Delete { space: Space::System, key: key.to_owned(), expect: Expect::Any };
        self.execute(Request::Command(Command::once(delete))).await.map(drop)
    }

    /// Reads a key and the revision of its last change.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, String> {
        let query = Query::Get { space: Space::System, key: key.to_owned(), at: None };
        let answer = self.execute(Request::Query(query)).await?;
        if let Answer::Absent { .. } = answer {
            return Ok(None);
        }
        let Answer::Value { version, .. } = answer else {
            return Err(format!("key `{key}` was not read: {answer:?}"));
        };
        Ok(Some((version.value, version.revision)))
    }

    /// Sets a key if it is as expected.
    pub(crate) async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
    ) -> Result<Answer, String> {
        let put = Change::Put {
            space: Space::System,
            key: key.to_owned(),
            value: value.into(),
            expect,
            lease: None,
        };
        self.execute(Request::Command(Command::once(put))).await
    }

    async fn execute(&self, request: Request) -> Result<Answer, String> {
        self.coordinator.execute(request).await.map_err(|error| error.to_string())
    }
}

fn parse_plan(value: &[u8]) -> Result<Plan, String> {
    let wire: PlanWire = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Plan::try_from(wire).map_err(|error| error.to_string())
}

fn wanted_of(
    text: &[u8],
    revision: u64,
    drained: Option<(Bytes, u64)>,
    voting: &Voting,
) -> Result<Wanted, String> {
    let text = String::from_utf8_lossy(text);
    let declaration = declare(revision, &text, voting).map_err(|error| error.to_string())?;
    let (drained, drained_revision) = match drained {
        Some((value, revision)) => (parse_hosts(&value)?, revision),
        None => (BTreeSet::new(), 0),
    };
    Ok(Wanted { declaration, drained, drained_revision })
}

fn parse_hosts(value: &[u8]) -> Result<BTreeSet<HostName>, String> {
    let names: Vec<String> = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let hosts = names.iter().map(|name| HostName::parse(name).map_err(|error| error.to_string()));
    hosts.collect()
}
