//! Seeds that once failed. Each stays here for ever and is run by the tests.

/// An old failure of the consensus world.
#[derive(Debug, Clone, Copy)]
pub struct OldFailure {
    /// Its seed.
    pub seed: u64,
    /// What had been wrong.
    pub cause: &'static str,
}

/// Old failures of the consensus world.
pub const CONSENSUS: &[OldFailure] = &[];
