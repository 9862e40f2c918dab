//! Linearizability of one register by search: slow, and obviously right.
//!
//! Wing and Gong's search over all orders ("Testing and Verifying Concurrent Objects", 1993) with
//! Lowe's memory of what was tried ("Testing for Linearizability", 2017). Exponential in the number
//! of concurrent operations; [`crate::revisions`] decides most histories in no time.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Operation, OperationKind, Outcome};

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// An order that explains every answer.
    Order,
    /// That there is none.
    NoOrder,
    /// Nothing: it gave up after the allowed number of steps.
    Undecided,
}

/// Searches for an order of `operations`, all on one key that was absent before the first.
///
/// An operation in doubt may stand anywhere after its invocation or be left out; a failed one is
/// left out; a refused one stands where its condition did not hold. Gives up after `steps_max` steps, each one operation tried.
#[must_use]
pub fn search(operations: &[&Operation], steps_max: usize) -> Found {
    let calls = prepare(operations);
    let mut search =
        Search { calls: &calls, done: vec![false; calls.len()], tried: BTreeSet::new() };
    let register = Register { present: None, highest: 0 };
    let open = search.candidates(&register);
    let mut frames = vec![Frame { register, open, entered_by: None }];
    for _ in 0..steps_max {
        let Some(frame) = frames.last_mut() else { return Found::NoOrder };
        if search.is_complete() {
            return Found::Order;
        }
        let Some(call) = frame.open.pop() else {
            if let Some(call) = frame.entered_by {
                search.done[call] = false;
            }
            frames.pop();
            continue;
        };
        let Some(register) = frame.register.apply(&calls[call]) else { continue };
        search.done[call] = true;
        if search.tried.insert((search.packed(), register.clone())) {
            let open = search.candidates(&register);
            frames.push(Frame { register, open, entered_by: Some(call) });
        } else {
            search.done[call] = false;
        }
    }
    Found::Undecided
}

/// What a call does to the register or tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Put,
    Get,
    Cas,
    Delete,
    /// The key was not at the expected revision.
    CasRefused,
    /// There was nothing to delete.
    DeleteRefused,
}

impl Action {
    /// Returns what an operation did, `None` when it tells nothing.
    const fn of(operation: &Operation) -> Option<Self> {
        Some(match (operation.kind, operation.outcome) {
            (_, Outcome::Fail)
            | (OperationKind::Get, Outcome::Unknown)
            | (OperationKind::Get | OperationKind::Put, Outcome::Refused) => return None,
            (OperationKind::Cas, Outcome::Refused) => Self::CasRefused,
            (OperationKind::Delete, Outcome::Refused) => Self::DeleteRefused,
            (OperationKind::Put, _) => Self::Put,
            (OperationKind::Get, _) => Self::Get,
            (OperationKind::Cas, _) => Self::Cas,
            (OperationKind::Delete, _) => Self::Delete,
        })
    }

    /// Returns whether the register stays as it is.
    const fn is_look(self) -> bool {
        matches!(self, Self::Get | Self::CasRefused | Self::DeleteRefused)
    }
}

/// An operation with its value as a number and times as integers.
struct Call {
    action: Action,
    value: Option<u32>,
    expect: Option<u64>,
    revision: Option<u64>,
    invoked: u64,
    latest: u64,
    required: bool,
}

/// Sorts by invocation, leaves out what tells nothing.
fn prepare(operations: &[&Operation]) -> Vec<Call> {
    let mut values: BTreeMap<&str, u32> = BTreeMap::new();
    let mut calls: Vec<Call> = Vec::new();
    for operation in operations {
        let Some(action) = Action::of(operation) else { continue };
        let next = u32::try_from(values.len()).unwrap_or(u32::MAX);
        calls.push(Call {
            action,
            value: operation.value.as_deref().map(|value| *values.entry(value).or_insert(next)),
            expect: operation.expect,
            revision: operation.revision.filter(|_| operation.outcome == Outcome::Ok),
            invoked: operation.invoked.as_nanos(),
            latest: operation.latest_effect().as_nanos(),
            required: operation.outcome != Outcome::Unknown,
        });
    }
    calls.sort_by_key(|call| call.invoked);
    calls
}

/// A register between two operations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Register {
    present: Option<Version>,
    /// Highest revision seen so far: revisions only grow.
    highest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    value: u32,
    /// `None` after a write whose answer named none, until a read or a condition tells it.
    revision: Option<u64>,
    /// What refusals have said that an unknown revision is not.
    not: BTreeSet<u64>,
}

impl Register {
    /// Returns the register after `call`, `None` when its answer cannot have come from here.
    fn apply(&self, call: &Call) -> Option<Self> {
        match call.action {
            Action::Put => self.write(call),
            Action::Get => match (&self.present, call.value) {
                (None, None) => Some(self.clone()),
                (Some(version), Some(value)) if version.value == value => match call.revision {
                    None => Some(self.clone()),
                    Some(revision) => self.at(revision),
                },
                _ => None,
            },
            Action::Cas => match call.expect {
                None if self.present.is_none() => self.write(call),
                None => None,
                Some(expected) => self.at(expected)?.write(call),
            },
            Action::Delete => match (&self.present, call.required) {
                (Some(_), _) => self.moved_to(call.revision, None),
                // Nothing was there to delete: an acknowledgement would be a lie.
                (None, true) => None,
                (None, false) => Some(self.clone()),
            },
            Action::CasRefused => self.not_at(call.expect),
            Action::DeleteRefused => self.present.is_none().then(|| self.clone()),
        }
    }

    fn write(&self, call: &Call) -> Option<Self> {
        let version = Version { value: call.value?, revision: call.revision, not: BTreeSet::new() };
        self.moved_to(call.revision, Some(version))
    }

    fn moved_to(&self, revision: Option<u64>, present: Option<Version>) -> Option<Self> {
        match revision {
            None => Some(Self { present, highest: self.highest }),
            Some(revision) if revision > self.highest => Some(Self { present, highest: revision }),
            Some(_) => None,
        }
    }

    /// Returns the register with the knowledge that its revision is `revision`.
    fn at(&self, revision: u64) -> Option<Self> {
        let version = self.present.as_ref()?;
        match version.revision {
            Some(known) => (known == revision).then(|| self.clone()),
            None if version.not.contains(&revision) => None,
            None => {
                let (value, not) = (version.value, BTreeSet::new());
                self.moved_to(
                    Some(revision),
                    Some(Version { value, revision: Some(revision), not }),
                )
            }
        }
    }

    /// Returns the register with the knowledge that its revision is not `refused`, where `None`
    /// stands for an absent key.
    fn not_at(&self, refused: Option<u64>) -> Option<Self> {
        let mut register = self.clone();
        match (&mut register.present, refused) {
            (None, None) => return None,
            (None, Some(_)) | (Some(_), None) => {}
            (Some(version), Some(refused)) => match version.revision {
                Some(known) if known == refused => return None,
                Some(_) => {}
                // Whatever its revision is, it is higher than all before.
                None if refused <= self.highest => {}
                None => {
                    version.not.insert(refused);
                }
            },
        }
        Some(register)
    }
}

struct Frame {
    register: Register,
    /// Calls that may come next and were not tried yet; the last is tried first.
    open: Vec<usize>,
    entered_by: Option<usize>,
}

struct Search<'a> {
    calls: &'a [Call],
    done: Vec<bool>,
    tried: BTreeSet<(Vec<u64>, Register)>,
}

impl Search<'_> {
    fn is_complete(&self) -> bool {
        self.calls.iter().zip(&self.done).all(|(call, done)| *done || !call.required)
    }

    /// Returns the calls that no undone call precedes, the most promising last.
    fn candidates(&self, register: &Register) -> Vec<usize> {
        let mut earliest_return = u64::MAX;
        let mut open = Vec::new();
        for (index, call) in self.calls.iter().enumerate() {
            if call.invoked > earliest_return {
                break;
            }
            if !self.done[index] {
                earliest_return = earliest_return.min(call.latest);
                open.push(index);
            }
        }
        // A look that is right now and teaches nothing can as well come now: in any order that has
        // it later, it can be moved here without a difference to the rest.
        let is_free = |index: &&usize| {
            let call = &self.calls[**index];
            call.action.is_look() && register.apply(call).as_ref() == Some(register)
        };
        if let Some(look) = open.iter().find(is_free) {
            return vec![*look];
        }
        // Revisions tell the order; what names none, and what may be left out, is tried last.
        open.sort_by_key(|&index| {
            let call = &self.calls[index];
            (call.required, std::cmp::Reverse(call.revision.unwrap_or(u64::MAX)))
        });
        open
    }

    fn packed(&self) -> Vec<u64> {
        let pack = |chunk: &[bool]| {
            chunk.iter().enumerate().fold(0, |word, (bit, done)| word | u64::from(*done) << bit)
        };
        self.done.chunks(64).map(pack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::parse::history;

    /// Checks a history in the notation of [`crate::history::parse`].
    fn check(text: &str, expected: Found) {
        let operations = history(text);
        let operations: Vec<&Operation> = operations.iter().collect();
        assert_eq!(search(&operations, 100_000), expected, "{text}");
    }

    #[test]
    fn accepts_what_one_register_can_do() {
        check("0-9 get", Found::Order);
        check("0-9 put a @1 | 10-19 get a @1", Found::Order);
        check("0-9 put a @1 | 5-19 put b @2 | 6-7 get a @1 | 20-29 get b @2", Found::Order);
        check("0-9 put a @1 | 10-19 cas b =1 @2 | 20-29 delete @3 | 30-39 get", Found::Order);
        check("0-9 cas a =absent @1 | 10-19 get a @1", Found::Order);
    }

    #[test]
    fn a_write_in_doubt_may_take_effect_late_or_never() {
        check("0-9 put a @1 | 10-19 put b ? | 20-29 get a @1 | 30-39 get b @2", Found::Order);
        check("0-9 put a @1 | 10-19 put b ? | 20-29 get a @1", Found::Order);
        check("0-9 put a @1 | 10-19 delete ? | 20-29 get a @1 | 30-39 get", Found::Order);
        check("0-9 put b ? | 10-19 delete @2 | 20-29 get", Found::Order);
        check("0-9 put a @1 | 10-19 put b ? | 20-29 get b @2 | 30-39 get a @1", Found::NoOrder);
        check("10-19 put b ? | 0-9 get b @2", Found::NoOrder);
    }

    #[test]
    fn refuses_what_no_register_can_do() {
        check("0-9 put a @1 | 10-19 get", Found::NoOrder);
        check("0-9 put a @1 | 10-19 put b @2 | 20-29 get a @1", Found::NoOrder);
        check("0-9 put a @2 | 10-19 put b @1", Found::NoOrder);
        check("0-9 put a @1 | 10-19 put b @2 | 20-29 cas c =1 @3", Found::NoOrder);
        check("0-9 put a ! | 10-19 get a @1", Found::NoOrder);
        check("0-9 delete @1", Found::NoOrder);
        check("0-9 put a @1 | 10-19 get a @2", Found::NoOrder);
    }

    #[test]
    fn a_refusal_needs_a_moment_at_which_its_condition_did_not_hold() {
        check("0-9 put a @5 | 10-19 cas b =5 #", Found::NoOrder);
        check("0-9 put a @5 | 10-19 delete #", Found::NoOrder);
        check("0-9 put a @5 | 10-19 put b ? | 20-29 cas c =5 #", Found::Order);
        check("0-9 put a @5 | 10-19 delete ? | 20-29 delete #", Found::Order);
        // A write in doubt that was not at 6 when a condition asked for it is not at 6 later.
        check("0-9 put a ? | 10-19 get a | 20-29 cas b =6 # | 30-39 get a @6", Found::NoOrder);
        check("0-9 put a ? | 10-19 get a | 20-29 cas b =6 # | 30-39 get a @7", Found::Order);
    }

    #[test]
    fn gives_up_after_the_allowed_steps() {
        let operations = history("0-9 put a @1 | 10-19 get a @1");
        let operations: Vec<&Operation> = operations.iter().collect();
        assert_eq!(search(&operations, 1), Found::Undecided);
    }
}
