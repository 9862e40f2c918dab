//! What is written to disk, and its format: votes, entries and snapshots.
//!
//! The shell frames and checks the bytes (length, checksum) and keeps their order; what they mean
//! is known here alone. A format byte comes first, protobuf after it.

use prost::bytes::Bytes;
use thiserror::Error;

use crate::keys::KeySpace;
use crate::members::Members;
use crate::settings::MemberId;

/// What a member must remember about elections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The latest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term.
    pub member: Option<MemberId>,
    /// The highest index it knows to be committed.
    pub commit: u64,
}

/// One position of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position, from 1 on.
    pub index: u64,
    /// The term of the leader that appended it.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// An encoded command; nothing in the entry that opens a leader's term. Of a change of members,
    /// what Raft calls `ConfChangeV2`; nothing in the one that ends a joint change.
    pub data: Bytes,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A change of the keys, or nothing.
    #[default]
    Command,
    /// A change of who takes part, see [`crate::members`].
    Members,
}

/// The replicated state at one position of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who took part at that time.
    pub members: Members,
    /// The encoded key space.
    pub data: Bytes,
}

/// A state whose snapshot is still to be encoded, which takes long when it is large: not on the
/// thread that must answer heartbeats. Cheap to make and to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who took part at that time.
    pub members: Members,
    /// The key space.
    pub keys: KeySpace,
}

impl State {
    /// Encodes the snapshot.
    #[must_use]
    pub fn snapshot(self) -> Snapshot {
        let Self { index, term, members, keys } = self;
        Snapshot { index, term, members, data: keys.encode().into() }
    }
}

/// One record of the log on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The whole log before this record is void: a snapshot that ends with this entry replaced it.
    Reset {
        /// The last entry in the snapshot.
        index: u64,
        /// That entry's term.
        term: u64,
    },
    /// An entry. It voids every earlier record of an entry at its position or behind it.
    Entry(Entry),
    /// The vote from here on.
    Vote(Vote),
}

/// Why bytes are no record or no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Another version wrote it.
    #[error("format {found} is not known to this version, which reads format {known}")]
    Format {
        /// The format byte that was found.
        found: u8,
        /// The format byte that is known.
        known: u8,
    },
    /// It does not parse, or misses a part.
    #[error("the bytes are no {0}")]
    Malformed(&'static str),
}
