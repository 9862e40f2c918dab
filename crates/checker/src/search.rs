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
/// left out. Gives up after `steps_max` steps, each one operation tried.
#[must_use]
pub fn search(operations: &[&Operation], steps_max: usize) -> Found {
    let calls = prepare(operations);
    let mut search =
        Search { calls: &calls, done: vec![false; calls.len()], tried: BTreeSet::new() };
    let start = Register { present: None, highest: 0 };
    let mut frames = vec![Frame { register: start, open: search.candidates(), entered_by: None }];
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
        if search.tried.insert((search.packed(), register)) {
            let open = search.candidates();
            frames.push(Frame { register, open, entered_by: Some(call) });
        } else {
            search.done[call] = false;
        }
    }
    Found::Undecided
}

/// An operation with its value as a number and times as integers.
struct Call {
    kind: OperationKind,
    value: Option<u32>,
    expect: Option<u64>,
    revision: Option<u64>,
    invoked: u64,
    latest: u64,
    required: bool,
}

/// Sorts by invocation, leaves out what surely had no effect.
fn prepare(operations: &[&Operation]) -> Vec<Call> {
    let mut values: BTreeMap<&str, u32> = BTreeMap::new();
    let mut calls: Vec<Call> = Vec::new();
    for operation in operations {
        // A read in doubt tells nothing.
        let silent = operation.outcome == Outcome::Unknown && !operation.is_write();
        if operation.outcome == Outcome::Fail || silent {
            continue;
        }
        let next = u32::try_from(values.len()).unwrap_or(u32::MAX);
        calls.push(Call {
            kind: operation.kind,
            value: operation.value.as_deref().map(|value| *values.entry(value).or_insert(next)),
            expect: operation.expect,
            revision: operation.revision.filter(|_| operation.outcome == Outcome::Ok),
            invoked: operation.invoked.as_nanos(),
            latest: operation.latest_effect().as_nanos(),
            required: operation.outcome == Outcome::Ok,
        });
    }
    calls.sort_by_key(|call| call.invoked);
    calls
}

/// A register between two operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Register {
    present: Option<Version>,
    /// Highest revision seen so far: revisions only grow.
    highest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    value: u32,
    /// `None` after a write whose answer named none, until a read or a condition tells it.
    revision: Option<u64>,
}

impl Register {
    /// Returns the register after `call`, `None` when its answer cannot have come from here.
    fn apply(self, call: &Call) -> Option<Self> {
        match call.kind {
            OperationKind::Put => self.write(call),
            OperationKind::Get => match (self.present, call.value) {
                (None, None) => Some(self),
                (Some(version), Some(value)) if version.value == value => match call.revision {
                    None => Some(self),
                    Some(revision) => self.at(revision),
                },
                _ => None,
            },
            OperationKind::Cas => match call.expect {
                None if self.present.is_none() => self.write(call),
                None => None,
                Some(expected) => self.at(expected)?.write(call),
            },
            OperationKind::Delete => match (self.present, call.required) {
                (Some(_), _) => self.moved_to(call.revision, None),
                // Nothing was there to delete: an acknowledgement would be a lie.
                (None, true) => None,
                (None, false) => Some(self),
            },
        }
    }

    fn write(self, call: &Call) -> Option<Self> {
        let version = Version { value: call.value?, revision: call.revision };
        self.moved_to(call.revision, Some(version))
    }

    fn moved_to(self, revision: Option<u64>, present: Option<Version>) -> Option<Self> {
        match revision {
            None => Some(Self { present, ..self }),
            Some(revision) if revision > self.highest => Some(Self { present, highest: revision }),
            Some(_) => None,
        }
    }

    /// Returns the register with the knowledge that its revision is `revision`.
    fn at(self, revision: u64) -> Option<Self> {
        let version = self.present?;
        match version.revision {
            Some(known) => (known == revision).then_some(self),
            None => {
                self.moved_to(Some(revision), Some(Version { revision: Some(revision), ..version }))
            }
        }
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
    fn candidates(&self) -> Vec<usize> {
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
    fn gives_up_after_the_allowed_steps() {
        let operations = history("0-9 put a @1 | 10-19 get a @1");
        let operations: Vec<&Operation> = operations.iter().collect();
        assert_eq!(search(&operations, 1), Found::Undecided);
    }
}
