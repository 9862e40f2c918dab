//! The replicated key space: what the log comes to when it is applied.

mod history;
mod leases;
mod past;
mod transaction;

use std::ops::Bound;

use prost::bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::answer::{Answer, KeyChange, KeyEntry, Refused, Version};
use crate::command::{Change, Command, Expect, LeaseId, Operation, Query, Space};
use crate::idempotency::{Fingerprint, Memory, Outcome};
use crate::lineage::Lineage;
use crate::log::DecodeError;
use crate::settings::StateLimits;
use crate::wire::state;
use history::History;
use leases::Leases;

/// All keys with their values, a revision that counts the changes, the history of the users' keys,
/// the leases, and the memory of idempotency keys. A pure function of the entries applied: the same
/// at every member at the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    revision: u64,
    user: Keys,
    system: Keys,
    history: History,
    leases: Leases,
    memory: Memory,
    bytes: usize,
    limits: StateLimits,
    lineage: Lineage,
}

/// How many revisions and leases a new lineage leaves out: more than a busy store gives in the time
/// that a lone survivor may have missed.
const REVISIONS_SKIPPED: u64 = 1_000_000_000;
const LEASES_SKIPPED: u64 = 1_000_000_000;

/// What a key takes beside its own bytes and those of its value: places in the tree, revisions.
const KEY_OVERHEAD: usize = 256;

fn size(key: &str, value: &Bytes) -> usize {
    KEY_OVERHEAD + key.len() + value.len()
}

/// A copy costs nothing and shares what it can: a snapshot is encoded from one while changes go on.
type Keys = RedBlackTreeMapSync<String, Version>;

impl KeySpace {
    /// Starts empty, at revision 0.
    #[must_use]
    pub fn new(limits: StateLimits) -> Self {
        Self {
            revision: 0,
            user: Keys::new_sync(),
            system: Keys::new_sync(),
            history: History::new(),
            leases: Leases::new(),
            memory: Memory::new(limits.idempotency_max),
            bytes: 0,
            limits,
            lineage: Lineage::FIRST,
        }
    }

    /// Returns to which line of succession this state belongs.
    #[must_use]
    pub const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Begins another lineage. What the one before may have answered, and this state does not hold,
    /// has numbers that nobody is given again: revisions go on far behind them, and whoever asks
    /// for one of before is told that it is forgotten.
    pub(crate) fn begin(&mut self, lineage: Lineage) {
        self.lineage = lineage;
        self.revision += REVISIONS_SKIPPED;
        self.history.forget_through(self.revision);
        self.leases.skip(LEASES_SKIPPED);
    }

    /// Returns how many commands that changed keys were applied so far. A refused one is none.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns about how much memory all keys and values take, history not included, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the last revision whose history is forgotten: 0 if none is.
    #[must_use]
    pub const fn compacted(&self) -> u64 {
        self.history.compacted()
    }

    /// Returns a key's present state.
    #[must_use]
    pub fn get(&self, space: Space, key: &str) -> Option<&Version> {
        self.keys(space).get(key)
    }

    /// Returns every key that begins with `prefix`, in order.
    pub fn prefix<'a>(
        &'a self,
        space: Space,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Version)> {
        self.keys(space)
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, version)| (key.as_str(), version))
    }

    /// Returns every lease and its time to live.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, std::time::Duration)> {
        self.leases.iter()
    }

    /// Returns by how much, in [`Self::bytes`], a command can make the users' keys larger.
    #[must_use]
    pub fn growth_max(&self, command: &Command) -> usize {
        let growth = |key: &str, value: &Bytes| {
            let before = self.get(Space::User, key).map_or(0, |it| size(key, &it.value));
            size(key, value).saturating_sub(before)
        };
        let total = |operations: &[Operation]| -> usize {
            let lengths = operations.iter().map(|operation| match operation {
                Operation::Put { key, value, .. } => growth(key, value),
                Operation::Delete { .. } | Operation::Get { .. } => 0,
            });
            lengths.sum()
        };
        match &command.change {
            Change::Put { space: Space::User, key, value, .. } => growth(key, value),
            Change::Transaction(transaction) => {
                total(&transaction.success).max(total(&transaction.failure))
            }
            Change::Put { space: Space::System, .. }
            | Change::Delete { .. }
            | Change::GrantLease { .. }
            | Change::RevokeLease { .. }
            | Change::Compact { .. } => 0,
        }
    }

    /// Answers a question from what is applied.
    #[must_use]
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Get { space, key, at } => self.get_at(*space, key, *at),
            Query::Range { space, prefix, after, limit, at } => {
                let after = after.as_deref();
                match *at {
                    None => page(self.keys(*space), prefix, after, *limit, self.revision),
                    Some(at) => self.range_at(*space, prefix, after, *limit, at),
                }
            }
            Query::Changes { prefix, after, limit } => self.changes(prefix, *after, *limit),
            Query::Lease { lease } => self.lease(*lease),
            // Only who leads can keep a lease alive.
            Query::KeepAlive { .. } => Answer::NotLeader { leader: None },
        }
    }

    /// Applies a command.
    ///
    /// The outcome under an idempotency key is final, also when it was a refusal: a late copy of
    /// a request that was refused must not be applied after all.
    pub fn apply(&mut self, command: Command) -> Answer {
        let Some(name) = command.idempotency.clone() else {
            return self.change(command.change);
        };
        let fingerprint = Fingerprint::of(&command);
        match self.memory.find(&name) {
            Some((first, outcome)) if first == fingerprint => outcome.answer(),
            Some(_) => Answer::IdempotencyMismatch,
            None => {
                let answer = self.change(command.change);
                if let Some(outcome) = Outcome::of(&answer) {
                    self.memory.insert(name, fingerprint, outcome);
                }
                answer
            }
        }
    }

    fn change(&mut self, change: Change) -> Answer {
        match change {
            Change::Put { space, key, value, expect, lease } => {
                self.put(space, key, &value, expect, lease)
            }
            Change::Delete { space, key, expect } => self.delete(space, &key, expect),
            Change::Transaction(transaction) => self.transact(transaction),
            Change::GrantLease { ttl } => self.grant_lease(ttl),
            Change::RevokeLease { lease } => self.revoke_lease(lease),
            Change::Compact { through } => self.compact(through),
        }
    }

    fn put(
        &mut self,
        space: Space,
        key: String,
        value: &Bytes,
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Answer {
        if let Err(current) = self.check(space, &key, expect) {
            return Answer::Conflict { current };
        }
        if let Some(lease) = lease
            && let Err(refusal) = self.can_attach(lease, space, std::iter::once(&key))
        {
            return refusal;
        }
        let revision = self.revision + 1;
        let created = self.set(revision, space, key, value, lease);
        self.end_revision(revision);
        Answer::Written { revision, created, replayed: false }
    }

    fn delete(&mut self, space: Space, key: &str, expect: Expect) -> Answer {
        if let Err(current) = self.check(space, key, expect) {
            return Answer::Conflict { current };
        }
        let revision = self.revision + 1;
        if !self.unset(revision, space, key) {
            return Answer::NotFound;
        }
        self.end_revision(revision);
        Answer::Deleted { revision, replayed: false }
    }

    /// Checks a condition; the key's revision if it does not hold.
    fn check(&self, space: Space, key: &str, expect: Expect) -> Result<(), Option<u64>> {
        let current = self.get(space, key).map(|version| version.revision);
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Present => current.is_some(),
            Expect::Revision(revision) => current == Some(revision),
        };
        if holds { Ok(()) } else { Err(current) }
    }

    fn compact(&mut self, through: u64) -> Answer {
        if through > self.revision {
            return Answer::Refused(Refused::FutureRevision);
        }
        self.history.forget_through(through);
        Answer::Forgotten { through: self.history.compacted() }
    }

    /// Sets a key as a part of `revision`, and returns whether it is new. Keeps a copy of the
    /// value: the original may be a part of a much larger message.
    fn set(
        &mut self,
        revision: u64,
        space: Space,
        key: String,
        value: &Bytes,
        lease: Option<LeaseId>,
    ) -> bool {
        let value = Bytes::copy_from_slice(value);
        let mut after = Version { value, revision, created: revision, count: 1, lease };
        // In place, where the key is there: to take it out and put it in again turns the tree twice.
        let before = self.keys_mut(space).get_mut(&key).map(|version| {
            (after.created, after.count) = (version.created, version.count + 1);
            std::mem::replace(version, after.clone())
        });
        match &before {
            Some(before) => {
                self.bytes = self.bytes - size(&key, &before.value) + size(&key, &after.value);
                if let Some(lease) = before.lease {
                    self.leases.detach(lease, space, &key);
                }
                if let Some(lease) = after.lease {
                    self.leases.attach(lease, space, &key);
                }
            }
            None => self.insert(space, key.clone(), after.clone()),
        }
        let created = before.is_none();
        self.remember(space, KeyChange { revision, key, before, after: Some(after) });
        created
    }

    /// Removes a key as a part of `revision`, and returns whether it was there.
    fn unset(&mut self, revision: u64, space: Space, key: &str) -> bool {
        let before = self.take(space, key);
        let existed = before.is_some();
        if existed {
            self.remember(space, KeyChange { revision, key: key.to_owned(), before, after: None });
        }
        existed
    }

    fn remember(&mut self, space: Space, change: KeyChange) {
        if space == Space::User {
            self.history.push(change);
        }
    }

    /// Takes a key out, off its lease too.
    fn take(&mut self, space: Space, key: &str) -> Option<Version> {
        let version = self.get(space, key)?.clone();
        self.keys_mut(space).remove_mut(key);
        self.bytes -= size(key, &version.value);
        if let Some(lease) = version.lease {
            self.leases.detach(lease, space, key);
        }
        Some(version)
    }

    fn insert(&mut self, space: Space, key: String, version: Version) {
        self.bytes += size(&key, &version.value);
        if let Some(lease) = version.lease {
            self.leases.attach(lease, space, &key);
        }
        self.keys_mut(space).insert_mut(key, version);
    }

    fn end_revision(&mut self, revision: u64) {
        self.revision = revision;
        self.history.bound(&self.limits);
    }

    const fn keys(&self, space: Space) -> &Keys {
        match space {
            Space::User => &self.user,
            Space::System => &self.system,
        }
    }

    const fn keys_mut(&mut self, space: Space) -> &mut Keys {
        match space {
            Space::User => &mut self.user,
            Space::System => &mut self.system,
        }
    }

    /// Encodes all of it for a snapshot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = state::Encoder::new(self.revision, self.compacted());
        for (lease, ttl) in self.leases() {
            builder.push_lease(lease, ttl);
        }
        builder.next_lease(self.leases.next());
        builder.lineage(self.lineage);
        for space in [Space::User, Space::System] {
            for (key, version) in self.prefix(space, "") {
                builder.push_key(space, key, version);
            }
        }
        for change in self.history.iter() {
            builder.push_change(change);
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
    pub fn decode(bytes: &Bytes, limits: StateLimits) -> Result<Self, DecodeError> {
        let decoded = state::decode_state(bytes)?;
        let mut keys = Self::new(limits);
        keys.revision = decoded.revision;
        keys.lineage = decoded.lineage;
        keys.leases = Leases::restored(decoded.next_lease, decoded.leases);
        for (space, entry) in decoded.keys {
            keys.insert(space, entry.key, entry.version);
        }
        keys.history = History::restored(decoded.compacted, decoded.changes);
        for (name, fingerprint, outcome) in decoded.outcomes {
            keys.memory.insert(name, fingerprint, outcome);
        }
        Ok(keys)
    }
}

/// Returns the first keys behind `after` that begin with `prefix`.
fn page(
    keys: &Keys,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    store_revision: u64,
) -> Answer {
    let behind = after.filter(|after| *after >= prefix);
    let from = behind.map_or(Bound::Included(prefix), Bound::Excluded);
    let mut found = keys
        .range::<str, _>((from, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix));
    let entry = |(key, version): (&String, &Version)| KeyEntry {
        key: key.clone(),
        version: version.clone(),
    };
    let entries = found.by_ref().take(limit).map(entry).collect();
    Answer::Entries { entries, more: found.next().is_some(), store_revision }
}
