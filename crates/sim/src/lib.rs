//! A simulated world for the cores: virtual time, network, disks and clients, all from one seed.
//!
//! The cores that run here are the ones that run in production; only the shell is another one. It
//! crashes, pauses and cuts off members at the worst moments it can find, watches invariants at
//! every step, and judges what the clients saw. A seed replays its run exactly.
//!
//! What must not be found here: a clock, a thread, randomness without the seed, the order of a
//! hash map.

pub mod consensus_world;
pub mod control_world;
pub mod failure;
pub mod seeds;
pub mod transcript;
