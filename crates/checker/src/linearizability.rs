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
    /// Keys on which revisions contradict each other, but the search, which alone knows whether an
    /// operation in doubt excuses it, gave up. Not proven, and surely no proof of soundness.
    pub suspected: Vec<Violation>,
    /// Keys on which the search gave up with nothing found before: neither proven nor refuted.
    pub undecided: Vec<String>,
}

/// Checks every key of a history; each key must have been absent before its first operation. A
/// search tries at most `steps_max` operations a key.
#[must_use]
pub fn check(operations: &[Operation], steps_max: usize) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, operations) in by_key(operations) {
        verdict.check_key(key, &operations, steps_max);
    }
    verdict
}

impl Verdict {
    fn check_key(&mut self, key: &str, operations: &[&Operation], steps_max: usize) {
        let readable = !acknowledged_without_revision(operations) && unique_values(operations);
        let suspected = match readable.then(|| revisions::check(key, operations)) {
            Some(Ok(())) => return,
            Some(Err(violation)) if !revisions::leaves_room(operations) => {
                self.violations.push(violation);
                return;
            }
            Some(Err(violation)) => Some(violation),
            None => None,
        };
        match (search(operations, steps_max), suspected) {
            (Found::Order, _) => {}
            (Found::NoOrder, Some(violation)) => self.violations.push(violation),
            (Found::NoOrder, None) => {
                let evidence = format!("no order explains its {} operations", operations.len());
                self.violations.push(Violation::new(Rule::NotLinearizable, key, evidence));
            }
            (Found::Undecided, Some(violation)) => self.suspected.push(violation),
            (Found::Undecided, None) => self.undecided.push(key.to_owned()),
        }
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
        assert!(verdict.undecided.is_empty() && verdict.suspected.is_empty(), "{text}");
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
        let operations = history("0-9 put a @1 | 10-19 delete | 20-29 get");
        assert_eq!(check(&operations, 1).undecided, ["k"]);
    }

    #[test]
    fn keeps_what_it_suspects_when_it_gives_up() {
        let operations = history("0-9 put a @1 | 10-19 put b ? | 20-29 get");
        let verdict = check(&operations, 1);
        assert_eq!((verdict.violations.len(), verdict.undecided.len()), (0, 0));
        let rules: Vec<Rule> = verdict.suspected.iter().map(|found| found.rule).collect();
        assert_eq!(rules, [Rule::RealTimeOrder]);
    }

    #[test]
    fn a_lost_write_shows_by_the_refusal_of_what_follows_it() {
        check_text("0-9 put a @5 | 10-19 cas b =5 #", Err(Rule::FalseRefusal));
        check_text("0-9 put a @5 | 10-19 delete #", Err(Rule::FalseRefusal));
        check_text("0-9 put a @5 | 10-19 put b ? | 20-29 cas c =5 #", Ok(()));
        check_text("0-9 put a @5 | 10-19 cas c =5 ? | 20-29 cas d =5 #", Ok(()));
    }
}
