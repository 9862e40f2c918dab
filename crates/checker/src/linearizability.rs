//! The verdict on a whole history: by revisions first, by search where they leave room.

use std::collections::BTreeMap;

use crate::history::{Operation, Outcome, Rule, Violation, by_key};
use crate::revisions;
use crate::search::{Found, search};

/// What is known about a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every key that is not linearizable, with why.
    pub violations: Vec<Violation>,
    /// Keys on which the search gave up: neither proven nor refuted.
    pub undecided: Vec<String>,
}

/// Checks every key of a history; each key must have been absent before its first operation. A
/// search tries at most `steps_max` operations a key.
#[must_use]
pub fn check(operations: &[Operation], steps_max: usize) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, operations) in by_key(operations) {
        match check_key(key, &operations, steps_max) {
            Ok(Found::Order | Found::NoOrder) => {}
            Ok(Found::Undecided) => verdict.undecided.push(key.to_owned()),
            Err(violation) => verdict.violations.push(violation),
        }
    }
    verdict
}

fn check_key(key: &str, operations: &[&Operation], steps_max: usize) -> Result<Found, Violation> {
    let readable = !acknowledged_without_revision(operations) && unique_values(operations);
    let found = if readable { revisions::check(key, operations) } else { Ok(()) };
    if readable && found.is_ok() {
        return Ok(Found::Order);
    }
    if readable && !revisions::leaves_room(operations) {
        return found.map(|()| Found::Order);
    }
    match search(operations, steps_max) {
        Found::NoOrder => {
            found?;
            let evidence = format!("no order explains its {} operations", operations.len());
            Err(Violation::new(Rule::NotLinearizable, key, evidence))
        }
        decided @ (Found::Order | Found::Undecided) => Ok(decided),
    }
}

/// Returns whether an acknowledged operation has no place that can be read off.
fn acknowledged_without_revision(operations: &[&Operation]) -> bool {
    operations.iter().any(|operation| {
        operation.outcome == Outcome::Ok
            && operation.revision.is_none()
            && (operation.is_write() || operation.value.is_some())
    })
}

fn unique_values(operations: &[&Operation]) -> bool {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for write in operations.iter().filter(|operation| operation.is_write()) {
        if let Some(value) = &write.value {
            *seen.entry(value).or_insert(0) += 1;
        }
    }
    seen.values().all(|count| *count == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    fn check_text(text: &str, expected: Result<(), Rule>) {
        let verdict = check(&history(text), 100_000);
        assert!(verdict.undecided.is_empty(), "{text}");
        let found = verdict.violations.first().map_or(Ok(()), |violation| Err(violation.rule));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn searches_where_revisions_leave_room() {
        // Only a delete in doubt explains the read; only the lost answer explains the condition.
        check_text("0-9 put a @1 | 10-19 delete ? | 20-29 get", Ok(()));
        check_text("0-9 put a @1 | 10-19 put b ? | 20-29 cas c =2 @3", Ok(()));
        check_text("0-9 put b ? | 10-19 delete @2", Ok(()));
        // One delete in doubt cannot have happened twice.
        let twice = "0-9 put a @1 | 10-19 delete ? | 20-29 get | 30-39 put b @3 | 40-49 get";
        check_text(twice, Err(Rule::RealTimeOrder));
        // A delete whose answer named no revision.
        check_text("0-9 put a @1 | 10-19 delete | 20-29 get", Ok(()));
        check_text("0-9 put a @1 | 10-19 delete | 20-29 get a @1", Err(Rule::NotLinearizable));
    }

    #[test]
    fn judges_each_key_by_itself() {
        let mut operations = history("0-9 put a @1 | 10-19 get a @1 | 20-29 put b @2 | 30-39 get");
        operations[1].key = "other".to_owned();
        let verdict = check(&operations, 100_000);
        let keys: Vec<&str> = verdict.violations.iter().map(|found| found.key.as_str()).collect();
        assert_eq!(keys, ["k", "other"]);
    }

    #[test]
    fn says_so_when_it_gives_up() {
        let operations = history("0-9 put a @1 | 10-19 delete ? | 20-29 get");
        assert_eq!(check(&operations, 1).undecided, ["k"]);
    }
}
