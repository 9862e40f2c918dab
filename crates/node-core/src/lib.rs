//! One host's control loop: wires the cores of a host into one machine.
//!
//! [`host_loop::HostLoop`] takes facts in as [`event::Event`] and gives out [`action::Action`]:
//! it is driven by the node process and by the simulator alike, so that the wiring itself is
//! tested. It does no IO and decides nothing that a core could decide: placement is `control`'s,
//! restarts are `supervisor-core`'s, the choice of an endpoint is the gateway's own.

pub mod action;
mod agent;
pub mod event;
pub mod host_loop;
pub mod process;
mod reach;
pub mod routes;
pub mod settings;
pub mod status;
