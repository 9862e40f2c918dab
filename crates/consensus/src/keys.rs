//! The replicated key space: what the log comes to when it is applied.

use std::collections::BTreeMap;
use std::ops::Bound;

use prost::bytes::Bytes;

use crate::command::{Answer, Command, Expect, KeyEntry, Query, Space};
use crate::idempotency::{Fingerprint, Memory, Outcome};
use crate::log::DecodeError;
use crate::wire::state;

/// All keys with their values, a revision that counts the changes, and the memory of idempotency
/// keys. A pure function of the entries applied: the same at every member at the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    revision: u64,
    user: BTreeMap<String, Stored>,
    system: BTreeMap<String, Stored>,
    memory: Memory,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    value: Bytes,
    revision: u64,
}

impl KeySpace {
    /// Starts empty, at revision 0, remembering at most `idempotency_max` idempotency keys.
    #[must_use]
    pub const fn new(idempotency_max: usize) -> Self {
        Self {
            revision: 0,
            user: BTreeMap::new(),
            system: BTreeMap::new(),
            memory: Memory::new(idempotency_max),
            bytes: 0,
        }
    }

    /// Returns how many changes were applied so far. A refused change is none.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the length of all keys and values, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a key's value and the revision of its last change.
    #[must_use]
    pub fn get(&self, space: Space, key: &str) -> Option<(&Bytes, u64)> {
        self.keys(space).get(key).map(|stored| (&stored.value, stored.revision))
    }

    /// Returns every key that begins with `prefix`, its value and its revision, in order.
    pub fn prefix<'a>(
        &'a self,
        space: Space,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Bytes, u64)> {
        self.keys(space)
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| (key.as_str(), &stored.value, stored.revision))
    }

    /// Answers a question from what is applied.
    #[must_use]
    pub fn query(&self, query: &Query) -> Answer {
        let store_revision = self.revision;
        match query {
            Query::Get { space, key } => match self.get(*space, key) {
                Some((value, revision)) => {
                    Answer::Value { value: value.clone(), revision, store_revision }
                }
                None => Answer::Absent { store_revision },
            },
            Query::Prefix { space, prefix, limit } => {
                let mut found = self.prefix(*space, prefix);
                let entries = found
                    .by_ref()
                    .take(*limit)
                    .map(|(key, value, revision)| KeyEntry {
                        key: key.to_owned(),
                        value: value.clone(),
                        revision,
                    })
                    .collect();
                Answer::Entries { entries, more: found.next().is_some(), store_revision }
            }
        }
    }

    /// Applies a command.
    ///
    /// The outcome under an idempotency key is final, also when it was a refusal: a late copy of
    /// a request that was refused must not be applied after all.
    pub fn apply(&mut self, command: Command) -> Answer {
        let Some(name) = command.idempotency().map(str::to_owned) else {
            return self.change(command).answer(false);
        };
        let fingerprint = Fingerprint::of(&command);
        match self.memory.find(&name) {
            Some((first, outcome)) if first == fingerprint => outcome.answer(true),
            Some(_) => Answer::IdempotencyMismatch,
            None => {
                let outcome = self.change(command);
                self.memory.insert(name, fingerprint, outcome);
                outcome.answer(false)
            }
        }
    }

    fn change(&mut self, command: Command) -> Outcome {
        let (space, expect) = match &command {
            Command::Put { space, expect, .. } | Command::Delete { space, expect, .. } => {
                (*space, *expect)
            }
        };
        let current = self.get(space, command.key()).map(|(_, revision)| revision);
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Present => current.is_some(),
            Expect::Revision(revision) => current == Some(revision),
        };
        if !holds {
            return Outcome::Conflict { current };
        }
        match command {
            Command::Put { key, value, .. } => {
                self.revision += 1;
                self.store(space, key, &value, self.revision);
                Outcome::Written { revision: self.revision, created: current.is_none() }
            }
            Command::Delete { key, .. } if current.is_some() => {
                self.revision += 1;
                self.remove(space, &key);
                Outcome::Deleted { revision: self.revision }
            }
            Command::Delete { .. } => Outcome::NotFound,
        }
    }

    /// Stores a copy of the value: the original may be a part of a much larger message.
    fn store(&mut self, space: Space, key: String, value: &Bytes, revision: u64) {
        self.remove(space, &key);
        self.bytes += key.len() + value.len();
        let value = Bytes::copy_from_slice(value);
        self.keys_mut(space).insert(key, Stored { value, revision });
    }

    fn remove(&mut self, space: Space, key: &str) {
        if let Some(stored) = self.keys_mut(space).remove(key) {
            self.bytes -= key.len() + stored.value.len();
        }
    }

    const fn keys(&self, space: Space) -> &BTreeMap<String, Stored> {
        match space {
            Space::User => &self.user,
            Space::System => &self.system,
        }
    }

    const fn keys_mut(&mut self, space: Space) -> &mut BTreeMap<String, Stored> {
        match space {
            Space::User => &mut self.user,
            Space::System => &mut self.system,
        }
    }

    /// Encodes all of it for a snapshot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = state::Encoder::new(self.revision);
        for space in [Space::User, Space::System] {
            for (key, value, revision) in self.prefix(space, "") {
                builder.push_key(space, key, value, revision);
            }
        }
        for (name, fingerprint, outcome) in self.memory.iter() {
            builder.push_outcome(name, fingerprint, outcome);
        }
        builder.finish()
    }

    /// Decodes what [`Self::encode`] made.
    ///
    /// # Errors
    ///
    /// If the bytes are none, or of another format.
    pub fn decode(bytes: &Bytes, idempotency_max: usize) -> Result<Self, DecodeError> {
        let decoded = state::decode_state(bytes)?;
        let mut keys = Self::new(idempotency_max);
        keys.revision = decoded.revision;
        for (space, entry) in decoded.keys {
            keys.store(space, entry.key, &entry.value, entry.revision);
        }
        for (name, fingerprint, outcome) in decoded.outcomes {
            keys.memory.insert(name, fingerprint, outcome);
        }
        Ok(keys)
    }
}
