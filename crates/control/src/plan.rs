//! Numbered, immutable plans: which replicas exist, on which host and port.

use std::collections::BTreeMap;

use evenkeel_model::instance::{Instance, InstanceId, InstancePhase, Placement};
use evenkeel_model::name::{HostName, ServiceName};

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
        }
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
