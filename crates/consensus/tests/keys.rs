//! The key space against a slow, obvious model, and all formats there and back.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_consensus::command::{
    Answer, Bytes, Command, Expect, KeyEntry, Query, RequestId, Space,
};
use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::log::{DecodeError, Entry, Record, Snapshot, Vote};
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::restore::Restored;
use evenkeel_consensus::settings::{Limits, MemberId, Settings};
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;

/// How many idempotency keys the tests' key spaces remember.
const REMEMBERED: usize = 3;

/// A key space written as plainly as possible: a list of everything that was ever applied.
#[derive(Default)]
struct Model {
    changes: Vec<Change>,
    first_answers: Vec<(String, Command, Answer)>,
}

struct Change {
    space: Space,
    key: String,
    /// None: deleted.
    value: Option<Bytes>,
}

impl Model {
    fn revision(&self) -> u64 {
        self.changes.len() as u64
    }

    fn find(&self, space: Space, key: &str) -> Option<(Bytes, u64)> {
        let (place, change) = self
            .changes
            .iter()
            .enumerate()
            .rfind(|(_, change)| change.space == space && change.key == key)?;
        change.value.clone().map(|value| (value, place as u64 + 1))
    }

    fn apply(&mut self, command: &Command) -> Answer {
        let (Command::Put { idempotency, .. } | Command::Delete { idempotency, .. }) = command;
        let Some(name) = idempotency else { return self.change(command) };
        let remembered = self.first_answers.iter().rev().take(REMEMBERED);
        match remembered.clone().find(|(known, ..)| known == name) {
            Some((_, first, _)) if first != command => Answer::IdempotencyMismatch,
            Some((_, _, Answer::Written { revision, created, .. })) => {
                Answer::Written { revision: *revision, created: *created, replayed: true }
            }
            Some((_, _, Answer::Deleted { revision, .. })) => {
                Answer::Deleted { revision: *revision, replayed: true }
            }
            Some((_, _, answer)) => answer.clone(),
            None => {
                let answer = self.change(command);
                self.first_answers.push((name.clone(), command.clone(), answer.clone()));
                answer
            }
        }
    }

    fn change(&mut self, command: &Command) -> Answer {
        let (Command::Put { space, key, expect, .. } | Command::Delete { space, key, expect, .. }) =
            command;
        let current = self.find(*space, key).map(|(_, revision)| revision);
        let refused = match expect {
            Expect::Any => false,
            Expect::Absent => current.is_some(),
            Expect::Present => current.is_none(),
            Expect::Revision(revision) => current != Some(*revision),
        };
        let value = match command {
            _ if refused => return Answer::Conflict { current },
            Command::Delete { .. } if current.is_none() => return Answer::NotFound,
            Command::Delete { .. } => None,
            Command::Put { value, .. } => Some(value.clone()),
        };
        let deleted = value.is_none();
        self.changes.push(Change { space: *space, key: key.clone(), value });
        let revision = self.revision();
        if deleted {
            Answer::Deleted { revision, replayed: false }
        } else {
            Answer::Written { revision, created: current.is_none(), replayed: false }
        }
    }

    fn query(&self, query: &Query) -> Answer {
        let store_revision = self.revision();
        match query {
            Query::Get { space, key } => match self.find(*space, key) {
                Some((value, revision)) => Answer::Value { value, revision, store_revision },
                None => Answer::Absent { store_revision },
            },
            Query::Prefix { space, prefix, limit } => {
                let keys: BTreeMap<&String, ()> =
                    self.changes.iter().map(|change| (&change.key, ())).collect();
                let mut entries: Vec<KeyEntry> = keys
                    .into_keys()
                    .filter(|key| key.starts_with(prefix))
                    .filter_map(|key| {
                        let (value, revision) = self.find(*space, key)?;
                        Some(KeyEntry { key: key.clone(), value, revision })
                    })
                    .collect();
                let more = entries.len() > *limit;
                entries.truncate(*limit);
                Answer::Entries { entries, more, store_revision }
            }
        }
    }
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![Just(Space::User), Just(Space::System)]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a"), Just("a/b"), Just("a/c"), Just("ä"), Just("\u{10ffff}")]
        .prop_map(str::to_owned)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        4 => Just(Expect::Any),
        1 => Just(Expect::Absent),
        1 => Just(Expect::Present),
        2 => (0_u64..30).prop_map(Expect::Revision),
    ]
}

fn idempotency() -> impl Strategy<Value = Option<String>> {
    prop_oneof![3 => Just(None), 2 => (0..6).prop_map(|number| Some(format!("i{number}")))]
}

fn command() -> impl Strategy<Value = Command> {
    let value = prop_oneof![Just(""), Just("v"), Just("w")].prop_map(Bytes::from);
    (space(), key(), expect(), idempotency(), prop::option::weighted(0.7, value)).prop_map(
        |(space, key, expect, idempotency, value)| match value {
            Some(value) => Command::Put { space, key, value, expect, idempotency },
            None => Command::Delete { space, key, expect, idempotency },
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        (space(), key()).prop_map(|(space, key)| Query::Get { space, key }),
        (space(), key(), 0_usize..5).prop_map(|(space, prefix, limit)| Query::Prefix {
            space,
            prefix,
            limit
        }),
    ]
}

proptest! {
    #[test]
    fn does_what_the_model_does(steps in prop::collection::vec((command(), query()), 1..60)) {
        let (mut keys, mut model) = (KeySpace::new(REMEMBERED), Model::default());
        for (command, query) in steps {
            prop_assert_eq!(keys.apply(command.clone()), model.apply(&command));
            prop_assert_eq!(keys.query(&query), model.query(&query));
            prop_assert_eq!(keys.revision(), model.revision());
        }
        let bytes: usize = [Space::User, Space::System]
            .into_iter()
            .flat_map(|space| keys.prefix(space, "").map(|(key, value, _)| key.len() + value.len()))
            .sum();
        prop_assert_eq!(keys.bytes(), bytes);
    }

    #[test]
    fn a_snapshot_holds_everything(
        before in prop::collection::vec(command(), 0..40),
        after in prop::collection::vec(command(), 0..40),
    ) {
        let mut keys = KeySpace::new(REMEMBERED);
        for command in before {
            keys.apply(command);
        }
        let mut restored = KeySpace::decode(&keys.encode().into(), REMEMBERED).unwrap();
        prop_assert_eq!(&restored, &keys);
        for command in after {
            prop_assert_eq!(restored.apply(command.clone()), keys.apply(command));
        }
        prop_assert_eq!(restored, keys);
    }

    #[test]
    fn records_go_there_and_back(
        (index, term, member, data) in (any::<u64>(), any::<u64>(), any::<u64>(), any::<Vec<u8>>())
    ) {
        let member = Some(MemberId(member)).filter(|member| member.0 != 0);
        let records = [
            Record::Reset { index, term },
            Record::Entry(Entry { index, term, data: data.clone().into() }),
            Record::Vote(Vote { term, member, commit: index }),
        ];
        for record in records {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        let voters = vec![MemberId(3), MemberId(1)];
        let (index, term) = (index.max(1), term.max(1));
        let snapshot = Snapshot { index, term, voters, data: data.into() };
        prop_assert_eq!(Snapshot::decode(snapshot.encode()), Ok(snapshot));
    }

    #[test]
    fn foreign_bytes_are_no_panic(bytes in any::<Vec<u8>>()) {
        let mut formatted = vec![1];
        formatted.extend(&bytes);
        for bytes in [bytes, formatted] {
            // Whether they decode is theirs to say.
            drop(Record::decode(&bytes));
            drop(Snapshot::decode(bytes.clone()));
            drop(KeySpace::decode(&bytes.into(), REMEMBERED));
        }
    }

    /// A poison entry must not stop a member, let alone every member at once.
    #[test]
    fn any_committed_bytes_are_applied(
        poison in prop::collection::vec(any::<Vec<u8>>(), 1..20),
        formatted in any::<bool>(),
    ) {
        let entries: Vec<Entry> = (1..)
            .zip(&poison)
            .map(|(index, bytes)| {
                let mut data = if formatted { vec![1] } else { Vec::new() };
                data.extend(bytes);
                Entry { index, term: 1, data: data.into() }
            })
            .collect();
        let commit = entries.len() as u64;
        let vote = Some(Vote { term: 1, member: None, commit });
        let mut replica = single(Restored { vote, entries, ..Restored::default() });
        let request = RequestId(1);
        let command = Command::Put {
            space: Space::User,
            key: "k".to_owned(),
            value: Bytes::new(),
            expect: Expect::Any,
            idempotency: None,
        };
        let mut now = Timestamp::ZERO;
        let mut answered = false;
        run(&mut replica, now);
        now = replica.poll_timeout().unwrap();
        replica.handle_timeout(now);
        run(&mut replica, now);
        replica.handle_event(Event::Propose { request, command }, now);
        for action in run(&mut replica, now) {
            answered |= matches!(action, Action::Answer { answer: Answer::Written { .. }, .. });
        }
        prop_assert!(answered);
        prop_assert!(replica.counters().unknown_commands <= commit);
    }
}

fn single(restored: Restored) -> Replica {
    let settings = Settings {
        member: MemberId(1),
        voters: vec![MemberId(1)],
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(150),
        seed: 0,
        limits: Limits::STANDARD,
        defect: None,
    };
    Replica::new(settings, restored, Timestamp::ZERO).unwrap()
}

fn run(replica: &mut Replica, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = replica.poll_action() {
        if let Action::Persist(persist) = &action {
            replica.handle_event(Event::Persisted { number: persist.number }, now);
        }
        actions.push(action);
    }
    actions
}

#[test]
fn a_refusal_is_final_under_its_idempotency_key() {
    let mut keys = KeySpace::new(REMEMBERED);
    let put = |expect, idempotency: Option<&str>| Command::Put {
        space: Space::User,
        key: "a".to_owned(),
        value: Bytes::from_static(b"1"),
        expect,
        idempotency: idempotency.map(str::to_owned),
    };
    let refused = put(Expect::Present, Some("once"));
    assert_eq!(keys.apply(refused.clone()), Answer::Conflict { current: None });
    keys.apply(put(Expect::Any, None));
    assert_eq!(keys.apply(refused), Answer::Conflict { current: None });
}

#[test]
fn another_format_is_named() {
    let error = Record::decode(&[2, 0, 0]).unwrap_err();
    assert_eq!(error, DecodeError::Format { found: 2, known: 1 });
    assert_eq!(error.to_string(), "format 2 is not known to this version, which reads format 1");
}
