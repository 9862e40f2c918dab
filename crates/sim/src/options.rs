//! What may differ between runs of the same seed.

use std::fmt;

/// The options of a world whose bugs are `D`.
#[derive(Debug, Clone, Copy)]
pub struct Options<D> {
    /// How many hosts or members; drawn from the seed if not given.
    pub hosts: Option<usize>,
    /// A bug that all of them have.
    pub defect: Option<D>,
}

impl<D> Options<D> {
    /// Nothing differs.
    pub const NONE: Self = Self { hosts: None, defect: None };
}

impl<D> Default for Options<D> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<D: fmt::Debug> fmt::Display for Options<D> {
    /// Writes the options that are set, as arguments.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hosts) = self.hosts {
            write!(formatter, " --hosts {hosts}")?;
        }
        self.defect.as_ref().map_or(Ok(()), |defect| write!(formatter, " --defect {defect:?}"))
    }
}
