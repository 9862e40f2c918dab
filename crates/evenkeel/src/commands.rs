//! One module a command.

pub(crate) mod bound;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod down;
pub(crate) mod explain;
pub(crate) mod host;
pub(crate) mod init;
mod input;
pub(crate) mod kv;
mod local;
pub(crate) mod logs;
pub(crate) mod node;
mod packages;
pub(crate) mod recover;
pub(crate) mod snapshot;
pub(crate) mod status;

/// Where a host keeps its data unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = "/var/lib/evenkeel";
