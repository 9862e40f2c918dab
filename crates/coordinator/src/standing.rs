//! Who takes part, as a member tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::HostName;

/// Who takes part in the coordinator, as far as one member has applied its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those whose majority decides.
    pub voters: Vec<HostName>,
    /// While a change is under way, the voters before it: a majority of them is needed too.
    pub outgoing: Vec<HostName>,
    /// Those that only get the log.
    pub learners: Vec<HostName>,
    /// How the leader finds the others; empty on any other member.
    pub followers: BTreeMap<HostName, Follower>,
}

/// How a leader finds another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Since when it was not heard; `None` for one that was not heard since this leader was elected.
    pub silence: Option<Duration>,
    /// Whether it holds about what the leader holds, so that it may be promoted.
    pub is_level: bool,
}
