//! Replicas that run: which service, on which host, on which port.

use std::collections::BTreeMap;
use std::fmt;

use crate::name::{HostName, NameError, ServiceName};

/// Names one replica for as long as it exists. Never used twice in a system: `web-17`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The service it is a replica of.
    pub service: ServiceName,
    /// Counted up over the system's whole life.
    pub serial: u64,
}

impl InstanceId {
    /// Parses `service-serial`.
    ///
    /// # Errors
    /// The rule of [`crate::name`] that the service part breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (service, serial) = text.rsplit_once('-').ok_or(NameError::Empty)?;
        let serial = serial.parse().map_err(|_| NameError::Empty)?;
        Ok(Self { service: ServiceName::parse(service)?, serial })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.service, self.serial)
    }
}

/// Whether an instance takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstancePhase {
    /// Started, and given requests once it is ready.
    Serving,
    /// Still running, but gateways send it nothing new; removed by a later plan.
    Draining,
}

/// One replica as a plan places it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// The host that runs it.
    pub host: HostName,
    /// The TCP port that it is given.
    pub port: u16,
    /// Whether it takes requests.
    pub phase: InstancePhase,
    /// Revision of the system file whose definition of the service it runs.
    pub revision: u64,
}

/// The hosts of each service's replicas, one entry a replica.
pub type Placement = BTreeMap<ServiceName, Vec<HostName>>;
