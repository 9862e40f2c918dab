//! Breaks a running system on purpose, under load, and says whether it kept its promise.

pub mod budgets;
mod client;
pub mod clock;
pub mod history;
pub mod load;
pub mod plan;
pub mod report;
pub mod status;
pub mod table;
pub mod targets;
pub mod verdict;
mod workload;
