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
        Outcome::Fail | Outcome::Refused => false,
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

    /// Returns the first revision from `revision` on, 0 or one of a write, at which what `holds` asks
    /// of the key's revision is true; `None` stands for an absent key.
    fn first_from(&self, revision: u64, holds: impl Fn(Option<u64>) -> bool) -> Option<u64> {
        if revision == 0 && holds(None) {
            return Some(0);
        }
        let mut later = self.writes.range(revision..);
        later.find_map(|(&revision, write)| {
            let present = (write.kind != OperationKind::Delete).then_some(revision);
            holds(present).then_some(revision)
        })
    }

    /// Returns the position of an operation that follows what stands at `floor`: its own for a write
    /// and for a read of a value; for a look at a key without a revision the first that fits, which
    /// leaves the most room to all that follow. `None` within when there is none.
    fn position(
        &self,
        operation: &Operation,
        place: Option<u64>,
        floor: u64,
    ) -> Option<Option<Position>> {
        let looked = |holds: &dyn Fn(Option<u64>) -> bool| {
            Some(self.first_from(floor, holds).map(|revision| (revision, READ)))
        };
        if is_answered_read(operation) {
            return match (&operation.value, operation.revision) {
                (Some(_), revision) => revision.map(|revision| Some((revision, READ))),
                (None, _) => looked(&|present| present.is_none()),
            };
        }
        match operation.kind {
            OperationKind::Cas if operation.is_refusal() => {
                looked(&|present| present != operation.expect)
            }
            OperationKind::Delete if operation.is_refusal() => looked(&|present| present.is_none()),
            OperationKind::Put
            | OperationKind::Cas
            | OperationKind::Delete
            | OperationKind::Get => place.map(|revision| Some((revision, WRITE))),
        }
    }
}

fn is_answered_read(operation: &Operation) -> bool {
    operation.kind == OperationKind::Get && operation.outcome == Outcome::Ok
}

/// Goes through time and checks that nothing stands before what had already returned.
///
/// A read that found nothing could stand after any delete, and a refusal after anything but what it
/// asked for: each takes the first place that real time allows.
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
        let place = places.get(&std::ptr::from_ref(operation)).copied();
        let Some(position) = versions.position(operation, place, floor.0.0) else { continue };
        let fits = position.is_some_and(|position| match position.1 {
            WRITE => position > floor.0,
            _ => position >= floor.0,
        });
        let Some(position) = position.filter(|_| fits) else {
            let before =
                floor.1.map_or_else(String::new, |index| format!(" after [{}]", sorted[index]));
            let evidence = format!("[{operation}]{before}");
            let is_refusal = operation.is_refusal();
            let rule = if is_refusal { Rule::FalseRefusal } else { Rule::RealTimeOrder };
            return Err(Violation::new(rule, key, evidence));
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
    fn a_refusal_tells_what_a_read_would_have_told() {
        let lost = Err(Rule::FalseRefusal);
        check_text("0-9 put a @5 | 10-19 cas b =5 #", lost);
        check_text("0-9 put a @5 | 10-19 delete #", lost);
        check_text("0-9 cas a =absent #", lost);
        check_text("0-9 put a @5 | 10-19 cas b =4 # | 20-29 cas b =absent #", Ok(()));
        check_text("0-9 put a @5 | 10-19 put b @6 | 10-19 cas c =5 #", Ok(()));
        check_text("0-9 put a @5 | 10-30 delete @6 | 10-19 delete #", Ok(()));
        check_text("0-9 delete #", Ok(()));
        // What refused it must have been there before it returned.
        let early = "0-9 put a @5 | 10-19 cas c =5 # | 20-29 put b @6";
        check_text(early, Err(Rule::RealTimeOrder));
        let read = "0-9 put a @5 | 10-30 put b @6 | 10-15 cas c =5 # | 20-25 get a @5";
        check_text(read, Err(Rule::RealTimeOrder));
        // A failure that nobody looked at tells nothing.
        check_text("0-9 put a @5 | 10-19 cas b =5 !", Ok(()));
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
