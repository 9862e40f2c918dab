//! Numbered, immutable plans: which replicas exist, on which host and port, and what each runs.
//!
//! A plan holds every system file that something in it was made from, so a host that has the plan
//! needs nothing else: neither the store nor a file of its own.

use std::collections::BTreeMap;

use evenkeel_model::instance::{Instance, InstanceId, InstancePhase, Placement};
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::service::Service;
use evenkeel_model::system::System;
use evenkeel_model::voting::Voting;

use crate::declaration::{Declaration, Declarations};

/// What every host is to run. Never changed once stored: a change is a new plan with a higher
/// number, and a receiver refuses a lower one, so that an old leader moves nothing back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Rises strictly along a chain of parents; gaps are allowed. 0 is the empty plan.
    pub number: u64,
    /// The number of the plan it was derived from, and the only one it may replace.
    pub parent: u64,
    /// Every replica, sorted by id.
    pub instances: Vec<Instance>,
    /// The serial that the next new replica gets. Never falls.
    pub next_serial: u64,
    /// Hosts on which a service kept failing, with the replica that was then tried elsewhere.
    pub avoided: BTreeMap<(ServiceName, HostName), InstanceId>,
    /// The system files that this plan refers to, by revision.
    pub declarations: Declarations,
    /// The revision whose hosts, ports, gateways and routes are in force; 0 in the empty plan.
    pub revision: u64,
    /// Of each service, what its replicas run.
    pub releases: BTreeMap<ServiceName, Release>,
}

/// What the replicas of a service run: the definition that they keep, and one that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Revision of the last definition that all replicas ran.
    pub current: u64,
    /// A newer definition that is being deployed, or that failed.
    pub next: Option<Rollout>,
}

/// A definition on its way to the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its revision.
    pub revision: u64,
    /// Why it was given up, if it was: replicas then run the current definition again.
    pub failed: Option<String>,
}

impl Release {
    /// Returns the revision that new replicas run.
    #[must_use]
    pub fn target(&self) -> u64 {
        match &self.next {
            Some(Rollout { revision, failed: None }) => *revision,
            Some(_) | None => self.current,
        }
    }
}

impl Plan {
    /// Returns the plan of a system that has never had one.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            number: 0,
            parent: 0,
            instances: Vec::new(),
            next_serial: 1,
            avoided: BTreeMap::new(),
            declarations: Declarations::new(),
            revision: 0,
            releases: BTreeMap::new(),
        }
    }

    /// Returns the same plan with others taking part in the coordinator.
    #[must_use]
    pub fn with_voting(&self, voting: &Voting) -> Self {
        let declarations = self.declarations.iter();
        let declarations = declarations
            .map(|(revision, declaration)| (*revision, declaration.with_voting(voting)));
        Self { declarations: declarations.collect(), ..self.clone() }
    }

    /// Returns the system file whose places and routes are in force; `None` in the empty plan.
    #[must_use]
    pub fn declaration(&self) -> Option<&Declaration> {
        self.declarations.get(&self.revision)
    }

    /// Returns the system whose places and routes are in force; `None` in the empty plan.
    #[must_use]
    pub fn system(&self) -> Option<&System> {
        self.declaration().map(|declaration| &*declaration.system)
    }

    /// Returns the system file that `host` follows: the one in force, or while that does not know
    /// the host yet, a newer one that does.
    #[must_use]
    pub fn declaration_for(&self, host: &HostName) -> Option<&Declaration> {
        let mut newer =
            self.declarations.range(self.revision..).map(|(_, declaration)| declaration);
        let known = newer.find(|declaration| declaration.system.hosts.contains_key(host));
        known.or_else(|| self.declaration())
    }

    /// Returns what a replica runs.
    #[must_use]
    pub fn definition(&self, instance: &Instance) -> Option<&Service> {
        self.defined_at(&instance.id.service, instance.revision)
    }

    /// Returns a service as the file of a revision defines it.
    #[must_use]
    pub fn defined_at(&self, service: &ServiceName, revision: u64) -> Option<&Service> {
        self.declarations.get(&revision)?.system.services.get(service)
    }

    /// Returns a replica by name.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == *id)
    }

    /// Replicas of a host.
    pub fn on_host(&self, host: &HostName) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.host == *host)
    }

    /// Replicas of a service.
    pub fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.id.service == *service)
    }

    /// Returns whether a service kept failing on a host.
    #[must_use]
    pub fn avoids(&self, service: &ServiceName, host: &HostName) -> bool {
        self.avoided.contains_key(&(service.clone(), host.clone()))
    }

    /// Returns the hosts of each service's serving replicas.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let mut placement = Placement::new();
        for instance in &self.instances {
            if instance.phase == InstancePhase::Serving {
                placement
                    .entry(instance.id.service.clone())
                    .or_default()
                    .push(instance.host.clone());
            }
        }
        placement
    }
}
