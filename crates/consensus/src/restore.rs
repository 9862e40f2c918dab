//! What a member remembers when it starts, put together from what its disk holds.

use thiserror::Error;

use crate::log::{DecodeError, Entry, Record, Snapshot, Vote};

/// What was on disk. A new member starts with `Restored::default()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The log: without gaps, and reaching back to the snapshot, or before it, if there is one.
    pub entries: Vec<Entry>,
    /// Whether this member had a log, lost it, and has not held all again since, see
    /// [`Action::Rejoined`](crate::replica::Action::Rejoined). It then neither votes nor calls an
    /// election until a leader that a majority of the others follows has filled it.
    pub rejoining: bool,
}

/// Why a member cannot start from what is on its disk, or with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(&'static str),
    /// The log misses a position.
    #[error("the log jumps from entry {last} to entry {next}")]
    Gap {
        /// The last entry before the gap.
        last: u64,
        /// The first one behind it.
        next: u64,
    },
    /// The log ends before something that this member knew to be committed.
    #[error("entries up to {commit} were committed, but the log ends with entry {last}")]
    Lost {
        /// The highest index known to be committed.
        commit: u64,
        /// The last entry that is left.
        last: u64,
    },
    /// The snapshot does not hold a key space.
    #[error("the snapshot at entry {index} cannot be read")]
    Snapshot {
        /// The last entry in it.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

impl Restored {
    /// Takes the next record of the log, in the order in which they were written.
    ///
    /// # Errors
    ///
    /// If the record leaves a gap in the log.
    pub fn replay(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Reset { .. } => self.entries.clear(),
            Record::Entry(entry) => self.replay_entry(entry)?,
        }
        Ok(())
    }

    fn replay_entry(&mut self, entry: Entry) -> Result<(), RestoreError> {
        while self.entries.last().is_some_and(|last| last.index >= entry.index) {
            self.entries.pop();
        }
        match self.entries.last() {
            Some(last) if last.index + 1 != entry.index => {
                Err(RestoreError::Gap { last: last.index, next: entry.index })
            }
            _ => {
                self.entries.push(entry);
                Ok(())
            }
        }
    }
}
