//! Decides on paper what a system survives.
//!
//! A system and a placement become a graph of what fails with what ([`system`]); a cascade on it
//! tells which single components take the system down. `check`, a running leader and the drill's
//! predictions all ask this one graph. Reads no file, asks no host.
//!
//! [`graph`] and [`cascade`] know nothing of Evenkeel and serve graphs of any origin.

pub mod assessment;
pub mod cascade;
pub mod component;
mod design;
pub mod finding;
pub mod graph;
pub mod prediction;
mod present;
pub mod system;
