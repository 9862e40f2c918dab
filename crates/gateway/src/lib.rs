//! The gateway process: listens, forwards, checks health, and serves its metrics.
//!
//! Decides nothing: where a request goes is the matter of `evenkeel-gateway-core`. Needs no node
//! and no coordinator: a route table on disk is enough, and it is read again when it changes.
//! One thread, so all state is in cells, and a panic costs the connection it happened in.

mod access_log;
mod admin;
mod body;
mod checks;
mod connections;
mod exchange;
mod format;
mod head;
mod inherited;
mod listeners;
mod live;
mod metrics;
mod problem;
mod process;
mod protection;
mod proxy;
mod record;
mod relay;
mod sessions;
mod shared;
pub mod snapshot;

pub use format::FormatError;
pub use process::{Options, ServeError, run, serve};
