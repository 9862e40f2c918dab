//! All formats there and back.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

#[path = "support/strategies.rs"]
#[expect(dead_code, reason = "questions are not in any format here")]
mod strategies;

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, RequestId, Space};
use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::log::{DecodeError, Entry, EntryKind, Record, Snapshot, Vote};
use evenkeel_consensus::members::Members;
use evenkeel_consensus::replica::{Action, Event, Replica};
use evenkeel_consensus::restore::Restored;
use evenkeel_consensus::settings::{Limits, MemberId, Settings};
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;
use strategies::command;

proptest! {
    #[test]
    fn commands_go_there_and_back(command in command()) {
        let mut replica = single(Restored::default());
        let now = replica.poll_timeout().unwrap();
        replica.handle_timeout(now);
        run(&mut replica, now);
        let mut plain = KeySpace::new(Limits::STANDARD.state);
        let request = RequestId(1);
        replica.handle_event(Event::Propose { request, command: command.clone() }, now);
        let expected = Action::Answer { request, answer: plain.apply(command) };
        prop_assert!(run(&mut replica, now).contains(&expected));
    }

    #[test]
    fn records_go_there_and_back(
        (index, term, member, data) in (any::<u64>(), any::<u64>(), any::<u64>(), any::<Vec<u8>>())
    ) {
        let member = Some(MemberId(member)).filter(|member| member.0 != 0);
        let records = [
            Record::Reset { index, term },
            Record::Entry(Entry {
                index,
                term,
                kind: EntryKind::Command,
                data: data.clone().into(),
            }),
            Record::Entry(Entry { index, term, kind: EntryKind::Members, data: Bytes::new() }),
            Record::Vote(Vote { term, member, commit: index }),
        ];
        for record in records {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        let members = Members {
            voters: vec![MemberId(1), MemberId(4)],
            outgoing: vec![MemberId(1), MemberId(3)],
            learners: vec![MemberId(5)],
        };
        let (index, term) = (index.max(1), term.max(1));
        let snapshot = Snapshot { index, term, members, data: data.into() };
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
            drop(KeySpace::decode(&bytes.into(), Limits::STANDARD.state));
        }
    }

    /// A poison entry must not stop a member, let alone every member at once.
    #[test]
    fn any_committed_bytes_are_applied(
        poison in prop::collection::vec(any::<Vec<u8>>(), 1..20),
        formatted in any::<bool>(),
        as_members in any::<bool>(),
    ) {
        let kind = if as_members { EntryKind::Members } else { EntryKind::Command };
        let entries: Vec<Entry> = (1..)
            .zip(&poison)
            .map(|(index, bytes)| {
                let mut data = if formatted { vec![1] } else { Vec::new() };
                data.extend(bytes);
                Entry { index, term: 1, kind, data: data.into() }
            })
            .collect();
        let commit = entries.len() as u64;
        let vote = Some(Vote { term: 1, member: None, commit });
        let mut replica = single(Restored { vote, entries, ..Restored::default() });
        let request = RequestId(1);
        let command = Command::once(Change::Put {
            space: Space::User,
            key: "k".to_owned(),
            value: Bytes::new(),
            expect: Expect::Any,
            lease: None,
        });
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
fn another_format_is_named() {
    let error = Record::decode(&[2, 0, 0]).unwrap_err();
    assert_eq!(error, DecodeError::Format { found: 2, known: 1 });
    assert_eq!(error.to_string(), "format 2 is not known to this version, which reads format 1");
}
