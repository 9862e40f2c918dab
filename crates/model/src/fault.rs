//! Faults that are injected on purpose, and what they are injected into.

use std::fmt;

use crate::instance::InstanceId;
use crate::name::{HostName, RegionName, ZoneName};

/// What is done to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// SIGKILL to every process of the target.
    Kill,
    /// Every process of the target stops running but keeps its sockets.
    Pause,
    /// No packet leaves or reaches the target.
    Isolate,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
        })
    }
}

/// What a fault strikes, named exactly: a role such as "the leader" is resolved to its host before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The process of one replica.
    Replica(InstanceId, HostName),
    /// The gateway process of a host.
    Gateway(HostName),
    /// The node process of a host, and with it its coordinator member.
    Node(HostName),
    /// The shim of one replica.
    Shim(InstanceId, HostName),
    /// A host with everything on it.
    Host(HostName),
    /// All hosts of a zone.
    Zone(RegionName, ZoneName),
    /// All hosts of a region.
    Region(RegionName),
    /// The wide-area link between two regions.
    Link(RegionName, RegionName),
}

impl fmt::Display for Target {
    /// Writes `replica web-3 on fra-a1`, `host fra-a1`, `link fra-ams` and so on.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id, host) => write!(formatter, "replica {id} on {host}"),
            Self::Gateway(host) => write!(formatter, "gateway of {host}"),
            Self::Node(host) => write!(formatter, "node of {host}"),
            Self::Shim(id, host) => write!(formatter, "shim of {id} on {host}"),
            Self::Host(host) => write!(formatter, "host {host}"),
            Self::Zone(region, zone) => write!(formatter, "zone {region}/{zone}"),
            Self::Region(region) => write!(formatter, "region {region}"),
            Self::Link(from, to) => write!(formatter, "link {from}-{to}"),
        }
    }
}
