//! Failure domains: host ⊂ zone ⊂ region.

use std::fmt;
use std::net::IpAddr;

use crate::name::{HostName, RegionName, ZoneName};

/// The largest failure that a system promises to live through. The order is by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SurvivalGoal {
    /// Any one process.
    Process,
    /// Any one host, and so any one process.
    Host,
    /// Any one zone.
    Zone,
    /// Any one region.
    Region,
}

impl SurvivalGoal {
    /// All goals, the weakest first.
    pub const ALL: [Self; 4] = [Self::Process, Self::Host, Self::Zone, Self::Region];

    /// Returns the word used in system files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Host => "host",
            Self::Zone => "zone",
            Self::Region => "region",
        }
    }
}

impl fmt::Display for SurvivalGoal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What may run on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostRole {
    /// Everything.
    Full,
    /// Votes, stores the coordinator's log and runs a gateway; no service and no database.
    Witness,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Unique in the system.
    pub name: HostName,
    /// The region it stands in.
    pub region: RegionName,
    /// The zone, within `region`.
    pub zone: ZoneName,
    /// Where the other hosts reach it.
    pub address: IpAddr,
    /// What may run on it.
    pub role: HostRole,
}

/// A set of hosts that fails as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A single host.
    Host(HostName),
    /// A zone of a region.
    Zone(RegionName, ZoneName),
    /// A region.
    Region(RegionName),
}

impl Domain {
    /// Returns whether `host` fails with this domain.
    #[must_use]
    pub fn contains(&self, host: &Host) -> bool {
        match self {
            Self::Host(name) => *name == host.name,
            Self::Zone(region, zone) => *region == host.region && *zone == host.zone,
            Self::Region(region) => *region == host.region,
        }
    }
}

impl fmt::Display for Domain {
    /// Writes `host fra-a1`, `zone fra/a` or `region fra`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(formatter, "host {host}"),
            Self::Zone(region, zone) => write!(formatter, "zone {region}/{zone}"),
            Self::Region(region) => write!(formatter, "region {region}"),
        }
    }
}
