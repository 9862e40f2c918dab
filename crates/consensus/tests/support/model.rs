//! A key space written as plainly as possible: every state that there ever was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_consensus::answer::{Answer, KeyChange, KeyEntry, OperationResult, Refused, Version};
use evenkeel_consensus::command::{
    Bytes, Change, Command, Compare, Expect, LeaseId, Operand, Operation, Query, Relation, Space,
    Transaction,
};

use super::strategies::LIMITS;

type State = BTreeMap<(Space, String), Version>;

#[derive(Debug)]
pub(crate) struct Model {
    /// The state at each revision.
    states: Vec<State>,
    compacted: u64,
    leases: BTreeMap<LeaseId, Duration>,
    granted: u64,
    first_answers: Vec<(String, Command, Answer)>,
}

/// A refused change, which leaves everything as it was.
type Refusal = Result<(), Answer>;

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![State::new()],
            compacted: 0,
            leases: BTreeMap::new(),
            granted: 0,
            first_answers: Vec::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn present(&self) -> &State {
        self.states.last().unwrap()
    }

    fn at(&self, revision: u64) -> &State {
        &self.states[usize::try_from(revision).unwrap()]
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Answer {
        let Some(name) = &command.idempotency else { return self.change(&command.change) };
        let remembered = self.first_answers.iter().rev().take(LIMITS.idempotency_max);
        match remembered.clone().find(|(known, ..)| known == name) {
            Some((_, first, _)) if first.change != command.change => Answer::IdempotencyMismatch,
            Some((.., answer)) => replay(answer),
            None => {
                let answer = self.change(&command.change);
                self.first_answers.push((name.clone(), command.clone(), answer.clone()));
                answer
            }
        }
    }

    fn change(&mut self, change: &Change) -> Answer {
        let outcome = match change {
            Change::Put { space, key, value, expect, lease } => {
                self.put(*space, key, value, *expect, *lease)
            }
            Change::Delete { space, key, expect } => self.delete(*space, key, *expect),
            Change::Transaction(transaction) => self.transact(transaction),
            Change::GrantLease { ttl } => self.grant(*ttl),
            Change::RevokeLease { lease } => self.revoke(*lease),
            Change::Compact { through } if *through > self.revision() => {
                Err(Answer::Refused(Refused::FutureRevision))
            }
            Change::Compact { through } => {
                self.compacted = self.compacted.max(*through);
                Ok(Answer::Forgotten { through: self.compacted })
            }
        };
        self.forget();
        outcome.unwrap_or_else(|refusal| refusal)
    }

    /// Forgets the oldest revisions until few enough changes are left.
    fn forget(&mut self) {
        let kept = |from: u64| -> usize {
            (from..self.revision()).map(|revision| self.diff(revision).len()).sum()
        };
        let mut compacted = self.compacted;
        while kept(compacted) > LIMITS.history_changes_max {
            compacted += 1;
        }
        self.compacted = compacted;
    }

    /// Returns what has become of the users' keys with the revision after `revision`.
    fn diff(&self, revision: u64) -> Vec<KeyChange> {
        let (before, after) = (self.at(revision), self.at(revision + 1));
        let keys: BTreeSet<&(Space, String)> = before.keys().chain(after.keys()).collect();
        let changed = keys
            .into_iter()
            .filter(|key| key.0 == Space::User && before.get(*key) != after.get(*key));
        changed
            .map(|key| KeyChange {
                revision: revision + 1,
                key: key.1.clone(),
                before: before.get(key).cloned(),
                after: after.get(key).cloned(),
            })
            .collect()
    }

    fn check(&self, space: Space, key: &str, expect: Expect) -> Refusal {
        let current = self.present().get(&(space, key.to_owned())).map(|found| found.revision);
        let refused = match expect {
            Expect::Any => false,
            Expect::Absent => current.is_some(),
            Expect::Present => current.is_none(),
            Expect::Revision(revision) => current != Some(revision),
        };
        if refused { Err(Answer::Conflict { current }) } else { Ok(()) }
    }

    /// Checks the leases that keys are to go with.
    fn attach(&self, keys: &[(Space, &String, Option<LeaseId>)]) -> Refusal {
        let wanted: BTreeSet<LeaseId> = keys.iter().filter_map(|(_, _, lease)| *lease).collect();
        for lease in wanted {
            let goes = |space: Space, key: &String| {
                let found = self.present().get(&(space, key.clone()));
                found.is_some_and(|found| found.lease == Some(lease))
            };
            let more = keys
                .iter()
                .filter(|(space, key, of)| *of == Some(lease) && !goes(*space, key))
                .count();
            let has = self.present().values().filter(|found| found.lease == Some(lease)).count();
            if !self.leases.contains_key(&lease) {
                return Err(Answer::NoLease { lease });
            }
            if has + more > LIMITS.lease_keys_max {
                return Err(Answer::Refused(Refused::TooManyKeys));
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        space: Space,
        key: &str,
        value: &Bytes,
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Answer, Answer> {
        self.check(space, key, expect)?;
        self.attach(&[(space, &key.to_owned(), lease)])?;
        let mut state = self.present().clone();
        let revision = self.revision() + 1;
        let created = set(&mut state, revision, space, key, value, lease);
        self.states.push(state);
        Ok(Answer::Written { revision, created, replayed: false })
    }

    fn delete(&mut self, space: Space, key: &str, expect: Expect) -> Result<Answer, Answer> {
        self.check(space, key, expect)?;
        let mut state = self.present().clone();
        state.remove(&(space, key.to_owned())).ok_or(Answer::NotFound)?;
        self.states.push(state);
        Ok(Answer::Deleted { revision: self.revision(), replayed: false })
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Answer, Answer> {
        let Transaction { compare, success, failure } = transaction;
        if compare.len() + success.len() + failure.len() > LIMITS.operations_max {
            return Err(Answer::Refused(Refused::TooManyOperations));
        }
        let twice = |operations: &[Operation]| {
            let keys: Vec<&String> = operations.iter().filter_map(changed_key).collect();
            keys.iter().collect::<BTreeSet<_>>().len() < keys.len()
        };
        if twice(success) || twice(failure) {
            return Err(Answer::Refused(Refused::KeyTwice));
        }
        let succeeded = compare.iter().all(|compare| self.compares(compare));
        let operations = if succeeded { success } else { failure };
        let keys = operations.iter().map(|operation| match operation {
            Operation::Put { key, lease, .. } => (Space::User, key, *lease),
            Operation::Delete { key } | Operation::Get { key } => (Space::User, key, None),
        });
        self.attach(&keys.collect::<Vec<_>>())?;
        let (mut state, revision) = (self.present().clone(), self.revision() + 1);
        let results = operations.iter().map(|operation| match operation {
            Operation::Put { key, value, lease } => {
                let created = set(&mut state, revision, Space::User, key, value, *lease);
                OperationResult::Written { created }
            }
            Operation::Delete { key } => {
                let existed = state.remove(&(Space::User, key.clone())).is_some();
                OperationResult::Deleted { existed }
            }
            Operation::Get { key } => {
                let version = state.get(&(Space::User, key.clone())).cloned();
                OperationResult::Read { version }
            }
        });
        let results = results.collect();
        if state != *self.present() {
            self.states.push(state);
        }
        let revision = self.revision();
        Ok(Answer::Transacted { succeeded, results, revision, replayed: false })
    }

    fn compares(&self, compare: &Compare) -> bool {
        let found = self.present().get(&(Space::User, compare.key.clone()));
        let empty = Version { value: Bytes::new(), revision: 0, created: 0, count: 0, lease: None };
        let found = found.unwrap_or(&empty);
        let order = match &compare.operand {
            Operand::Revision(other) => found.revision.cmp(other),
            Operand::Created(other) => found.created.cmp(other),
            Operand::Version(other) => found.count.cmp(other),
            Operand::Lease(other) => found.lease.map_or(0, |lease| lease.0).cmp(other),
            Operand::Value(other) => found.value.cmp(other),
        };
        match compare.relation {
            Relation::Equal => order.is_eq(),
            Relation::NotEqual => order.is_ne(),
            Relation::Less => order.is_lt(),
            Relation::Greater => order.is_gt(),
        }
    }

    fn grant(&mut self, ttl: Duration) -> Result<Answer, Answer> {
        if ttl.is_zero() {
            return Err(Answer::Refused(Refused::TimeToLive));
        }
        if self.leases.len() >= LIMITS.leases_max {
            return Err(Answer::Refused(Refused::TooManyLeases));
        }
        self.granted += 1;
        let lease = LeaseId(self.granted);
        self.leases.insert(lease, ttl);
        Ok(Answer::Granted { lease, replayed: false })
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<Answer, Answer> {
        self.leases.remove(&lease).ok_or(Answer::NoLease { lease })?;
        let mut state = self.present().clone();
        state.retain(|_, version| version.lease != Some(lease));
        if state != *self.present() {
            self.states.push(state);
        }
        Ok(Answer::Revoked { revision: self.revision(), replayed: false })
    }

    fn known(&self, revision: u64) -> Refusal {
        if revision > self.revision() {
            return Err(Answer::Future { store_revision: self.revision() });
        }
        if revision < self.compacted {
            return Err(Answer::Compacted { oldest: self.compacted });
        }
        Ok(())
    }

    pub(crate) fn query(&self, query: &Query) -> Answer {
        self.answer(query).unwrap_or_else(|refusal| refusal)
    }

    fn answer(&self, query: &Query) -> Result<Answer, Answer> {
        match query {
            Query::Get { space, key, at } => {
                let store_revision = at.unwrap_or(self.revision());
                at.map_or(Ok(()), |at| self.known(at))?;
                let found = self.at(store_revision).get(&(*space, key.clone())).cloned();
                let absent = Answer::Absent { store_revision };
                Ok(found.map_or(absent, |version| Answer::Value { version, store_revision }))
            }
            Query::Range { space, prefix, after, limit, at } => {
                let store_revision = at.unwrap_or(self.revision());
                at.map_or(Ok(()), |at| self.known(at))?;
                let entries = self.at(store_revision).iter().filter(|((of, key), _)| {
                    let behind = after.as_ref().is_none_or(|after| key > after);
                    of == space && key.starts_with(prefix) && behind
                });
                let entry = |((_, key), version): (&(Space, String), &Version)| KeyEntry {
                    key: key.clone(),
                    version: version.clone(),
                };
                let mut entries: Vec<KeyEntry> = entries.map(entry).collect();
                let more = entries.len() > *limit;
                entries.truncate(*limit);
                Ok(Answer::Entries { entries, more, store_revision })
            }
            Query::Changes { prefix, after, limit } => {
                self.known(*after)?;
                let (mut changes, mut through) = (Vec::new(), *after);
                while through < self.revision() {
                    let mut next = self.diff(through);
                    next.retain(|change| change.key.starts_with(prefix));
                    if changes.len() >= *limit && !next.is_empty() {
                        let last: Option<&KeyChange> = changes.last();
                        through = last.map_or(through, |last| last.revision);
                        break;
                    }
                    changes.extend(next);
                    through += 1;
                }
                Ok(Answer::Changes { changes, through })
            }
            Query::Lease { lease } => {
                let ttl = *self.leases.get(lease).ok_or(Answer::NoLease { lease: *lease })?;
                let keys = self.present().iter();
                let keys = keys
                    .filter(|((space, _), version)| {
                        *space == Space::User && version.lease == Some(*lease)
                    })
                    .map(|((_, key), _)| key.clone());
                Ok(Answer::Lease { ttl, left: None, keys: keys.collect() })
            }
            Query::KeepAlive { .. } => Err(Answer::NotLeader { leader: None }),
        }
    }
}

fn changed_key(operation: &Operation) -> Option<&String> {
    match operation {
        Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
        Operation::Get { .. } => None,
    }
}

fn set(
    state: &mut State,
    revision: u64,
    space: Space,
    key: &str,
    value: &Bytes,
    lease: Option<LeaseId>,
) -> bool {
    let before = state.get(&(space, key.to_owned()));
    let (created, count) = before.map_or((revision, 0), |before| (before.created, before.count));
    let is_new = before.is_none();
    let version = Version { value: value.clone(), revision, created, count: count + 1, lease };
    state.insert((space, key.to_owned()), version);
    is_new
}

/// Returns the answer to a retry of what was answered first.
fn replay(first: &Answer) -> Answer {
    let mut again = first.clone();
    match &mut again {
        Answer::Written { replayed, .. }
        | Answer::Deleted { replayed, .. }
        | Answer::Granted { replayed, .. }
        | Answer::Revoked { replayed, .. } => *replayed = true,
        Answer::Transacted { replayed, .. } => *replayed = true,
        _ => {}
    }
    again
}
