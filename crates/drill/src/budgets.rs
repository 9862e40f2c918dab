//! What a promise is worth in numbers: how much clients may feel of a fault.

use std::time::Duration;

use crate::targets::Role;

/// The limits of one experiment. No acknowledged write may ever be lost: that has no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Failed and doubtful requests; any number when absent.
    pub failed_max: Option<u64>,
    /// Longest gap of any one client.
    pub gap_max: Duration,
    /// From the fault until clients are served steadily again.
    pub recover_max: Duration,
    /// From the end of the fault until full redundancy.
    pub full_redundancy_max: Duration,
    /// A gap above this already before the fault is this machine's noise, which excuses times above
    /// the standard limits. `None`: nothing does, since the limits were given by the user, who may
    /// well have chosen one below what is normal.
    pub noise_max: Option<Duration>,
}

/// Limits to use in place of the standard ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of [`Budget::gap_max`].
    pub gap_max: Option<Duration>,
}

impl Budget {
    /// Returns the limits for a fault on `role`.
    ///
    /// A killed replica or node is no failure for anyone: gateways try another replica. A gateway
    /// takes its clients' connections with it, a leader needs an election, a place needs both and
    /// the time to see that it is gone.
    #[must_use]
    pub fn of(role: Role, overrides: Overrides) -> Self {
        let (failed_max, gap) = match role {
            Role::Replica | Role::Node | Role::Shim | Role::Follower => (Some(0), 1),
            Role::Gateway => (None, 1),
            Role::Leader | Role::Host => (None, 2),
            Role::Zone | Role::Region | Role::Link => (None, 3),
        };
        let standard = Duration::from_secs(gap);
        let gap_max = overrides.gap_max.unwrap_or(standard);
        Self {
            failed_max,
            gap_max,
            recover_max: gap_max + Duration::from_secs(1),
            full_redundancy_max: Duration::from_secs(20),
            noise_max: overrides.gap_max.is_none().then_some(standard),
        }
    }
}
