//! What a member is told when it starts.

use std::fmt;
use std::time::Duration;

/// The identity of a member, never zero, never given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "m{}", self.0)
    }
}

/// Everything a [`Replica`](crate::replica::Replica) must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This member.
    pub member: MemberId,
    /// The voters with which the group begins, this one among them; every one of them must be told
    /// the same. Who takes part later stands in the log. Nobody for a member that joins a group:
    /// it waits until a leader fills it.
    pub voters: Vec<MemberId>,
    /// How often a leader says that it lives; at least 1 ms.
    pub heartbeat: Duration,
    /// How long a follower waits at least before it calls an election; it waits at most twice as
    /// long. More than `heartbeat`; three times as much is usual on a LAN.
    pub election_min: Duration,
    /// The seed of the election timeouts. Members may share it.
    pub seed: u64,
    /// What is bounded, and by how much.
    pub limits: Limits,
    /// A bug to run with; `None` outside of the simulator.
    pub defect: Option<Defect>,
}

/// Requests under way from which on there is a crowd: more are expected at once, and it pays to
/// let them gather.
pub const CROWD_MIN: usize = 8;

/// The bounds of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes.
    pub key_max: usize,
    /// The longest value, in bytes.
    pub value_max: usize,
    /// How many proposals, and how many reads, may wait; more are `Overloaded`.
    pub pending_max: usize,
    /// How many bytes of proposals may wait; more are `Overloaded`.
    pub pending_bytes_max: usize,
    /// The bounds of the replicated state.
    pub state: StateLimits,
    /// A snapshot is saved after this many entries …
    pub compact_entries: u64,
    /// … or after this many bytes of entries, or as many as the key space holds, if that is more.
    pub compact_bytes: usize,
    /// More entries than this are not held in memory …
    pub held_entries: usize,
    /// … nor more than this many bytes of them: the applied ones go then, but for a tail.
    pub held_bytes: usize,
    /// How many applied entries are kept for followers that are a little behind …
    pub tail_entries: u64,
    /// … unless they take more than this many bytes together.
    pub tail_bytes: usize,
}

impl Limits {
    /// The bounds of a member in production.
    pub const STANDARD: Self = Self {
        key_max: 512,
        value_max: 1 << 20,
        pending_max: 4096,
        pending_bytes_max: 32 << 20,
        state: StateLimits::STANDARD,
        compact_entries: 100_000,
        compact_bytes: 8 << 20,
        held_entries: 20_000,
        held_bytes: 8 << 20,
        tail_entries: 5000,
        tail_bytes: 4 << 20,
    };
}

/// The bounds of the replicated state: every member must be told the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateLimits {
    /// How many idempotency keys are remembered.
    pub idempotency_max: usize,
    /// How many changes of the users' keys are remembered …
    pub history_changes_max: usize,
    /// … and how many bytes they may take.
    pub history_bytes_max: usize,
    /// How many leases there may be.
    pub leases_max: usize,
    /// How many keys may go with one lease: they go in one step.
    pub lease_keys_max: usize,
    /// How many comparisons and operations a transaction may have.
    pub operations_max: usize,
}

impl StateLimits {
    /// The bounds in production.
    pub const STANDARD: Self = Self {
        idempotency_max: 16_384,
        history_changes_max: 10_000,
        history_bytes_max: 8 << 20,
        leases_max: 10_000,
        lease_keys_max: 1000,
        operations_max: 128,
    };
}

/// A bug that the simulator must catch, because a real driver or machine could have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// The member votes, but does not write down for whom.
    VoteNotPersisted,
    /// A `Ready` with nothing to write is acknowledged while earlier ones are still being
    /// written: an acknowledgement overtakes the entries it speaks of.
    ReadyAcknowledgedEarly,
    /// A leader answers reads without asking a quorum whether it still leads.
    ReadWithoutQuorum,
    /// Entries are acknowledged, but not written.
    EntriesNotPersisted,
    /// A member that begins anew votes before it holds all again.
    VotesWhileRejoining,
    /// A new leader takes every lease for run out.
    LeasesNotExtended,
    /// After a restart a member goes by the first voters, whoever takes part by now.
    MembersForgotten,
    /// A snapshot names the first voters, whoever takes part by now.
    SnapshotNamesFirstVoters,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::VoteNotPersisted,
        Self::ReadyAcknowledgedEarly,
        Self::ReadWithoutQuorum,
        Self::EntriesNotPersisted,
        Self::VotesWhileRejoining,
        Self::LeasesNotExtended,
        Self::MembersForgotten,
        Self::SnapshotNamesFirstVoters,
    ];
}
