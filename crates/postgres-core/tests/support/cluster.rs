//! Two members, sets of them, and times.

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::quorum::{Member, SyncSet};

pub(crate) const B: Member = Member(1);
pub(crate) const C: Member = Member(2);

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

pub(crate) fn set(needed: usize, voters: &[Member]) -> SyncSet {
    SyncSet { needed, voters: voters.iter().copied().collect() }
}
