//! What can fail by itself: the basic events of the audit.

use std::fmt;

use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::{Domain, SurvivalGoal};

/// A part of a system that can fail by itself. The order is by kind, the smaller ones first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// A replica of a service on a host, counted from 0 among those of the service there.
    Replica(ServiceName, HostName, usize),
    /// The gateway process of a host.
    Gateway(HostName),
    /// The coordinator's voter in the node process of a host.
    Voter(HostName),
    /// The node process of a host.
    Node(HostName),
    /// A host, a zone or a region with everything in it.
    Place(Domain),
}

impl Component {
    /// Returns the weakest goal that promises to survive the loss of this component.
    #[must_use]
    pub const fn level(&self) -> SurvivalGoal {
        match self {
            Self::Replica(..) | Self::Gateway(_) | Self::Voter(_) | Self::Node(_) => {
                SurvivalGoal::Process
            }
            Self::Place(Domain::Host(_)) => SurvivalGoal::Host,
            Self::Place(Domain::Zone(..)) => SurvivalGoal::Zone,
            Self::Place(Domain::Region(_)) => SurvivalGoal::Region,
        }
    }

    /// Returns whether this is one of Evenkeel's own processes. When one is killed, its shim or
    /// the host's init starts it again within about a second, and shims hold its sockets open
    /// meanwhile: requests wait, so that the death of the only one does not break a goal.
    #[must_use]
    pub const fn is_restarted(&self) -> bool {
        match self {
            Self::Gateway(_) | Self::Voter(_) | Self::Node(_) => true,
            Self::Replica(..) | Self::Place(_) => false,
        }
    }
}

impl fmt::Display for Component {
    /// Writes `replica of web on a1`, `replica 2 of web on a1`, `gateway of a1`, `zone fra/a`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(service, host, 0) => write!(formatter, "replica of {service} on {host}"),
            Self::Replica(service, host, index) => {
                write!(formatter, "replica {} of {service} on {host}", index + 1)
            }
            Self::Gateway(host) => write!(formatter, "gateway of {host}"),
            Self::Voter(host) => write!(formatter, "voter of {host}"),
            Self::Node(host) => write!(formatter, "node of {host}"),
            Self::Place(domain) => domain.fmt(formatter),
        }
    }
}
