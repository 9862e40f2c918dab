//! Questions about the past: what has changed since a revision, and how keys stood at one.
//!
//! The past is the present with the changes since taken back, the latest first.

use super::{KeySpace, history, page};
use crate::answer::{Answer, KeyChange};
use crate::command::Space;

/// Bytes of changes in one answer, unless a single revision has more.
const CHANGES_BYTES_MAX: usize = 1 << 20;

impl KeySpace {
    /// Refuses a revision that is not known, or not known any more.
    fn check_revision(&self, revision: u64) -> Result<(), Answer> {
        if revision > self.revision {
            return Err(Answer::Future { store_revision: self.revision });
        }
        if revision < self.compacted() {
            return Err(Answer::Compacted { oldest: self.compacted() });
        }
        Ok(())
    }

    /// Returns the changes behind `after` of keys that begin with `prefix`.
    pub(super) fn changes(&self, prefix: &str, after: u64, limit: usize) -> Answer {
        if let Err(refusal) = self.check_revision(after) {
            return refusal;
        }
        let mut changes: Vec<KeyChange> = Vec::new();
        let mut bytes = 0;
        for change in self.history.after(after).filter(|change| change.key.starts_with(prefix)) {
            let last = changes.last().map(|last| last.revision);
            let full = changes.len() >= limit || bytes >= CHANGES_BYTES_MAX;
            if let Some(last) = last.filter(|last| full && *last != change.revision) {
                return Answer::Changes { changes, through: last };
            }
            bytes += history::size(change);
            changes.push(change.clone());
        }
        Answer::Changes { changes, through: self.revision }
    }

    pub(super) fn get_at(&self, space: Space, key: &str, at: Option<u64>) -> Answer {
        let mut found = self.get(space, key);
        if let Some(at) = at {
            if let Err(refusal) = self.check_revision(at) {
                return refusal;
            }
            let first_since = self.history.after(at).find(|change| change.key == key);
            if let Some(change) = first_since.filter(|_| space == Space::User) {
                found = change.before.as_ref();
            }
        }
        let store_revision = at.unwrap_or(self.revision);
        match found {
            Some(version) => Answer::Value { version: version.clone(), store_revision },
            None => Answer::Absent { store_revision },
        }
    }

    pub(super) fn range_at(
        &self,
        space: Space,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: u64,
    ) -> Answer {
        if let Err(refusal) = self.check_revision(at) {
            return refusal;
        }
        let mut past = self.keys(space).clone();
        let since = self.history.after(at).rev();
        for change in since.filter(|change| space == Space::User && change.key.starts_with(prefix))
        {
            match &change.before {
                Some(before) => past.insert_mut(change.key.clone(), before.clone()),
                None => _ = past.remove_mut(&change.key),
            }
        }
        page(&past, prefix, after, limit, at)
    }
}
