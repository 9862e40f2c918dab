//! The words every other crate speaks: places, services, names, time and faults.
//!
//! Holds no behaviour beyond arithmetic on these types: what to do about them is decided in the
//! cores. The types are not serialised; files, wire and web each convert to types of their own.

pub mod dealing;
pub mod fault;
pub mod instance;
pub mod name;
pub mod patience;
pub mod place;
pub mod random;
pub mod service;
pub mod system;
pub mod time;
pub mod voting;
