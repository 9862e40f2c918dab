//! The gateway on real sockets, with small real upstreams and clients.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod endings;
mod failures;
mod forwarding;
mod harness;
mod process;
mod relay;
mod snapshots;
mod streams;
