//! Times of the protocol, and the bugs that the simulator must find in it.

use std::time::Duration;

/// Times of leases. All hosts of a system use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a grant lasts for the primary, from when it asked, on its own clock.
    pub term: Duration,
    /// How often the primary asks.
    pub renew_every: Duration,
    /// By how many thousandths the clock of a host may be wrong.
    pub drift_per_mille: u32,
    /// Longest time from the end of a lease to the end of PostgreSQL.
    pub kill_max: Duration,
}

impl LeaseTimes {
    /// Fast enough for a local network, and slow enough for a busy machine.
    pub const STANDARD: Self = Self {
        term: Duration::from_secs(1),
        renew_every: Duration::from_millis(250),
        drift_per_mille: 50,
        kill_max: Duration::from_millis(100),
    };

    /// Returns how long a voter keeps to what it granted, from when it was asked, on its own
    /// clock: until the primary, whose clock may be slow while the voter's is fast, has surely
    /// been killed (`W ≥ (1+ρ)·(T/(1−ρ)+D)`).
    #[must_use]
    pub fn voter_wait(&self) -> Duration {
        let drift = f64::from(self.drift_per_mille) / 1000.0;
        let longest = self.term.as_secs_f64() / (1.0 - drift) + self.kill_max.as_secs_f64();
        Duration::from_secs_f64((1.0 + drift) * longest)
    }
}

/// Times of the director, which only cost or save time: nothing that it does too early is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A member that was not heard for so long is missing.
    pub missing_after: Duration,
    /// How long a chosen member may take to become the primary.
    pub start_max: Duration,
    /// How long a voter may be missing, or away from its primary, before writes no longer count
    /// on it.
    pub shrink_after: Duration,
}

impl Patience {
    /// Three heartbeats that are missed, and no hurry with what costs redundancy.
    pub const STANDARD: Self = Self {
        missing_after: Duration::from_millis(750),
        start_max: Duration::from_secs(10),
        shrink_after: Duration::from_secs(5),
    };
}

/// A bug, for the simulator: each is a rule left out that a counterexample of the model checker
/// stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// PostgreSQL promotes to the number that it finds by itself.
    TimelineByItself,
    /// After a choice, elections count by those voters alone whose log was verified.
    GroupOfTheVerified,
    /// A voter is removed from elections before the primary has confirmed.
    RemovedWithoutConfirming,
    /// `needed` is raised for elections before the primary has confirmed.
    RaisedWithoutConfirming,
    /// The guard keeps to a voter that elections no longer count.
    GuardSetAfterStore,
    /// A voter's guard that was started again promises at once.
    PromisesAtOnce,
    /// A promise is not on disk before it is told.
    PromiseNotDurable,
    /// A member that was started again follows whom it followed before it promised.
    OldUpstream,
    /// A guard that reported its PostgreSQL stopped starts it again on the grants it remembers.
    StoppedDoesNotBind,
    /// Replies pass the relay without a look at the lease.
    RepliesUnchecked,
    /// The new primary serves with the grants that it has, however few.
    ServesWithoutGrants,
    /// A member in the middle of a rewind counts among those that promised.
    RewindCounts,
    /// A member whose log differs follows at once.
    FollowsUnverified,
    /// The new primary serves before its voters have all of its log.
    ServesUnverified,
    /// A primary that was started again serves before its voters have all of its log.
    RestartsUnverified,
    /// Who is chosen goes by PostgreSQL's number and place alone.
    ChoosesByPlace,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::TimelineByItself,
        Self::GroupOfTheVerified,
        Self::RemovedWithoutConfirming,
        Self::RaisedWithoutConfirming,
        Self::GuardSetAfterStore,
        Self::PromisesAtOnce,
        Self::PromiseNotDurable,
        Self::OldUpstream,
        Self::StoppedDoesNotBind,
        Self::RepliesUnchecked,
        Self::ServesWithoutGrants,
        Self::RewindCounts,
        Self::FollowsUnverified,
        Self::ServesUnverified,
        Self::RestartsUnverified,
        Self::ChoosesByPlace,
    ];
}
