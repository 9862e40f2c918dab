//! The balancer through its public API: transcripts that a person can read, and properties.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod definitions;
mod golden;
mod key_value;
mod properties;
mod world;
