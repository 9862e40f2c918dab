//! Commands and questions at random, over few keys so that they meet.

use std::time::Duration;

use evenkeel_consensus::command::{
    Bytes, Change, Command, Compare, Expect, LeaseId, Operand, Operation, Query, Relation, Space,
    Transaction,
};
use evenkeel_consensus::settings::StateLimits;
use proptest::prelude::*;

/// Limits so low that random commands meet all of them.
pub(crate) const LIMITS: StateLimits = StateLimits {
    idempotency_max: 3,
    history_changes_max: 12,
    history_bytes_max: usize::MAX,
    leases_max: 3,
    lease_keys_max: 2,
    operations_max: 6,
};

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![3 => Just(Space::User), 1 => Just(Space::System)]
}

pub(crate) fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a"), Just("a/b"), Just("a/c"), Just("ä"), Just("\u{10ffff}")]
        .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(""), Just("v"), Just("w")].prop_map(Bytes::from)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        4 => Just(Expect::Any),
        1 => Just(Expect::Absent),
        1 => Just(Expect::Present),
        2 => (0_u64..30).prop_map(Expect::Revision),
    ]
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1_u64..5).prop_map(LeaseId)
}

fn some_lease() -> impl Strategy<Value = Option<LeaseId>> {
    prop::option::weighted(0.3, lease())
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (key(), value(), some_lease()).prop_map(|(key, value, lease)| Operation::Put {
            key,
            value,
            lease
        }),
        key().prop_map(|key| Operation::Delete { key }),
        key().prop_map(|key| Operation::Get { key }),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Less),
        Just(Relation::Greater),
    ];
    let operand = prop_oneof![
        (0_u64..20).prop_map(Operand::Revision),
        (0_u64..20).prop_map(Operand::Created),
        (0_u64..4).prop_map(Operand::Version),
        (0_u64..4).prop_map(Operand::Lease),
        value().prop_map(Operand::Value),
    ];
    (key(), relation, operand).prop_map(|(key, relation, operand)| Compare {
        key,
        relation,
        operand,
    })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let operations = || prop::collection::vec(operation(), 0..4);
    (prop::collection::vec(compare(), 0..3), operations(), operations())
        .prop_map(|(compare, success, failure)| Transaction { compare, success, failure })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (space(), key(), value(), expect(), some_lease()).prop_map(
            |(space, key, value, expect, lease)| Change::Put { space, key, value, expect, lease }
        ),
        3 => (space(), key(), expect())
            .prop_map(|(space, key, expect)| Change::Delete { space, key, expect }),
        4 => transaction().prop_map(Change::Transaction),
        2 => (0_u64..5).prop_map(|seconds| Change::GrantLease { ttl: Duration::from_secs(seconds) }),
        2 => lease().prop_map(|lease| Change::RevokeLease { lease }),
        1 => (0_u64..30).prop_map(|through| Change::Compact { through }),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let idempotency =
        prop_oneof![3 => Just(None), 2 => (0..6).prop_map(|number| Some(format!("i{number}")))];
    (change(), idempotency).prop_map(|(change, idempotency)| Command { change, idempotency })
}

fn past() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0_u64..40)
}

pub(crate) fn query() -> impl Strategy<Value = Query> {
    let at = |space: Space, at: Option<u64>| at.filter(|_| space == Space::User);
    prop_oneof![
        (space(), key(), past()).prop_map(move |(space, key, past)| Query::Get {
            space,
            key,
            at: at(space, past)
        }),
        (space(), key(), prop::option::of(key()), 0_usize..5, past()).prop_map(
            move |(space, prefix, after, limit, past)| Query::Range {
                space,
                prefix,
                after,
                limit,
                at: at(space, past)
            }
        ),
        (key(), 0_u64..40, 1_usize..6).prop_map(|(prefix, after, limit)| Query::Changes {
            prefix,
            after,
            limit
        }),
        lease().prop_map(|lease| Query::Lease { lease }),
    ]
}
