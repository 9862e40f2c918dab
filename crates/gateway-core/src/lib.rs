//! Decides where a gateway sends each request: routes, endpoint health, choice, retries.
//!
//! Does no IO and has no clock: `evenkeel-gateway` listens, forwards, asks the health questions and
//! reports back. What is decided here needs no coordinator: a [`table::RouteTable`] from disk and
//! the gateway's own observations are enough.

pub mod balancer;
pub mod choice;
pub mod health;
pub mod pace;
pub mod policy;
pub mod pool;
pub mod retry;
pub mod route;
pub mod table;
