//! Seeds that once failed. Each stays here for ever and is run by the tests.
//!
//! A seed replays its run only as long as the world draws the same things in the same order, so
//! each cause also has a test of its own where it was mended.

use crate::{consensus_world, system_world};

/// An old failure of a world.
#[derive(Debug, Clone, Copy)]
pub struct OldFailure {
    /// Its seed.
    pub seed: u64,
    /// How many members it had, if that was not drawn from the seed.
    pub hosts: Option<usize>,
    /// What had been wrong.
    pub cause: &'static str,
}

impl OldFailure {
    /// Returns the options to run it with in the consensus world.
    #[must_use]
    pub const fn consensus_options(&self) -> consensus_world::Options {
        consensus_world::Options { hosts: self.hosts, defect: None }
    }

    /// Returns the options to run it with in the system world.
    #[must_use]
    pub const fn system_options(&self) -> system_world::Options {
        system_world::Options { hosts: self.hosts, defect: None }
    }
}

/// Old failures of the consensus world.
pub const CONSENSUS: &[OldFailure] = &[OldFailure {
    seed: 1183,
    hosts: None,
    cause: "a crash between a snapshot from the leader and the reset of the log left the old log on \
            disk, and what was written behind it could not be read back",
}];

/// Old failures of the system world.
pub const SYSTEM: &[OldFailure] = &[
    OldFailure {
        seed: 246,
        hosts: None,
        cause: "a leader that was paused while it listened for the first time planned without having \
                heard anybody",
    },
    OldFailure {
        seed: 2836,
        hosts: None,
        cause: "a connection that a lossy network had delayed was blamed on the gateway, because the \
                network had healed when the request failed",
    },
];
