//! How every process of Evenkeel speaks of itself: log lines and metrics. Decides nothing.

pub mod logs;
pub mod metrics;
