//! The endpoints of one upstream, ordered by distance from this host.

use std::time::Duration;

use crate::balancer::EndpointKey;
use crate::table::{Endpoint, RouteTable};

/// How far an endpoint is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// On this host.
    Host,
    /// In this host's zone.
    Zone,
    /// In this host's region.
    Region,
    /// In another region. Equally far regions are one tier.
    Remote {
        /// Round-trip time to the region.
        round_trip: Duration,
    },
}

impl Tier {
    /// Returns how far `endpoint` is from the host of `table`.
    #[must_use]
    pub fn of(endpoint: &Endpoint, table: &RouteTable) -> Self {
        if endpoint.region != table.region {
            let distance = table.distances.get(&endpoint.region);
            return Self::Remote { round_trip: distance.copied().unwrap_or(Duration::MAX) };
        }
        if endpoint.zone != table.zone {
            Self::Region
        } else if endpoint.host == table.host {
            Self::Host
        } else {
            Self::Zone
        }
    }

    /// Returns the round-trip time to be expected on top of what happens within a region; zero
    /// where it is unknown.
    #[must_use]
    pub const fn round_trip(self) -> Duration {
        match self {
            Self::Remote { round_trip: Duration::MAX } | Self::Host | Self::Zone | Self::Region => {
                Duration::ZERO
            }
            Self::Remote { round_trip } => round_trip,
        }
    }

    /// Returns the word used in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Remote { .. } => "remote",
        }
    }
}

/// The endpoints of one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// Sorted by tier, then by key.
    members: Vec<(Tier, EndpointKey)>,
}

impl Pool {
    pub(crate) fn new(mut members: Vec<(Tier, EndpointKey)>) -> Self {
        members.sort_unstable();
        Self { members }
    }

    pub(crate) const fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = EndpointKey> {
        self.members.iter().map(|(_, key)| *key)
    }

    /// Returns the members tier by tier, the nearest first.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = &[(Tier, EndpointKey)]> {
        self.members.chunk_by(|left, right| left.0 == right.0)
    }
}
