//! Decides when a process is started, checked, stopped and started again.
//!
//! Pure: no clock, no IO, no process. `evenkeel-supervisor` carries the actions out; the node's
//! control loop keeps one [`supervision::Supervision`] per process and passes the answers on.
//! Where a process runs, and how many of them, is decided elsewhere.

pub mod backoff;
pub mod gauge;
pub mod status;
pub mod supervision;
