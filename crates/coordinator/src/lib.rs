//! Being written.

pub mod log;
