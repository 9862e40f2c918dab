//! What a member remembers when it starts, put together from what its disk holds.

use thiserror::Error;

use crate::cache::Position;
use crate::keys::KeySpace;
use crate::log::{DecodeError, Entry, Record, Snapshot, Vote};
use crate::settings::StateLimits;

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

/// Returns the key space of the snapshot, and where it ends.
pub(crate) fn restore_keys(
    snapshot: Option<&Snapshot>,
    limits: StateLimits,
) -> Result<(KeySpace, Position), RestoreError> {
    let Some(&Snapshot { index, term, ref data, .. }) = snapshot else {
        return Ok((KeySpace::new(limits), Position::ORIGIN));
    };
    let keys = KeySpace::decode(data, limits)
        .map_err(|source| RestoreError::Snapshot { index, source })?;
    Ok((keys, Position { index, term }))
}

/// A log as it continues a snapshot.
pub(crate) struct Joined {
    /// The position before its first entry.
    pub(crate) before: Position,
    pub(crate) entries: Vec<Entry>,
    /// Whether the log on disk is another one, and void.
    pub(crate) void: bool,
}

/// Joins a log to the snapshot that ends at `base`.
pub(crate) fn join_log(base: Position, mut entries: Vec<Entry>) -> Result<Joined, RestoreError> {
    for pair in entries.windows(2) {
        if pair[0].index + 1 != pair[1].index {
            return Err(RestoreError::Gap { last: pair[0].index, next: pair[1].index });
        }
    }
    let Some(first) = entries.first() else {
        return Ok(Joined { before: base, entries, void: false });
    };
    let first = Position { index: first.index, term: first.term };
    if first.index > base.index + 1 {
        return Err(RestoreError::Gap { last: base.index, next: first.index });
    }
    if first.index == base.index + 1 {
        return Ok(Joined { before: base, entries, void: false });
    }
    // The log reaches back behind the snapshot. It is the snapshot's own log if it holds the
    // snapshot's last entry; otherwise the snapshot came from a leader, and the crash came before
    // the log was reset. Such a log ends too early or was never committed: the snapshot stands.
    let own = entries.iter().any(|entry| (entry.index, entry.term) == (base.index, base.term));
    if own {
        let rest = entries.split_off(1);
        Ok(Joined { before: first, entries: rest, void: false })
    } else {
        Ok(Joined { before: base, entries: Vec::new(), void: true })
    }
}
