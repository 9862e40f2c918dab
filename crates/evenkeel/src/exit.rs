//! The exit codes of every command.

/// Failed.
pub(crate) const FAILED: u8 = 1;

/// Bad usage or a bad file; nothing was changed. The argument parser's own code is the same.
pub(crate) const BAD_INPUT: u8 = 2;

/// Done, but the goal is not met.
pub(crate) const GOAL_NOT_MET: u8 = 3;

/// No quorum.
pub(crate) const NO_QUORUM: u8 = 4;

/// There is something to change, for who asked.
pub(crate) const CHANGES: u8 = 5;
