//! The fast checker against the slow one, on small random histories of a register that sometimes
//! misbehaves and sometimes forgets to answer.

use std::time::Duration;

use evenkeel_checker::history::{Operation, OperationKind, Outcome, Violation};
use evenkeel_checker::search::{Found, search};
use evenkeel_checker::{linearizability, revisions};
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;

/// A register that answers in the order of its effects, with what a client may be told.
struct Register {
    rng: Rng,
    present: Option<(String, u64)>,
    revision: u64,
    next_value: u32,
}

impl Register {
    /// Carries out one random operation at `effect`, seen by its client from before to after it.
    fn operate(&mut self, effect: u64) -> Operation {
        let kind = match self.rng.below(8) {
            0..=2 => OperationKind::Get,
            3..=5 => OperationKind::Put,
            6 => OperationKind::Cas,
            _ => OperationKind::Delete,
        };
        let mut operation = Operation {
            client: "c".to_owned(),
            kind,
            key: "k".to_owned(),
            value: None,
            expect: None,
            intended: Timestamp::ZERO,
            invoked: Timestamp::from_nanos(effect.saturating_sub(self.rng.below(40))),
            returned: Timestamp::from_nanos(effect + self.rng.below(40)),
            outcome: Outcome::Ok,
            revision: None,
        };
        if matches!(kind, OperationKind::Put | OperationKind::Cas) {
            self.next_value += 1;
            operation.value = Some(format!("v{}", self.next_value));
        }
        self.apply(&mut operation);
        if self.rng.chance(1, 8) {
            operation.outcome = Outcome::Unknown;
            operation.revision = None;
            if kind == OperationKind::Get {
                operation.value = None;
            }
        }
        operation
    }

    fn apply(&mut self, operation: &mut Operation) {
        let current = self.present.as_ref().map(|(_, revision)| *revision);
        let guesses = operation.kind == OperationKind::Cas && self.rng.chance(1, 4);
        operation.expect = if guesses { Some(self.revision) } else { current };
        let applies = match operation.kind {
            OperationKind::Get => {
                operation.value = self.present.as_ref().map(|(value, _)| value.clone());
                operation.revision = current;
                return;
            }
            OperationKind::Put => true,
            OperationKind::Cas => operation.expect == current,
            OperationKind::Delete => current.is_some(),
        };
        if applies {
            self.revision += 1;
            operation.revision = Some(self.revision);
            self.present = operation.value.clone().map(|value| (value, self.revision));
        } else {
            let is_told = self.rng.chance(3, 4);
            operation.outcome = if is_told { Outcome::Refused } else { Outcome::Fail };
        }
    }
}

fn sound_history(seed: u64, length: u64) -> Vec<Operation> {
    let mut register =
        Register { rng: Rng::from_seed(seed), present: None, revision: 0, next_value: 0 };
    (0..length).map(|index| register.operate(100 + index * 10)).collect()
}

/// Spoils one operation.
fn spoil(operations: &mut [Operation], rng: &mut Rng) {
    let borrowed = operations[rng.index(operations.len())].clone();
    let operation = &mut operations[rng.index(operations.len())];
    match rng.below(5) {
        0 => operation.revision = borrowed.revision,
        1 if !operation.is_write() => operation.value = borrowed.value,
        2 => {
            operation.invoked = operation.invoked + Duration::from_nanos(100);
            operation.returned = operation.returned + Duration::from_nanos(100);
        }
        3 => operation.expect = borrowed.revision,
        _ => operation.outcome = borrowed.outcome,
    }
}

fn spoilt_history(seed: u64, length: u64, faults: u8) -> Vec<Operation> {
    let mut operations = sound_history(seed, length);
    let mut rng = Rng::from_seed(!seed);
    (0..faults).for_each(|_| spoil(&mut operations, &mut rng));
    operations
}

fn violations(operations: &[Operation]) -> Vec<Violation> {
    let verdict = linearizability::check(operations, 1_000_000);
    assert!(verdict.undecided.is_empty() && verdict.suspected.is_empty());
    verdict.violations
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 2000, ..ProptestConfig::default()
    })]

    #[test]
    fn a_sound_register_is_never_accused(seed: u64, length in 1_u64..40) {
        let operations = sound_history(seed, length);
        prop_assert_eq!(violations(&operations), Vec::new());
    }

    #[test]
    fn both_checkers_agree_on_spoilt_histories(seed: u64, length in 1_u64..12, faults in 1_u8..4) {
        let operations = spoilt_history(seed, length, faults);
        let references: Vec<&Operation> = operations.iter().collect();
        let expected = search(&references, 1_000_000);
        let found = violations(&operations);
        prop_assert_eq!(found.is_empty(), expected == Found::Order, "{:#?} {:?}", operations, found);

        // By itself, the fast checker accepts nothing that the slow one refuses.
        let complete = operations.iter().all(|operation| {
            operation.outcome != Outcome::Ok
                || operation.revision.is_some()
                || (!operation.is_write() && operation.value.is_none())
        });
        if complete && revisions::check("k", &references).is_ok() {
            prop_assert_eq!(expected, Found::Order, "{:#?}", operations);
        }
    }
}

#[test]
fn spoilt_histories_are_often_refused() {
    let refused = (0..500).filter(|seed| !violations(&spoilt_history(*seed, 12, 3)).is_empty());
    assert!(refused.count() > 100, "the property test would compare nothing but sound histories");
}
