//! Whole coordinators in one process, over real sockets and real files.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod api;
mod client;
mod events;
mod failures;
mod leases;
mod locks;
mod members;
mod openapi;
mod support;
mod survivor;
mod trusted;
mod watch;
