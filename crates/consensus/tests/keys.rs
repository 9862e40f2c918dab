//! The key space against a slow, obvious model.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a model says only what differs")]

#[path = "support/model.rs"]
mod model;
#[path = "support/strategies.rs"]
mod strategies;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Query, Space};
use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::settings::StateLimits;
use evenkeel_consensus::wire;
use model::Model;
use proptest::prelude::*;
use strategies::{LIMITS, command, query};

/// Puts the changes of each revision in the order of their keys.
fn sorted(mut answer: Answer) -> Answer {
    if let Answer::Changes { changes, .. } = &mut answer {
        changes.sort_by(|one, other| (one.revision, &one.key).cmp(&(other.revision, &other.key)));
    }
    answer
}

proptest! {
    #[test]
    fn does_what_the_model_does(steps in prop::collection::vec((command(), query()), 1..60)) {
        let (mut keys, mut model) = (KeySpace::new(LIMITS), Model::new());
        for (command, query) in steps {
            let encoded = wire::encode_command(command.clone()).into();
            prop_assert_eq!(wire::decode_command(&encoded), Ok(command.clone()));
            let answer = keys.apply(command.clone());
            prop_assert_eq!(&answer, &model.apply(&command));
            prop_assert_eq!(wire::decode_answer(&wire::encode_answer(&answer).into()), Ok(answer));
            prop_assert_eq!(keys.revision(), model.revision());
            prop_assert_eq!(sorted(keys.query(&query)), model.query(&query), "{:?}", query);
            let answer = keys.query(&query);
            prop_assert_eq!(wire::decode_answer(&wire::encode_answer(&answer).into()), Ok(answer));
            prop_assert_eq!(wire::decode_query(&wire::encode_query(&query).into()), Ok(query));
        }
        let bytes: usize = [Space::User, Space::System]
            .into_iter()
            .flat_map(|space| {
                keys.prefix(space, "").map(|(key, version)| 256 + key.len() + version.value.len())
            })
            .sum();
        prop_assert_eq!(keys.bytes(), bytes);
    }

    #[test]
    fn a_snapshot_holds_everything(
        before in prop::collection::vec(command(), 0..40),
        after in prop::collection::vec(command(), 0..40),
    ) {
        let mut keys = KeySpace::new(LIMITS);
        for command in before {
            keys.apply(command);
        }
        let mut restored = KeySpace::decode(&keys.encode().into(), LIMITS).unwrap();
        prop_assert_eq!(&restored, &keys);
        for command in after {
            prop_assert_eq!(restored.apply(command.clone()), keys.apply(command));
        }
        prop_assert_eq!(restored, keys);
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put {
        space: Space::User,
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expect: Expect::Any,
        lease: None,
    }
}

#[test]
fn a_refusal_is_final_under_its_idempotency_key() {
    let mut keys = KeySpace::new(LIMITS);
    let absent = Change::Put {
        space: Space::User,
        key: "a".to_owned(),
        value: Bytes::new(),
        expect: Expect::Present,
        lease: None,
    };
    let refused = Command { change: absent, idempotency: Some("once".to_owned()) };
    assert_eq!(keys.apply(refused.clone()), Answer::Conflict { current: None });
    keys.apply(Command::once(put("a", "1")));
    assert_eq!(keys.apply(refused), Answer::Conflict { current: None });
}

#[test]
fn history_is_bounded_by_its_bytes() {
    let limits = StateLimits { history_bytes_max: 10_000, ..StateLimits::STANDARD };
    let mut keys = KeySpace::new(limits);
    let long = "v".repeat(1000);
    for _ in 0..50 {
        keys.apply(Command::once(put("k", &long)));
    }
    assert!((40..50).contains(&keys.compacted()), "{}", keys.compacted());
    let changes = |after| keys.query(&Query::Changes { prefix: String::new(), after, limit: 9 });
    assert_eq!(changes(1), Answer::Compacted { oldest: keys.compacted() });
    assert!(matches!(changes(keys.compacted()), Answer::Changes { through: 50, .. }));
    // One that is larger than all of it leaves nothing, and does no harm.
    keys.apply(Command::once(put("k", &"v".repeat(20_000))));
    assert_eq!(keys.compacted(), 51);
}
