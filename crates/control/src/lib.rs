//! Decides which hosts count as up and where every replica runs.
//!
//! [`controller`] is the leader's machine. It keeps the leases of [`hosts`] in memory, lets
//! [`planner`] derive the next numbered [`plan`] from everything observed, and asks for it to be
//! stored. [`placement`] is the rule of spreading, [`redundancy`] says what is still missing.
//! Does no IO: how reports travel and where plans are stored is decided elsewhere.

pub mod controller;
pub mod declaration;
pub mod hosts;
pub mod members;
pub mod placement;
pub mod plan;
pub mod planner;
pub mod preview;
pub mod redundancy;
pub mod report;
mod rollout;
mod tally;
