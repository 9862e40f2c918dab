//! One host's process: carries out what node-core decides, and tells it what happens.
//!
//! Decides nothing itself. Every outside thing is behind a shell of its own: the coordinator, the
//! shims, the gateway's snapshot; what is left here is the event loop that joins them, the data
//! folder, probes, checks of local replicas and the status that people read.

mod act;
pub mod api;
pub mod change;
pub mod check;
pub mod client;
pub mod clock;
pub mod data;
pub mod events;
pub mod host;
pub mod joining;
mod listener;
pub mod membership;
pub mod metrics;
pub mod plan_file;
pub mod probe;
pub mod protection;
pub mod recover;
pub mod round_trips;
pub mod start;
pub mod status;
pub mod store;
pub mod survival;
pub mod wire;
mod writer;
