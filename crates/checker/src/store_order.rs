//! The order of the whole store: revisions count its writes over all keys, so they must agree with
//! real time across keys too.
//!
//! Each key by itself can be linearizable while the store is not one store: two leaders that number
//! writes of different keys at the same time show only here. Linear but for sorting.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Operation, OperationKind, Outcome, Rule, Violation};

/// Checks operations on any keys of one store: no revision belongs to two keys, and a write that was
/// invoked after another operation had returned has a higher revision than that one named. At most
/// one violation a key and rule.
///
/// A write in doubt takes its revision from whoever read its value. Written values must be unique.
#[must_use]
pub fn check<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Vec<Violation> {
    let operations: Vec<&Operation> = operations.into_iter().collect();
    let (writes, reads) = number(&operations);
    let mut found = Findings::default();
    check_owners(&writes, &reads, &mut found);
    check_order(&writes, &reads, &mut found);
    found.violations
}

/// An operation with the revision that it made or read.
type Numbered<'a> = (u64, &'a Operation);

/// Returns the writes and the reads of values whose revision is known.
fn number<'a>(operations: &[&'a Operation]) -> (Vec<Numbered<'a>>, Vec<Numbered<'a>>) {
    let answered = |operation: &Operation| operation.outcome == Outcome::Ok;
    let numbered = |operation: &&'a Operation| Some((operation.revision?, *operation));
    let reads: Vec<Numbered<'_>> = operations
        .iter()
        .filter(|read| read.kind == OperationKind::Get && answered(read) && read.value.is_some())
        .filter_map(numbered)
        .collect();
    let mut read_at: BTreeMap<(&str, Option<&str>), u64> = BTreeMap::new();
    for (revision, read) in &reads {
        read_at.entry((&read.key, read.value.as_deref())).or_insert(*revision);
    }
    let writes = operations.iter().filter(|write| write.may_have_written());
    let writes = writes.filter_map(|write| {
        if answered(write) {
            return numbered(write);
        }
        let revision = read_at.get(&(write.key.as_str(), write.value.as_deref()))?;
        Some((*revision, *write))
    });
    (writes.collect(), reads)
}

/// What was found, each kind once a key.
#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    known: BTreeSet<(Rule, String)>,
}

impl Findings {
    fn add(&mut self, rule: Rule, first: &Operation, second: &Operation) {
        if self.known.insert((rule, second.key.clone())) {
            let evidence = format!("key `{}` [{first}] and then [{second}]", first.key);
            self.violations.push(Violation::new(rule, &second.key, evidence));
        }
    }
}

/// Every revision belongs to the one key whose write it counts.
fn check_owners(writes: &[Numbered<'_>], reads: &[Numbered<'_>], found: &mut Findings) {
    let mut owners: BTreeMap<u64, &Operation> = BTreeMap::new();
    for (revision, operation) in writes.iter().chain(reads) {
        let owner = owners.entry(*revision).or_insert(operation);
        if owner.key != operation.key {
            found.add(Rule::ReusedRevision, owner, operation);
        }
    }
}

/// Goes through the writes in the order of their invocations, with the highest revision that any
/// operation had named when it returned before.
fn check_order(writes: &[Numbered<'_>], reads: &[Numbered<'_>], found: &mut Findings) {
    let mut invoked = writes.to_vec();
    invoked.sort_by_key(|(_, write)| write.invoked);
    let mut returned: Vec<Numbered<'_>> = writes.iter().chain(reads).copied().collect();
    returned.sort_by_key(|(_, operation)| operation.latest_effect());
    let mut returned = returned.into_iter().peekable();
    let mut highest: Option<Numbered<'_>> = None;
    for (revision, write) in invoked {
        while let Some(earlier) =
            returned.next_if(|(_, earlier)| earlier.latest_effect() < write.invoked)
        {
            if highest.is_none_or(|highest| highest.0 < earlier.0) {
                highest = Some(earlier);
            }
        }
        if let Some((reached, earlier)) = highest
            && reached >= revision
        {
            found.add(Rule::RealTimeOrder, earlier, write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    fn check_text(text: &str, expected: &[Rule]) {
        let rules: Vec<Rule> = check(&history(text)).iter().map(|found| found.rule).collect();
        assert_eq!(rules, expected, "{text}");
    }

    #[test]
    fn accepts_what_one_store_can_do() {
        check_text("0-9 put a @1 /x | 10-19 put b @2 /y | 20-29 get a @1 /x", &[]);
        // At the same time any order is right.
        check_text("0-19 put a @2 /x | 10-19 put b @1 /y", &[]);
        check_text("0-9 put a @1 /x | 10-19 put b ? /y | 20-29 get b @2 /y", &[]);
        check_text("0-9 put a @1 /x | 10-19 delete @2 /x | 20-29 put b @3 /y", &[]);
        check_text("0-9 get /x | 10-19 cas b =7 # /y | 20-29 put c ! /y", &[]);
    }

    #[test]
    fn a_revision_belongs_to_one_key() {
        check_text("0-9 put a @1 /x | 5-19 put b @1 /y", &[Rule::ReusedRevision]);
        check_text("0-9 put a @1 /x | 5-19 put b ? /y | 7-9 get b @1 /y", &[Rule::ReusedRevision]);
        check_text("0-9 put a @1 /x | 5-19 delete @1 /y", &[Rule::ReusedRevision]);
    }

    #[test]
    fn later_writes_have_higher_revisions() {
        check_text("0-9 put a @2 /x | 10-19 put b @1 /y", &[Rule::RealTimeOrder]);
        check_text("0-9 get a @2 /x | 10-19 put b @1 /y", &[Rule::RealTimeOrder]);
        let doubtful = "0-9 put a @2 /x | 10-19 put b ? /y | 10-19 get b @1 /y";
        check_text(doubtful, &[Rule::RealTimeOrder]);
        // Each key is told of once.
        let twice = "0-9 put a @9 /x | 10-19 put b @1 /y | 20-29 put c @2 /y | 20-29 put d @3 /z";
        check_text(twice, &[Rule::RealTimeOrder, Rule::RealTimeOrder]);
    }
}
