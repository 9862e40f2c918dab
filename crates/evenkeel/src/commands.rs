//! One module a command.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod down;
pub(crate) mod explain;
pub(crate) mod init;
mod local;
pub(crate) mod node;
pub(crate) mod status;

/// Where a host keeps its data unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = "/var/lib/evenkeel";

/// Exit code for a bad file or bad usage.
const BAD_INPUT: u8 = 2;

/// Exit code for done, but the goal is not met.
const GOAL_NOT_MET: u8 = 3;

/// Exit code for no quorum.
const NO_QUORUM: u8 = 4;
