//! The log in memory, as Raft reads it. What stands here need not be durable yet: the persist
//! queue keeps that account.

use std::cell::Cell;
use std::collections::VecDeque;

use prost::bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::log::{self, EntryKind};
use crate::members::Members;

/// A position of the log: an index and the term of the entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

impl Position {
    /// Before the first entry.
    pub(crate) const ORIGIN: Self = Self { index: 0, term: 0 };
    /// With which a group begins: its first snapshot, which says who the first voters are, so that
    /// whoever joins later learns it with the log.
    pub(crate) const GENESIS: Self = Self { index: 1, term: 1 };
}

/// The end of the log, from some position on.
pub(crate) struct LogCache {
    /// The last entry that is not held.
    before: Position,
    /// Those behind it, without a gap.
    entries: VecDeque<Entry>,
    /// Bytes of their data.
    bytes: usize,
    hard_state: HardState,
    /// Who took part at the snapshot with which this process began.
    members: ConfState,
    /// What followers get that need entries which are not held.
    snapshot: Option<Snapshot>,
    /// Whether Raft has asked for a snapshot and got none.
    snapshot_wanted: Cell<bool>,
}

impl LogCache {
    pub(crate) fn new(
        before: Position,
        entries: impl IntoIterator<Item = Entry>,
        hard_state: HardState,
        members: &Members,
    ) -> Self {
        let entries: VecDeque<Entry> = entries.into_iter().collect();
        Self {
            before,
            bytes: entries.iter().map(|entry| entry.data.len()).sum(),
            entries,
            hard_state,
            members: members.to_raft(),
            snapshot: None,
            snapshot_wanted: Cell::new(false),
        }
    }

    pub(crate) const fn before(&self) -> Position {
        self.before
    }

    pub(crate) fn last(&self) -> Position {
        self.entries
            .back()
            .map_or(self.before, |entry| Position { index: entry.index, term: entry.term })
    }

    pub(crate) fn save_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Appends entries; they replace those at the same positions and all behind them.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            while let Some(last) = self.entries.pop_back_if(|last| last.index >= first.index) {
                self.bytes -= last.data.len();
            }
            assert_eq!(self.last().index + 1, first.index, "the log must have no gap");
            self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            self.entries.extend(entries.iter().cloned());
        }
    }

    /// Forgets the whole log, because a snapshot that ends at `position` replaces it.
    pub(crate) fn reset(&mut self, position: Position) {
        self.before = position;
        self.entries.clear();
        self.bytes = 0;
        self.snapshot = None;
    }

    /// Returns whether it holds more than so many entries or bytes.
    pub(crate) fn exceeds(&self, entries: usize, bytes: usize) -> bool {
        self.entries.len() > entries || self.bytes > bytes
    }

    /// Forgets the entries up to `index`, but for a tail of at most so many entries and bytes.
    pub(crate) fn compact_to_tail(&mut self, index: u64, entries_max: u64, bytes_max: usize) {
        let Ok(place) = self.find(index) else { return };
        let mut bytes = 0;
        let tail = self.entries.iter().take(place + 1).rev().take_while(|entry| {
            bytes += entry.data.len();
            entry.index + entries_max > index && bytes <= bytes_max
        });
        let tail = tail.count() as u64;
        self.compact(index - tail);
    }

    /// Forgets the entries up to `through`.
    fn compact(&mut self, through: u64) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= through) {
            self.before = Position { index: entry.index, term: entry.term };
            self.bytes -= entry.data.len();
        }
        self.snapshot = self
            .snapshot
            .take()
            .filter(|snapshot| snapshot.get_metadata().index >= self.before.index);
    }

    /// Returns whether a snapshot has been asked for since the last call.
    pub(crate) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.replace(false)
    }

    /// Holds a snapshot for followers.
    pub(crate) fn offer_snapshot(&mut self, position: Position, members: &Members, data: Bytes) {
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = position.index;
        metadata.term = position.term;
        metadata.set_conf_state(members.to_raft());
        self.snapshot = Some(snapshot);
    }

    /// Drops the snapshot for followers.
    pub(crate) fn withdraw_snapshot(&mut self) {
        self.snapshot = None;
    }

    fn find(&self, index: u64) -> Result<usize, Error> {
        if index <= self.before.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        usize::try_from(index - self.before.index - 1)
            .ok()
            .filter(|place| *place < self.entries.len())
            .ok_or(Error::Store(StorageError::Unavailable))
    }
}

/// Turns an entry into Raft's form.
pub(crate) fn into_raft(entry: log::Entry) -> Entry {
    let log::Entry { index, term, kind, data } = entry;
    let entry_type = match kind {
        EntryKind::Command => EntryType::EntryNormal,
        EntryKind::Members => EntryType::EntryConfChangeV2,
    };
    Entry { entry_type, index, term, data, ..Entry::default() }
}

/// Takes an entry out of Raft's form.
pub(crate) fn from_raft(entry: &Entry) -> log::Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Command,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Members,
    };
    log::Entry { index: entry.index, term: entry.term, kind, data: entry.data.clone() }
}

/// Returns whether a snapshot tells `member` that it takes part: without that it would not take it.
fn tells_of(snapshot: &Snapshot, member: u64) -> bool {
    let members = snapshot.get_metadata().get_conf_state();
    [&members.voters, &members.voters_outgoing, &members.learners]
        .iter()
        .any(|list| list.contains(&member))
}

impl Storage for LogCache {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let start = self.find(low)?;
        if high > self.last().index + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut budget = max_size.into().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for entry in self.entries.range(start..).take_while(|entry| entry.index < high) {
            let size = entry.data.len() as u64;
            if size > budget && !found.is_empty() {
                break;
            }
            budget = budget.saturating_sub(size);
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.index {
            return Ok(self.before.term);
        }
        let place = self.find(index)?;
        Ok(self.entries.get(place).map_or(0, |entry| entry.term))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Gives what [`Self::offer_snapshot`] offered, if it closes the gap to the entries held.
    /// Otherwise Raft asks again, after the machine has made one.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let least = request_index.max(self.before.index);
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= least && tells_of(snapshot, to) => {
                Ok(snapshot.clone())
            }
            _ => {
                self.snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, length: usize) -> Entry {
        let data = Bytes::from(vec![1; length]);
        into_raft(log::Entry { index, term, kind: EntryKind::Command, data })
    }

    #[test]
    fn what_is_held_is_counted_and_cut_to_a_tail() {
        let log = (2..=6).map(|index| entry(index, 1, 10));
        let members = Members::default();
        let mut cache = LogCache::new(Position::GENESIS, log, HardState::default(), &members);
        let check = |cache: &LogCache, first: u64, entries: usize, bytes: usize| {
            assert_eq!(cache.before.index + 1, first);
            assert!(cache.exceeds(entries - 1, bytes) && cache.exceeds(entries, bytes - 1));
            assert!(!cache.exceeds(entries, bytes));
        };
        check(&cache, 2, 5, 50);
        // The end of another leader's log takes the place of some of it.
        cache.append(&[entry(5, 2, 7)]);
        check(&cache, 2, 4, 37);
        cache.compact_to_tail(4, 2, 100);
        check(&cache, 3, 3, 27);
        cache.compact_to_tail(5, 9, 16);
        check(&cache, 5, 1, 7);
        cache.reset(Position { index: 9, term: 3 });
        assert!(!cache.exceeds(0, 0));
    }
}
