//! Transactions: compare, then one list of operations or the other, all or nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::KeySpace;
use crate::answer::{Answer, OperationResult, Refused};
use crate::command::{Compare, LeaseId, Operand, Operation, Relation, Space, Transaction};

impl KeySpace {
    pub(super) fn transact(&mut self, transaction: Transaction) -> Answer {
        let Transaction { compare, success, failure } = transaction;
        if compare.len() + success.len() + failure.len() > self.limits.operations_max {
            return Answer::Refused(Refused::TooManyOperations);
        }
        // Both lists must make sense: which of them is taken is no excuse for the other.
        if let Some(refusal) = [&success, &failure].into_iter().find_map(|list| check(list)) {
            return Answer::Refused(refusal);
        }
        let succeeded = compare.iter().all(|compare| self.compares(compare));
        let operations = if succeeded { success } else { failure };
        if let Err(refusal) = self.check_leases(&operations) {
            return refusal;
        }
        let revision = self.revision + 1;
        let mut changed = false;
        let results = operations.into_iter().map(|operation| {
            let (result, changes) = self.operate(revision, operation);
            changed |= changes;
            result
        });
        let results = results.collect();
        if changed {
            self.end_revision(revision);
        }
        Answer::Transacted { succeeded, results, revision: self.revision, replayed: false }
    }

    fn compares(&self, Compare { key, relation, operand }: &Compare) -> bool {
        let version = self.get(Space::User, key);
        let number = |of: fn(&crate::answer::Version) -> u64| version.map_or(0, of);
        let order = match operand {
            Operand::Revision(other) => number(|version| version.revision).cmp(other),
            Operand::Created(other) => number(|version| version.created).cmp(other),
            Operand::Version(other) => number(|version| version.count).cmp(other),
            Operand::Lease(other) => {
                number(|version| version.lease.map_or(0, |lease| lease.0)).cmp(other)
            }
            Operand::Value(other) => {
                version.map_or(&[] as &[u8], |version| &version.value).cmp(other.as_ref())
            }
        };
        match relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::Greater => order == Ordering::Greater,
        }
    }

    fn check_leases(&self, operations: &[Operation]) -> Result<(), Answer> {
        let mut wanted: BTreeMap<LeaseId, Vec<&String>> = BTreeMap::new();
        for operation in operations {
            if let Operation::Put { key, lease: Some(lease), .. } = operation {
                wanted.entry(*lease).or_default().push(key);
            }
        }
        wanted
            .into_iter()
            .try_for_each(|(lease, keys)| self.can_attach(lease, Space::User, keys.into_iter()))
    }

    /// Does one thing, and returns whether it changed anything.
    fn operate(&mut self, revision: u64, operation: Operation) -> (OperationResult, bool) {
        match operation {
            Operation::Put { key, value, lease } => {
                let created = self.set(revision, Space::User, key, &value, lease);
                (OperationResult::Written { created }, true)
            }
            Operation::Delete { key } => {
                let existed = self.unset(revision, Space::User, &key);
                (OperationResult::Deleted { existed }, existed)
            }
            Operation::Get { key } => {
                let version = self.get(Space::User, &key).cloned();
                (OperationResult::Read { version }, false)
            }
        }
    }
}

/// A key changes once with a revision, or the revision would not name its state.
fn check(operations: &[Operation]) -> Option<Refused> {
    let mut changed = BTreeSet::new();
    let twice = operations.iter().any(|operation| match operation {
        Operation::Put { key, .. } | Operation::Delete { key } => !changed.insert(key),
        Operation::Get { .. } => false,
    });
    twice.then_some(Refused::KeyTwice)
}
