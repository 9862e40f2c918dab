//! Lets a system go on from the log of one host, when a majority of the voters is gone for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Space};
use evenkeel_coordinator::options::Voter;
use evenkeel_coordinator::survivor::{self, ExamineError, Sighting, Survivor};
use evenkeel_model::name::HostName;
use evenkeel_model::place::Host;
use evenkeel_model::system::System;
use serde::Serialize;

use crate::data::{DataFolder, LogWanted, OpenError, Owner};
use crate::protection::{Protection, ProtectionError, Wanted};
use crate::start::{self, StartError, place_of};
use crate::store::PLAN;
use crate::wire::PlanWire;

/// Says why a system can't, or must not, go on from a host. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The data folder can't be used.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// No node has ever known a system there.
    #[error("no system file is in force in data folder `{0}`")]
    NoSystem(PathBuf),
    /// The system file in force there can't be used.
    #[error(transparent)]
    File(Box<StartError>),
    /// The host was removed.
    #[error("the system file in force on host `{0}` does not name it any more")]
    Removed(HostName),
    /// The host keeps no log.
    #[error("host `{0}` does not vote and keeps no log to go on from")]
    NoLog(HostName),
    /// The log does not do.
    #[error(transparent)]
    Log(#[from] ExamineError),
    /// Nobody can be asked whether others are there.
    #[error(transparent)]
    Protection(#[from] ProtectionError),
    /// The stored plan can't be understood.
    #[error("the plan in the log can't be understood by this version")]
    Plan,
    /// There is a leader.
    #[error("host `{by}` says that `{leader}` leads: nothing needs to be recovered")]
    Led {
        /// Who says so.
        by: HostName,
        /// Who leads.
        leader: HostName,
    },
    /// Other voters are there.
    #[error("voters answer: {}", names(.0))]
    Answers(Vec<HostName>),
    /// The disk refused.
    #[error("can't write to `{folder}`")]
    Write {
        /// The log's folder.
        folder: PathBuf,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
}

fn names(hosts: &[HostName]) -> String {
    let names: Vec<String> = hosts.iter().map(|host| format!("`{host}`")).collect();
    names.join(", ")
}

impl RecoverError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Data(OpenError::LogMissing(_)) => "run it on a host that kept its log".to_owned(),
            Self::Data(error) => error.help(),
            Self::File(_) => "`evenkeel check` names what is wrong with it".to_owned(),
            Self::NoSystem(_) => {
                "give the data folder of a host that voted, with --data".to_owned()
            }
            Self::Removed(_) | Self::NoLog(_) | Self::Log(ExamineError::Unfit { .. }) => {
                "run it on a host that voted and kept its log".to_owned()
            }
            Self::Log(ExamineError::Log(error)) => error.help(),
            Self::Protection(error) => error.help(),
            Self::Plan => "use the version of Evenkeel that wrote it, or a newer one".to_owned(),
            Self::Led { .. } => "start this host's node: it takes part by itself".to_owned(),
            Self::Answers(_) => "start this host's node: is that a majority, then the system goes \
                                 on without loss. Is it not, then choose the one whose log ends \
                                 last (--dry-run tells), and stop the nodes of the others first"
                .to_owned(),
            Self::Write { .. } => "make room, then run it again".to_owned(),
        }
    }
}

/// What a system would go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The system.
    pub system: String,
    /// Whose log it is.
    pub host: String,
    /// How many keys users have in it.
    pub keys: usize,
    /// The store's revision.
    pub revision: u64,
    /// The log's last entry.
    pub last_entry: u64,
    /// How many entries at its end may not have been agreed by a majority.
    pub unsure_entries: u64,
    /// Whether the host voted last. If not, the log ends where another host took its place.
    pub voted: bool,
    /// The other voters.
    pub given_up: Vec<String>,
}

/// What the system would go on from. Holds the data folder, so that no node starts meanwhile.
#[derive(Debug)]
pub struct Recovery {
    folder: DataFolder,
    owner: Owner,
    place: Host,
    system: Arc<System>,
    survivor: Survivor,
}

impl Recovery {
    /// Looks at the log in data folder `data`. Changes nothing.
    ///
    /// # Errors
    /// Why the system can't go on from it.
    pub fn examine(data: &Path) -> Result<Self, RecoverError> {
        let folder = DataFolder::reopen(data)?;
        let owner = folder.owner()?;
        let kept = start::kept(data, Some(&owner.system));
        let kept = kept.map_err(|error| RecoverError::File(Box::new(error)))?;
        let system = kept.ok_or_else(|| RecoverError::NoSystem(data.to_path_buf()))?.system;
        let place = system.hosts.get(&owner.host).cloned();
        let place = place.ok_or_else(|| RecoverError::Removed(owner.host.clone()))?;
        if folder.lacks_log()? {
            return Err(RecoverError::NoLog(owner.host));
        }
        folder.check_log(LogWanted::Kept)?;
        let mut survivor = Survivor::examine(&folder.log(), &owner.system, &owner.host)?;
        number_plans_anew(&mut survivor, &owner.host)?;
        Ok(Self { folder, owner, place, system, survivor })
    }

    /// Returns what the system would go on with.
    #[must_use]
    pub fn report(&self) -> Report {
        let Self { owner, survivor, .. } = self;
        let others = self.system.voters.iter().filter(|voter| **voter != owner.host);
        Report {
            system: owner.system.to_string(),
            host: owner.host.to_string(),
            keys: survivor.keys().prefix(Space::User, "").count(),
            revision: survivor.keys().revision(),
            last_entry: survivor.last_entry(),
            unsure_entries: survivor.unsure(),
            voted: self.system.voters.contains(&owner.host),
            given_up: others.map(ToString::to_string).collect(),
        }
    }

    /// Asks every other host whether it is there, and returns how many are. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// There is a leader, or there are other voters: the system must not go on without them.
    pub async fn check_nobody_leads(&self) -> Result<usize, RecoverError> {
        let Owner { system, host } = &self.owner;
        let protection = Protection::check(Wanted::Joined, self.folder.path(), &self.system, host)?;
        let trust = protection.open(&self.system, &self.place)?;
        let others = self.system.hosts.values().filter(|other| other.name != *host);
        let others: Vec<Voter> = others.map(|other| place_of(&self.system, other)).collect();
        let sightings = survivor::look_for(system, others, trust).await;
        judge(host, &self.system.voters, &sightings)?;
        Ok(sightings.len())
    }

    /// Makes this host the only voter of a lineage of its own: done or not at all. `random` tells
    /// it from one that is begun elsewhere. Returns that lineage's name.
    ///
    /// # Errors
    /// The disk refused.
    pub fn carry_out(self, random: u32) -> Result<String, RecoverError> {
        let folder = self.folder.log();
        self.survivor
            .succeed(random)
            .map(|lineage| lineage.to_string())
            .map_err(|source| RecoverError::Write { folder, source })
    }
}

/// Decides whether `own` may go on without the others, of which these answer.
fn judge(own: &HostName, voters: &[HostName], sightings: &[Sighting]) -> Result<(), RecoverError> {
    let leader_of = |seen: &Sighting| seen.leader.clone().filter(|leader| leader != own);
    if let Some((by, leader)) =
        sightings.iter().find_map(|seen| Some((seen.host.clone(), leader_of(seen)?)))
    {
        return Err(RecoverError::Led { by, leader });
    }
    let answering = sightings.iter().map(|seen| &seen.host);
    let answering: Vec<HostName> =
        answering.filter(|host| voters.contains(host)).cloned().collect();
    if answering.is_empty() { Ok(()) } else { Err(RecoverError::Answers(answering)) }
}

/// Has the next leader number its plans behind all that this host may not have heard of: a host
/// that follows one of those would refuse a lower number.
fn number_plans_anew(survivor: &mut Survivor, host: &HostName) -> Result<(), RecoverError> {
    let Some(stored) = survivor.keys().get(Space::System, PLAN) else { return Ok(()) };
    let mut plan: PlanWire =
        serde_json::from_slice(&stored.value).map_err(|_| RecoverError::Plan)?;
    plan.go_on_with(host);
    let value = serde_json::to_vec(&plan).map_err(|_| RecoverError::Plan)?;
    survivor.keys_mut().apply(Command::once(Change::Put {
        space: Space::System,
        key: PLAN.to_owned(),
        value: Bytes::from(value),
        expect: Expect::Any,
        lease: None,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn check(seen: &[(&str, Option<&str>)], expected: Option<&str>) {
        let voters = ["a1", "b1", "c1"].map(host);
        let seen = seen
            .iter()
            .map(|(name, leader)| Sighting { host: host(name), leader: leader.map(host) });
        let seen: Vec<Sighting> = seen.collect();
        let refusal = judge(&host("a1"), &voters, &seen).err().map(|error| error.to_string());
        assert_eq!(refusal.as_deref(), expected, "{seen:?}");
    }

    #[test]
    fn nobody_goes_on_alone_while_others_lead_or_vote() {
        check(&[], None);
        // Those that do not vote may still name who was stopped for this.
        check(&[("d1", None), ("d2", Some("a1"))], None);
        let led = "host `d2` says that `b1` leads: nothing needs to be recovered";
        check(&[("d1", None), ("d2", Some("b1"))], Some(led));
        check(&[("c1", None)], Some("voters answer: `c1`"));
        check(&[("b1", Some("a1")), ("c1", None), ("d1", None)], Some("voters answer: `b1`, `c1`"));
    }
}
