//! Watches: in order, without a gap, nothing twice, across connections and hosts.

use crate::events::{Event, Events, Told};
use crate::support::System;

fn put(system: &System, host: usize, key: &str, value: &str) -> u64 {
    let put = system.put(host, &format!("/v1/kv/{key}"), &[], value.to_owned());
    assert!(put.status.is_success(), "{put:?}");
    put.header("evenkeel-revision").parse().unwrap()
}

fn open(system: &System, host: usize, path: &str) -> (Events, u64) {
    let mut events = system.watch(host, path);
    let Event { name, id, data } = events.next(system).unwrap();
    assert_eq!((name.as_str(), id), ("open", data["revision"].as_u64()));
    (events, id.unwrap())
}

#[test]
fn a_watcher_of_any_host_is_told_every_change_once_and_in_order() {
    let system = System::start(3, 1);
    put(&system, 0, "a/0", "before");
    let streams: Vec<(Events, u64)> =
        (0..4).map(|host| open(&system, host, "/v1/kv?prefix=a/&watch")).collect();
    let mut expected = Vec::new();
    for number in 0..40 {
        let key = format!("a/{}", number % 7);
        let value = number.to_string();
        if number % 5 == 4 {
            let gone = system.delete(number % 4, &format!("/v1/kv/{key}"), &[]);
            if gone.status == 204 {
                let revision = gone.header("evenkeel-revision").parse().unwrap();
                expected.push((revision, key, None));
            }
        } else {
            let revision = put(&system, number % 4, &key, &value);
            expected.push((revision, key, Some(value)));
        }
        // Another prefix is none of theirs.
        put(&system, 0, "b", "other");
    }
    let last = expected.last().unwrap().0;
    for (host, (mut events, since)) in streams.into_iter().enumerate() {
        let mut told = Told { last: since, ..Told::default() };
        while told.last < last {
            told.take(&events.next(&system).unwrap());
        }
        assert_eq!(told.changes, expected, "host {host}");
    }
}

#[test]
fn a_watcher_goes_on_where_it_was_told_last_at_another_host() {
    let system = System::start(3, 1);
    let (_, mut since) = open(&system, 0, "/v1/kv/k?watch");
    let mut told = Told { last: since, ..Told::default() };
    let mut expected = Vec::new();
    for round in 0..8 {
        for number in 0..3 {
            let value = format!("{round}-{number}");
            expected.push((put(&system, 0, "k", &value), "k".to_owned(), Some(value)));
        }
        put(&system, 0, "kk", "a key that begins alike");
        let path = format!("/v1/kv/k?watch&since={since}");
        let (mut events, opened) = open(&system, round % 4, &path);
        assert_eq!(opened, since);
        // It reads two and is cut off: the third comes with the next connection.
        let count = if round == 7 { expected.len() - told.changes.len() } else { 2 };
        for _ in 0..count {
            told.take(&events.next(&system).unwrap());
        }
        since = told.last;
    }
    assert_eq!(told.changes, expected);
}

#[test]
fn all_that_one_change_does_is_told_at_once() {
    let system = System::start(1, 0);
    let (mut events, _) = open(&system, 0, "/v1/kv?watch");
    let body = r#"{"then": [
        {"put": {"key": "a", "value": "1"}},
        {"put": {"key": "b", "value": "AAH/", "encoding": "base64"}},
        {"delete": {"key": "c"}}
    ]}"#;
    assert_eq!(system.post(0, "/v1/txn", body).status, 200);
    let event = events.next(&system).unwrap();
    let changes = event.data["changes"].as_array().unwrap();
    let keys: Vec<&str> = changes.iter().map(|change| change["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(changes[1]["encoding"], "base64");
    assert_eq!(changes[1]["value"], "AAH/");
}

#[test]
fn a_revision_that_is_forgotten_or_not_there_yet_is_named() {
    let system = System::start(3, 1);
    let revision = (0..20).map(|number| put(&system, 0, "k", &number.to_string())).last().unwrap();
    let through = revision - 5;
    let compact = system.post(0, "/v1/compact", &format!(r#"{{"through": {through}}}"#));
    assert_eq!(compact.status, 204);
    for host in 0..4 {
        let future = system.get(host, &format!("/v1/kv?watch&since={}", revision + 1));
        assert_eq!((future.status.as_u16(), future.code().as_str()), (400, "future-revision"));
        let (mut events, _) = open(&system, host, &format!("/v1/kv?watch&since={through}"));
        assert_eq!(events.next(&system).unwrap().id, Some(through + 1));
        system.wait_until("the host has forgotten", |system| {
            let gone = system.get_head(host, &format!("/v1/kv?watch&since={}", through - 1));
            gone == 410
        });
        let gone = system.get(host, &format!("/v1/kv?watch&since={}", through - 1));
        assert_eq!(gone.code(), "compacted");
        // Reads of the past know the same limits.
        let past = |at: u64| system.get(host, &format!("/v1/kv/k?revision={at}"));
        assert_eq!(past(through).body, (19 - 5).to_string());
        assert_eq!(past(through - 1).code(), "compacted");
        assert_eq!(past(revision + 1).code(), "future-revision");
    }
    let compact = system.post(0, "/v1/compact", r#"{"through": 1000000}"#);
    assert_eq!((compact.status.as_u16(), compact.code().as_str()), (422, "future-revision"));
}

#[test]
fn a_watcher_is_told_everything_although_the_leader_dies() {
    let mut system = System::start(3, 1);
    let leader = system.leader();
    let others: Vec<usize> = (0..4).filter(|host| *host != leader).collect();
    let mut streams: Vec<(Events, u64)> =
        others.iter().map(|host| open(&system, *host, "/v1/kv?prefix=k&watch")).collect();
    let mut expected = Vec::new();
    for number in 0..10 {
        let value = number.to_string();
        expected.push((put(&system, leader, "k", &value), "k".to_owned(), Some(value)));
    }
    system.kill(leader);
    for number in 10..20 {
        let value = number.to_string();
        expected.push((put(&system, others[0], "k", &value), "k".to_owned(), Some(value)));
    }
    for (place, host) in others.iter().enumerate() {
        let (events, since) = &mut streams[place];
        let mut told = Told { last: *since, ..Told::default() };
        while told.changes.len() < expected.len() {
            match events.next(&system) {
                Some(event) if event.name == "change" => told.take(&event),
                // It was watching through the leader, or was sent elsewhere.
                Some(_) | None => {
                    let path = format!("/v1/kv?prefix=k&watch&since={}", told.last);
                    *events = open(&system, *host, &path).0;
                }
            }
        }
        assert_eq!(told.changes, expected, "host {host}");
    }
}
