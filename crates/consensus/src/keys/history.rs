//! What has become of the users' keys, for those who watch them and for reads of the past.
//!
//! Bounded by the number of changes and by their bytes, always at the end of a revision: whoever
//! has seen a revision has seen all of it.

use std::collections::VecDeque;

use crate::answer::{KeyChange, Version};
use crate::settings::StateLimits;

/// The latest changes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    changes: VecDeque<KeyChange>,
    bytes: usize,
    compacted: u64,
}

/// Returns about how many bytes a change takes.
pub(super) fn size(change: &KeyChange) -> usize {
    let value = |version: &Option<Version>| version.as_ref().map_or(0, |it| it.value.len());
    std::mem::size_of::<KeyChange>()
        + change.key.len()
        + value(&change.before)
        + value(&change.after)
}

impl History {
    pub(super) const fn new() -> Self {
        Self { changes: VecDeque::new(), bytes: 0, compacted: 0 }
    }

    pub(super) fn restored(compacted: u64, changes: Vec<KeyChange>) -> Self {
        let bytes = changes.iter().map(size).sum();
        Self { changes: changes.into(), bytes, compacted }
    }

    /// Returns the last revision of which nothing is known.
    pub(super) const fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &KeyChange> {
        self.changes.iter()
    }

    /// Returns the changes after a revision, oldest first.
    pub(super) fn after(&self, revision: u64) -> impl DoubleEndedIterator<Item = &KeyChange> {
        let first = self.changes.partition_point(|change| change.revision <= revision);
        self.changes.range(first..)
    }

    pub(super) fn push(&mut self, change: KeyChange) {
        self.bytes += size(&change);
        self.changes.push_back(change);
    }

    /// Forgets the oldest revisions until what is left is within the limits.
    pub(super) fn bound(&mut self, limits: &StateLimits) {
        while self.changes.len() > limits.history_changes_max
            || self.bytes > limits.history_bytes_max
        {
            let Some(oldest) = self.changes.front() else { return };
            self.forget_through(oldest.revision);
        }
    }

    pub(super) fn forget_through(&mut self, revision: u64) {
        while let Some(change) = self.changes.pop_front_if(|change| change.revision <= revision) {
            self.bytes -= size(&change);
        }
        self.compacted = self.compacted.max(revision);
    }
}
