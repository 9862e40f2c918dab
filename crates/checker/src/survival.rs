//! Whether acknowledged writes survived: the history against what every member holds afterwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Operation, OperationKind, Outcome, Rule, Violation, by_key};

/// What one member holds after everything has healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The member's name.
    pub member: String,
    /// Everything that it holds where the history wrote.
    pub entries: BTreeMap<String, Entry>,
}

/// A value with the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// The revision.
    pub revision: u64,
}

/// What became of the writes of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survival {
    /// Acknowledged writes, deletes left out.
    pub acknowledged: u64,
    /// Acknowledged writes that a member lost, each counted once.
    pub lost: u64,
    /// Everything found wrong, lost writes included, at most once a key, rule and member.
    pub violations: Vec<Violation>,
}

/// Compares a history, which has ended, with what `members` hold. Written values must be unique. A
/// key that no operation of the history names must not be there.
#[must_use]
pub fn check(operations: &[Operation], members: &[Contents]) -> Survival {
    let mut survival = Survival::default();
    let keys = by_key(operations);
    for (key, operations) in &keys {
        let written = |write: &&&Operation| is_acknowledged(write) && write.value.is_some();
        survival.acknowledged += operations.iter().filter(written).count() as u64;
        let mut lost = BTreeSet::new();
        for member in members {
            let entry = member.entries.get(*key);
            let mut report = |rule, evidence: String| {
                let evidence = format!("on `{}`: {evidence}", member.member);
                survival.violations.push(Violation::new(rule, key, evidence));
            };
            let missing = lost_writes(operations, entry);
            if let Some(write) = missing.last() {
                report(Rule::LostWrite, format!("[{write}], found {}", describe(entry)));
            }
            lost.extend(missing.iter().map(|write| write.value.as_deref()));
            if let Some((rule, evidence)) = entry.and_then(|entry| misplaced(operations, entry)) {
                report(rule, evidence);
            }
        }
        survival.lost += lost.len() as u64;
    }
    survival.violations.extend(foreign(&keys, members));
    survival.violations.extend(diverging(&keys, members));
    survival
}

fn is_acknowledged(operation: &Operation) -> bool {
    operation.is_write() && operation.outcome == Outcome::Ok
}

fn describe(entry: Option<&Entry>) -> String {
    entry.map_or_else(
        || "nothing".to_owned(),
        |entry| format!("{:?} at revision {}", entry.value, entry.revision),
    )
}

/// Returns the acknowledged values that are neither there nor replaced by anything newer.
fn lost_writes<'a>(operations: &[&'a Operation], entry: Option<&Entry>) -> Vec<&'a Operation> {
    let present = entry.and_then(|entry| {
        operations
            .iter()
            .find(|write| write.is_write() && write.value.as_ref() == Some(&entry.value))
    });
    let is_lost = |write: &&Operation| match (entry, write.revision) {
        (None, _) => !operations.iter().any(|delete| could_remove(delete, write)),
        (Some(entry), _) if Some(&entry.value) == write.value.as_ref() => false,
        (Some(entry), Some(revision)) => entry.revision <= revision,
        // Without a revision only real time tells which of two writes is the newer.
        (Some(_), None) => present.is_some_and(|other| other.latest_effect() < write.invoked),
    };
    let acknowledged = operations.iter().copied();
    acknowledged
        .filter(|write| is_acknowledged(write) && write.value.is_some() && is_lost(write))
        .collect()
}

/// Returns whether `delete` can have removed what `write` wrote.
fn could_remove(delete: &Operation, write: &Operation) -> bool {
    let ordered_after = match (delete.revision, write.revision) {
        (Some(deleted), Some(written)) => deleted > written,
        _ => delete.latest_effect() >= write.invoked,
    };
    delete.kind == OperationKind::Delete && delete.may_have_written() && ordered_after
}

/// Returns what is wrong with the value that is there, if anything.
fn misplaced(operations: &[&Operation], entry: &Entry) -> Option<(Rule, String)> {
    let found = describe(Some(entry));
    let writes: Vec<&&Operation> = operations
        .iter()
        .filter(|write| write.is_write() && write.value.as_ref() == Some(&entry.value))
        .collect();
    let Some(write) = writes.iter().find(|write| write.may_have_written()) else {
        let rule = if writes.is_empty() { Rule::UnwrittenValue } else { Rule::ResurrectedWrite };
        return Some((rule, format!("found {found}, which no write left there")));
    };
    if write.revision.is_some_and(|revision| revision != entry.revision) {
        return Some((Rule::DuplicateWrite, format!("found {found}, written by [{write}]")));
    }
    let deleted_later = |delete: &&&Operation| {
        delete.kind == OperationKind::Delete
            && delete.outcome == Outcome::Ok
            && match delete.revision {
                Some(deleted) => deleted > entry.revision,
                None => write.latest_effect() < delete.invoked,
            }
    };
    let delete = operations.iter().find(deleted_later)?;
    Some((Rule::ResurrectedWrite, format!("found {found}, deleted by [{delete}]")))
}

/// Returns what stands under keys that the history does not know.
fn foreign(keys: &BTreeMap<&str, Vec<&Operation>>, members: &[Contents]) -> Vec<Violation> {
    let entries = members
        .iter()
        .flat_map(|member| member.entries.iter().map(move |(key, entry)| (member, key, entry)));
    let unknown = entries.filter(|(_, key, _)| !keys.contains_key(key.as_str()));
    let violation = |(member, key, entry): (&Contents, &String, &Entry)| {
        let evidence = format!("on `{}`: found {}", member.member, describe(Some(entry)));
        Violation::new(Rule::UnwrittenValue, key, evidence)
    };
    unknown.map(violation).collect()
}

/// Compares every member with the first.
fn diverging(keys: &BTreeMap<&str, Vec<&Operation>>, members: &[Contents]) -> Vec<Violation> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let mut violations = Vec::new();
    for key in keys.keys().copied() {
        let expected = first.entries.get(key);
        for other in others.iter().filter(|other| other.entries.get(key) != expected) {
            let evidence = format!(
                "`{}` holds {}, `{}` holds {}",
                first.member,
                describe(expected),
                other.member,
                describe(other.entries.get(key))
            );
            violations.push(Violation::new(Rule::DivergentMembers, key, evidence));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    fn holding(member: &str, entry: Option<(&str, u64)>) -> Contents {
        let entry = entry
            .map(|(value, revision)| ("k".to_owned(), Entry { value: value.to_owned(), revision }));
        Contents { member: member.to_owned(), entries: entry.into_iter().collect() }
    }

    fn check_text(text: &str, entry: Option<(&str, u64)>, lost: u64, rules: &[Rule]) {
        let survival = check(&history(text), &[holding("m", entry)]);
        let found: Vec<Rule> = survival.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!((survival.lost, found.as_slice()), (lost, rules), "{text}: {entry:?}");
    }

    #[test]
    fn accepts_what_survived() {
        check_text("0-9 put a @1", Some(("a", 1)), 0, &[]);
        check_text("0-9 put a @1 | 10-19 put b @2", Some(("b", 2)), 0, &[]);
        check_text("0-9 put a @1 | 10-19 delete @2", None, 0, &[]);
        check_text("0-9 put a @1 | 10-19 put b ?", Some(("a", 1)), 0, &[]);
        check_text("0-9 put a @1 | 10-19 put b ?", Some(("b", 2)), 0, &[]);
        check_text("0-9 put a @1 | 10-19 delete ?", None, 0, &[]);
        check_text("0-9 put a @1 | 10-19 delete", None, 0, &[]);
        check_text("0-9 put a !", None, 0, &[]);
    }

    #[test]
    fn finds_lost_writes() {
        check_text("0-9 put a @1", None, 1, &[Rule::LostWrite]);
        check_text("0-9 put a @1 | 10-19 put b @2", Some(("a", 1)), 1, &[Rule::LostWrite]);
        check_text("0-9 delete @1 | 10-19 put a @2", None, 1, &[Rule::LostWrite]);
        check_text("0-9 delete | 10-19 put a @2", None, 1, &[Rule::LostWrite]);
        check_text("0-9 put a @1 | 10-19 put b", Some(("a", 1)), 1, &[Rule::LostWrite]);
    }

    #[test]
    fn finds_resurrected_and_duplicate_writes() {
        check_text("0-9 put a !", Some(("a", 1)), 0, &[Rule::ResurrectedWrite]);
        check_text("0-9 cas a =1 #", Some(("a", 1)), 0, &[Rule::ResurrectedWrite]);
        let deleted = "0-9 put a @1 | 10-19 delete @2";
        check_text(deleted, Some(("a", 1)), 0, &[Rule::ResurrectedWrite]);
        check_text("0-9 put a @1 | 10-19 delete", Some(("a", 1)), 0, &[Rule::ResurrectedWrite]);
        check_text("0-9 put a @1", Some(("a", 5)), 0, &[Rule::DuplicateWrite]);
    }

    #[test]
    fn finds_what_nobody_wrote() {
        check_text("0-9 put a ! | 10-19 get", Some(("z", 1)), 0, &[Rule::UnwrittenValue]);
        check_text("0-9 put a /other !", Some(("a", 1)), 0, &[Rule::UnwrittenValue]);
        check_text("0-9 put a @1 /other | 10-19 delete @2 /other", None, 0, &[]);
    }

    #[test]
    fn finds_members_that_differ_and_counts_a_loss_once() {
        let members = [holding("m", Some(("a", 1))), holding("n", None), holding("o", None)];
        let survival = check(&history("0-9 put a @1"), &members);
        assert_eq!((survival.acknowledged, survival.lost), (1, 1));
        let differing = survival.violations.iter().filter(|v| v.rule == Rule::DivergentMembers);
        assert_eq!(differing.count(), 2);
    }
}
