//! A simulated world for the cores: virtual time, network, disks and clients, all from one seed.
//!
//! The cores that run here are the ones that run in production; only the shell is another one. It
//! crashes, pauses and cuts off members at the worst moments it can find, watches invariants at
//! every step, and judges what the clients saw. A seed replays its run exactly.
//!
//! What must not be found here: a clock, a thread, randomness without the seed, the order of a
//! hash map.

mod agenda;
mod agreement;
mod clients;
mod clock;
pub mod consensus_world;
pub mod database_world;
pub mod defects;
mod disk;
pub mod failure;
mod holders;
mod member;
pub mod options;
pub mod scale;
pub mod seeds;
mod service;
pub mod system_world;
pub mod transcript;
