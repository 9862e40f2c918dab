//! Those who watch the users' keys, at any member: they must be told every change, once, in order.

use std::collections::BTreeMap;

use evenkeel_consensus::answer::{Answer, KeyChange, Version};
use evenkeel_consensus::command::{Query, Space};
use evenkeel_consensus::keys::KeySpace;

/// Someone who watches, and what it has been told so far.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    since: u64,
    keys: BTreeMap<String, Version>,
    /// How many changes it was told.
    pub(super) told: usize,
}

impl Watcher {
    /// Asks a member for at most `limit` changes, unless a revision has more.
    pub(super) fn ask(&mut self, state: &KeySpace, limit: usize) -> Result<(), String> {
        let query = Query::Changes { prefix: String::new(), after: self.since, limit };
        let answer = state.query(&query);
        if let Answer::Changes { changes, through } = answer {
            return self.take(changes, through);
        }
        // The member is behind what another one has told.
        if let Answer::Future { .. } = answer {
            return Ok(());
        }
        if let Answer::Compacted { oldest } = answer
            && oldest > self.since
        {
            self.read_all(state);
            return Ok(());
        }
        Err(format!("a watcher behind {} was answered {answer:?}", self.since))
    }

    /// Begins again from all the keys, as one must whose place was forgotten.
    fn read_all(&mut self, state: &KeySpace) {
        let keys = state.prefix(Space::User, "");
        self.keys = keys.map(|(key, version)| (key.to_owned(), version.clone())).collect();
        self.since = state.revision();
    }

    fn take(&mut self, changes: Vec<KeyChange>, through: u64) -> Result<(), String> {
        let mut last = self.since;
        for KeyChange { revision, key, before, after } in changes {
            if revision < last || revision == self.since || revision > through {
                return Err(format!("a watcher was told {revision} between {last} and {through}"));
            }
            last = revision;
            self.told += 1;
            if self.keys.get(&key) != before.as_ref() {
                return Err(format!("a watcher missed a change of `{key}` before {revision}"));
            }
            match after {
                Some(version) => self.keys.insert(key, version),
                None => self.keys.remove(&key),
            };
        }
        self.since = through.max(self.since);
        Ok(())
    }

    /// Checks, once it has been told everything, that it knows what the member holds.
    pub(super) fn check(&mut self, state: &KeySpace) -> Result<(), String> {
        while self.since < state.revision() {
            let before = self.since;
            self.ask(state, 100)?;
            if self.since == before {
                return Err(format!("a watcher is told nothing behind {before}"));
            }
        }
        let held: BTreeMap<String, Version> = state
            .prefix(Space::User, "")
            .map(|(key, version)| (key.to_owned(), version.clone()))
            .collect();
        if held != self.keys {
            return Err("a watcher does not know what the store holds".to_owned());
        }
        Ok(())
    }
}
