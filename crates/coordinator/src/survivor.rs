//! A system that goes on from one member's log, when a majority of the others is gone for good.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::lineage::{self, Lineage, SurvivorError};
use evenkeel_consensus::settings::StateLimits;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::tls::Trust;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::log::{self, OpenError};
use crate::options::{RoundTrips, Voter};
use crate::{digest, options};

/// What a host that was asked says: that it is there, and whom it takes for the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The host.
    pub host: HostName,
    /// Who leads, as far as it knows.
    pub leader: Option<HostName>,
}

/// Time for a host to answer, also over a slow network: a person waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks hosts, all at once, and returns what those say that answer. Must be called within a runtime.
pub async fn look_for(
    system: &SystemName,
    hosts: Vec<Voter>,
    trust: Option<Trust>,
) -> Vec<Sighting> {
    let (_voters, known) = watch::channel(hosts.clone().into());
    let (_measured, round_trips) = watch::channel(RoundTrips::new());
    let client = Client::new(system, known, round_trips, trust);
    let mut asked = JoinSet::new();
    for Voter { host, api, .. } in hosts {
        let client = client.clone();
        asked.spawn(async move {
            let report = tokio::time::timeout(ANSWER_TIMEOUT, client.leader(api)).await.ok()?;
            let leader = report.ok()?.leader.and_then(|leader| HostName::parse(&leader).ok());
            Some(Sighting { host, leader })
        });
    }
    let mut sightings: Vec<Sighting> = asked.join_all().await.into_iter().flatten().collect();
    sightings.sort_unstable_by(|one, other| one.host.cmp(&other.host));
    sightings
}

/// Why a member's log is not to be gone on from. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The log can't be used.
    #[error("cannot read the coordinator's log")]
    Log(#[source] OpenError),
    /// What is in it does not do.
    #[error("cannot go on from the log of host `{host}`")]
    Unfit {
        /// Whose it is.
        host: HostName,
        /// Why.
        #[source]
        source: SurvivorError,
    },
}

/// A member's log, as it would be gone on from. Its member must not run meanwhile.
#[derive(Debug)]
pub struct Survivor {
    folder: PathBuf,
    system: SystemName,
    host: HostName,
    state: lineage::Survivor,
}

impl Survivor {
    /// Reads the log of `host` in `folder`. Changes nothing.
    ///
    /// # Errors
    /// Why the system can't go on from it.
    pub fn examine(
        folder: &Path,
        system: &SystemName,
        host: &HostName,
    ) -> Result<Self, ExamineError> {
        let recovered =
            log::read(folder, digest::owner(system, host)).map_err(ExamineError::Log)?;
        let state = lineage::Survivor::examine(recovered.restored, StateLimits::STANDARD)
            .map_err(|source| ExamineError::Unfit { host: host.clone(), source })?;
        let (folder, system, host) = (folder.to_owned(), system.clone(), host.clone());
        Ok(Self { folder, system, host, state })
    }

    /// Returns the keys that the system goes on with.
    #[must_use]
    pub const fn keys(&self) -> &KeySpace {
        &self.state.keys
    }

    /// Returns them, to change what must not stay as it is.
    pub const fn keys_mut(&mut self) -> &mut KeySpace {
        &mut self.state.keys
    }

    /// Returns the last entry of the log.
    #[must_use]
    pub const fn last_entry(&self) -> u64 {
        self.state.index
    }

    /// Returns how many entries at the log's end may or may not have been agreed: they stay.
    #[must_use]
    pub const fn unsure(&self) -> u64 {
        self.state.unsure
    }

    /// Makes this member the only voter of a lineage of its own, durably: done or not at all. The
    /// others take part again only with empty logs.
    ///
    /// # Errors
    /// What the disk refused.
    pub fn succeed(self, random: u32) -> io::Result<Lineage> {
        let lineage = self.state.keys.lineage().next(random);
        let snapshot = self.state.succeed(options::member(&self.host), lineage);
        let owner = digest::owner(&self.system, &self.host);
        log::replace_by(&self.folder, owner, &snapshot)?;
        Ok(lineage)
    }
}
