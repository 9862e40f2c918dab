//! A whole declared system.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::name::{GatewayName, HostName, RegionName, ServiceName, SystemName};
use crate::place::{Domain, Host, HostRole, SurvivalGoal};
use crate::service::{Gateway, Service};
use crate::voting::Voting;

/// What the system file declares, checked: every reference inside it leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Its name and identity.
    pub name: SystemName,
    /// The promise.
    pub goal: SurvivalGoal,
    /// Regions in the order of the file; the first is home.
    pub regions: Vec<RegionName>,
    /// Every host, by name.
    pub hosts: BTreeMap<HostName, Host>,
    /// Every service, by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Every way in, by name.
    pub gateways: BTreeMap<GatewayName, Gateway>,
    /// Where Evenkeel itself listens.
    pub ports: Ports,
    /// The coordinator's voters, sorted by name: dealt by [`crate::voting::deal_voters`] when the
    /// system begins; from then on those that the coordinator's log names.
    pub voters: Vec<HostName>,
    /// Hosts that get the coordinator's log and do not vote, sorted by name: one that is to take a
    /// voter's place, for as long as it takes.
    pub learners: Vec<HostName>,
    /// How long a voter may be missing before another host takes its place.
    pub replace_after: Duration,
}

/// Ports that Evenkeel uses on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// TCP: consensus. UDP: probes between hosts.
    pub peer: u16,
    /// TCP: key-value API, status and heartbeats of other hosts.
    pub api: u16,
    /// TCP on loopback: the local gateway's listener behind `${kv.url}`.
    pub kv: u16,
    /// TCP on loopback: the local gateway's metrics and state.
    pub gateway_admin: u16,
    /// TCP: where the gateways of other hosts reach this host's replicas while traffic between
    /// hosts is protected.
    pub relay: u16,
    /// Given to replicas.
    pub replicas: RangeInclusive<u16>,
}

/// A name that no host of the system has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no host `{host}`, only {known}")]
pub struct NoHost {
    /// The name.
    pub host: String,
    /// The names that hosts have, for people.
    pub known: String,
}

impl System {
    /// Returns who takes part in the coordinator.
    #[must_use]
    pub fn voting(&self) -> Voting {
        Voting { voters: self.voters.clone(), learners: self.learners.clone() }
    }

    /// Returns the same system with others taking part in the coordinator.
    #[must_use]
    pub fn with_voting(self, voting: &Voting) -> Self {
        let Voting { voters, learners } = voting.clone();
        Self { voters, learners, ..self }
    }

    /// Returns whether a host takes part in the coordinator, with a vote or without.
    #[must_use]
    pub fn takes_part(&self, host: &HostName) -> bool {
        self.voters.contains(host) || self.learners.contains(host)
    }

    /// Finds a host by its name as somebody wrote it.
    ///
    /// # Errors
    /// No host is called so.
    pub fn find_host(&self, name: &str) -> Result<&Host, NoHost> {
        let found = self.hosts.values().find(|host| host.name.as_str() == name);
        found.ok_or_else(|| {
            let known: Vec<String> = self.hosts.keys().map(|host| format!("`{host}`")).collect();
            NoHost { host: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Hosts that may run services, by name.
    pub fn service_hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().filter(|host| host.role == HostRole::Full)
    }

    /// Returns every failure domain at a level: each host, each zone or each region that has a
    /// host. Empty at [`SurvivalGoal::Process`], which is not a place.
    #[must_use]
    pub fn domains(&self, level: SurvivalGoal) -> Vec<Domain> {
        let mut domains = Vec::new();
        for region in &self.regions {
            for host in self.hosts.values().filter(|host| host.region == *region) {
                let domain = match level {
                    SurvivalGoal::Process => continue,
                    SurvivalGoal::Host => Domain::Host(host.name.clone()),
                    SurvivalGoal::Zone => Domain::Zone(region.clone(), host.zone.clone()),
                    SurvivalGoal::Region => Domain::Region(region.clone()),
                };
                if !domains.contains(&domain) {
                    domains.push(domain);
                }
            }
        }
        domains
    }
}
