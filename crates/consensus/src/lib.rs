//! The replicated brain: Raft and the key space it keeps, as one machine per member.
//!
//! Decides who leads, in which order changes are applied, and what a client is answered. Does no
//! IO and reads no clock: the shell delivers messages, writes what [`replica::Action::Persist`]
//! says, and calls back. The same machine runs in production and in the simulator.
//!
//! Raft itself is the `raft` crate, which no public type shows: messages, log records and
//! snapshots have formats of this crate (a format byte, then protobuf), so that the library can be
//! replaced, and so that it never parses foreign bytes.
//!
//! What holds here, whatever the shell, the network and the other members do:
//! - A vote or an entry is durable before the message that promises it leaves.
//! - A proposal is answered once it is applied; `NotLeader` and `Overloaded` mean surely not
//!   applied; everything else is `Unknown`.
//! - A read sees every change that was answered before the read was asked.
//! - No bytes in the log, whatever they hold, can stop a member from applying the next entry.

pub mod answer;
mod cache;
pub mod command;
mod idempotency;
pub mod keys;
pub mod lineage;
pub mod locks;
pub mod log;
pub mod members;
mod pending;
pub mod replica;
pub mod restore;
pub mod settings;
mod timer;
pub mod wire;
