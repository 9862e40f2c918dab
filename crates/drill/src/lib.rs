//! Breaks a running system on purpose, under load, and says whether it kept its promise.

pub mod bench;
pub mod budgets;
mod client;
pub mod clock;
mod course;
pub mod demo;
pub mod experiment;
mod hands;
pub mod history;
pub mod load;
mod machine;
mod network;
pub mod plan;
mod readback;
mod relay;
pub mod report;
pub mod requirements;
pub mod screen;
pub mod status;
mod strike;
pub mod table;
pub mod targets;
pub mod verdict;
mod watch;
mod workload;
