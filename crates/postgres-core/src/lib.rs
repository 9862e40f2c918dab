//! Decides which member of a PostgreSQL cluster is its primary, and who may acknowledge what.
//!
//! Three machines and one record. The [`record::Record`] stands in the coordinator's store and is
//! changed by compare-and-set only: the epoch, the primary of that epoch, and by which set of
//! voters an election counts. The [`director`] runs where the coordinator leads and decides the
//! record's next change from what the members report. A [`member`] runs in every member's node and
//! decides what its PostgreSQL does next: promise, follow, rewind, promote, wait. A [`guard`] is
//! the parent of PostgreSQL and keeps the lease: granted by the voters' guards, in memory, so that
//! a primary lives on without any coordinator or node.
//!
//! Three fences keep two primaries apart. Promises, without clocks: a member that has promised an
//! epoch takes nothing from the primary of an earlier one, so that the earlier primary can
//! acknowledge nothing that the later one lacks. The lease: a primary without it is killed. And
//! the relay on the primary's host, which looks at the lease after it has read a reply and before
//! it passes the reply on.
//!
//! Does no IO: whoever carries the actions out has nothing to decide, as in the simulator.

pub mod director;
pub mod guard;
pub mod lease;
pub mod member;
pub mod position;
pub mod quorum;
pub mod record;
pub mod settings;
