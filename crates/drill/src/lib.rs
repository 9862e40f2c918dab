//! Breaks a running system on purpose, under load, and says whether it kept its promise.

mod client;
pub mod clock;
pub mod history;
pub mod load;
mod workload;
