//! Judges what clients saw: a history of operations goes in, a verdict comes out.
//!
//! Decides whether a history of a key-value store is linearizable, whether acknowledged writes
//! survived, and how long clients waited. Reads no file and knows no clock: the simulator and the
//! drill both bring their histories here, so both are judged by the same rules.

pub mod history;
pub mod linearizability;
pub mod measure;
pub mod revisions;
pub mod search;
pub mod store_order;
pub mod survival;
