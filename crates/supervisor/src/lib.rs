//! Keeps processes: the shim that holds one process, and the node's side that holds the shims.
//!
//! ```text
//!   node ── shims::Shims ── control.sock ──▶ shim::run (a process of its own) ──▶ the child
//! ```
//!
//! A shim outlives the node that started it: the next node adopts it with its child, the child's
//! exit status, its log and its listening sockets. When to start and stop a process is decided in
//! `evenkeel-supervisor-core`; nothing here restarts anything by itself.

pub mod folder;
pub mod process;
pub mod protocol;
mod raw;
pub mod shim;
pub mod shims;
pub mod spec;
