//! Linearizability of one register by its revisions: fast, and it says what went wrong.
//!
//! The store numbers its writes, and every answer names the number it is about. So the order of
//! operations is not searched for but read off, and left to check is only that this order agrees
//! with real time, with the values that were read and with the conditions that were met.
//!
//! A write in doubt whose value somebody read takes its revision from there; any other is taken as
//! never applied. So `Ok` is final. A violation is final unless [`leaves_room`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::history::{Operation, OperationKind, Outcome, Rule, Violation};

/// Checks `operations`, all on `key`, which was absent before the first. Every written value must
/// be unique.
///
/// # Errors
/// The first rule found broken.
pub fn check(key: &str, operations: &[&Operation]) -> Result<(), Violation> {
    let versions = Versions::collect(key, operations)?;
    versions.check_preconditions(key)?;
    check_order(key, operations, &versions)
}

/// Returns whether an operation of unknown place could excuse what [`check`] reports: a write in
/// doubt that nobody read, a delete in doubt, or an acknowledged write without a revision.
#[must_use]
pub fn leaves_room(operations: &[&Operation]) -> bool {
    let read = |value: &Option<String>| {
        operations.iter().any(|other| {
            other.kind == OperationKind::Get
                && other.outcome == Outcome::Ok
                && other.value == *value
                && other.revision.is_some()
        })
    };
    operations.iter().filter(|operation| operation.is_write()).any(|write| match write.outcome {
        Outcome::Ok => write.revision.is_none(),
        Outcome::Fail => false,
        Outcome::Unknown => write.kind == OperationKind::Delete || !read(&write.value),
    })
}

/// Where an operation stands: at a revision, its write before its reads.
type Position = (u64, u8);
const WRITE: u8 = 0;
const READ: u8 = 1;

/// The writes that took effect, by revision.
struct Versions<'a> {
    writes: BTreeMap<u64, &'a Operation>,
    by_value: BTreeMap<&'a str, u64>,
}

impl<'a> Versions<'a> {
    fn collect(key: &str, operations: &[&'a Operation]) -> Result<Self, Violation> {
        let mut versions = Self { writes: BTreeMap::new(), by_value: BTreeMap::new() };
        let mut doubtful: BTreeMap<&str, &Operation> = BTreeMap::new();
        for &write in operations.iter().filter(|operation| operation.is_write()) {
            match (write.outcome, write.revision, write.value.as_deref()) {
                (Outcome::Ok, Some(revision), _) => versions.insert(key, revision, write)?,
                (Outcome::Unknown, _, Some(value)) => {
                    doubtful.insert(value, write);
                }
                _ => {}
            }
        }
        for &read in operations.iter().filter(|operation| is_answered_read(operation)) {
            let (Some(value), Some(revision)) = (read.value.as_deref(), read.revision) else {
                continue;
            };
            if let Some(write) = doubtful.remove(value) {
                versions.insert(key, revision, write)?;
            }
            versions.check_read(key, read, value, revision)?;
        }
        Ok(versions)
    }

    fn insert(&mut self, key: &str, revision: u64, write: &'a Operation) -> Result<(), Violation> {
        if let Some(other) = self.writes.insert(revision, write) {
            let evidence = format!("[{other}] and [{write}]");
            return Err(Violation::new(Rule::ReusedRevision, key, evidence));
        }
        if let Some(value) = write.value.as_deref() {
            self.by_value.insert(value, revision);
        }
        Ok(())
    }

    fn check_read(
        &self,
        key: &str,
        read: &Operation,
        value: &str,
        revision: u64,
    ) -> Result<(), Violation> {
        match self.by_value.get(value) {
            Some(written) if *written == revision => Ok(()),
            Some(written) => {
                let evidence = format!("[{read}], but it was written at revision {written}");
                Err(Violation::new(Rule::DuplicateWrite, key, evidence))
            }
            None => Err(Violation::new(Rule::UnwrittenValue, key, format!("[{read}]"))),
        }
    }

    /// Every conditional write must follow the version that it asked for, every delete a value.
    fn check_preconditions(&self, key: &str) -> Result<(), Violation> {
        let mut before: Option<(u64, &Operation)> = None;
        for (&revision, &write) in &self.writes {
            let present = before.filter(|(_, write)| write.kind != OperationKind::Delete);
            let met = match write.kind {
                OperationKind::Put | OperationKind::Get => true,
                OperationKind::Cas => write.expect == present.map(|(revision, _)| revision),
                OperationKind::Delete => present.is_some(),
            };
            if !met {
                let found = before.map_or_else(|| "nothing".to_owned(), |(_, w)| format!("[{w}]"));
                let evidence = format!("[{write}] came upon {found}");
                return Err(Violation::new(Rule::BrokenPrecondition, key, evidence));
            }
            before = Some((revision, write));
        }
        Ok(())
    }

    /// Returns the first revision from `revision` on at which the key is absent.
    fn absent_from(&self, revision: u64) -> Option<u64> {
        let deleted = |(revision, write): (&u64, &&Operation)| {
            (write.kind == OperationKind::Delete).then_some(*revision)
        };
        if revision == 0 { Some(0) } else { self.writes.range(revision..).find_map(deleted) }
    }
}

fn is_answered_read(operation: &Operation) -> bool {
    operation.kind == OperationKind::Get && operation.outcome == Outcome::Ok
}

/// Goes through time and checks that nothing stands before what had already returned.
///
/// A read that found nothing could stand after any delete: it takes the first that real time
/// allows, which leaves the most room to all that follow.
fn check_order(
    key: &str,
    operations: &[&Operation],
    versions: &Versions<'_>,
) -> Result<(), Violation> {
    let places: BTreeMap<*const Operation, u64> = versions
        .writes
        .iter()
        .map(|(revision, write)| (std::ptr::from_ref(*write), *revision))
        .collect();
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|operation| operation.invoked);
    let mut under_way: BinaryHeap<(Reverse<u64>, Position, usize)> = BinaryHeap::new();
    let mut floor: (Position, Option<usize>) = ((0, WRITE), None);
    for (index, &operation) in sorted.iter().enumerate() {
        while let Some((Reverse(returned), position, other)) = under_way.peek().copied() {
            if returned >= operation.invoked.as_nanos() {
                break;
            }
            under_way.pop();
            if position > floor.0 {
                floor = (position, Some(other));
            }
        }
        let position = if is_answered_read(operation) {
            match (&operation.value, operation.revision) {
                (Some(_), Some(revision)) => Some((revision, READ)),
                (Some(_), None) => continue,
                (None, _) => versions.absent_from(floor.0.0).map(|revision| (revision, READ)),
            }
        } else {
            let place = places.get(&std::ptr::from_ref(operation));
            let Some(place) = place else { continue };
            Some((*place, WRITE))
        };
        let fits = position.is_some_and(|position| match position.1 {
            WRITE => position > floor.0,
            _ => position >= floor.0,
        });
        let Some(position) = position.filter(|_| fits) else {
            let before =
                floor.1.map_or_else(String::new, |index| format!(" after [{}]", sorted[index]));
            let evidence = format!("[{operation}]{before}");
            return Err(Violation::new(Rule::RealTimeOrder, key, evidence));
        };
        under_way.push((Reverse(operation.latest_effect().as_nanos()), position, index));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    fn check_text(text: &str, expected: Result<(), Rule>) {
        let operations = history(text);
        let operations: Vec<&Operation> = operations.iter().collect();
        let found = check("k", &operations).map_err(|violation| violation.rule);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn accepts_what_one_register_can_do() {
        check_text("0-9 get | 10-19 put a @1 | 20-29 get a @1", Ok(()));
        check_text("0-9 put a @1 | 5-19 put b @2 | 6-7 get a @1 | 20-29 get b @2", Ok(()));
        check_text("0-9 put a @1 | 10-19 cas b =1 @2 | 20-29 delete @3 | 30-39 get", Ok(()));
        check_text("0-9 put a @1 | 10-19 put b ? | 20-29 get a @1 | 30-39 get b @2", Ok(()));
        check_text("0-30 delete @2 | 0-9 put a @1 | 10-19 get | 20-29 get", Ok(()));
    }

    #[test]
    fn names_the_broken_rule() {
        check_text("0-9 put a @1 | 10-19 get", Err(Rule::RealTimeOrder));
        check_text("0-9 put a @1 | 10-19 put b @2 | 20-29 get a @1", Err(Rule::RealTimeOrder));
        check_text("0-9 put a @2 | 10-19 put b @1", Err(Rule::RealTimeOrder));
        check_text("0-9 get a @1 | 10-19 put a @1", Err(Rule::RealTimeOrder));
        check_text("0-99 put a @1 | 10-19 get a @1 | 20-29 get", Err(Rule::RealTimeOrder));
        check_text(
            "0-9 put a @1 | 10-19 put b @2 | 20-29 cas c =1 @3",
            Err(Rule::BrokenPrecondition),
        );
        check_text("0-9 delete @1", Err(Rule::BrokenPrecondition));
        check_text("0-9 put a ! | 10-19 get a @1", Err(Rule::UnwrittenValue));
        check_text("0-9 put a @1 | 10-19 get a @2", Err(Rule::DuplicateWrite));
        check_text("0-9 put a @1 | 10-19 put b @1", Err(Rule::ReusedRevision));
    }
}
