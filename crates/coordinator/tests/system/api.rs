//! The HTTP API, through every host: voters and one that does not vote.

use axum::body::Bytes;
use axum::http::Method;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Change, Command, Expect, Query, Space};
use evenkeel_coordinator::Request;

use crate::support::{STORE_BYTES_MAX, System};

const HOSTS: usize = 4;

#[test]
fn every_host_answers_for_every_key() {
    let system = System::start(3, 1);
    for host in 0..HOSTS {
        let path = format!("/v1/kv/key/{host}");
        let put = system.put(host, &path, &[], format!("by {host}"));
        assert_eq!((put.status, put.body.len()), (201.try_into().unwrap(), 0));
        assert_eq!(put.header("evenkeel-host"), format!("h{host}"));
        let etag = put.header("etag");
        assert_eq!(etag, format!("\"{}\"", put.header("evenkeel-revision")));
        for reader in 0..HOSTS {
            let get = system.get(reader, &path);
            assert_eq!(
                (get.status.as_u16(), &get.body[..]),
                (200, format!("by {host}").as_bytes())
            );
            assert_eq!(get.header("etag"), etag);
            assert_eq!(get.header("content-type"), "application/octet-stream");
        }
        let again = system.put(host, &path, &[], "new");
        assert_eq!(again.status, 200);
        assert_ne!(again.header("etag"), etag);
        assert_eq!(system.delete(host, &path, &[]).status, 204);
        assert_eq!(system.delete(host, &path, &[]).status, 404);
        let missing = system.get(host, &path);
        assert_eq!((missing.status.as_u16(), missing.code().as_str()), (404, "not-found"));
        assert!(!missing.header("evenkeel-revision").is_empty());
    }
}

#[test]
fn a_full_store_takes_no_more_but_answers_and_deletes() {
    let system = System::start(3, 1);
    let value = || vec![b'x'; 1 << 20];
    let full = STORE_BYTES_MAX / value().len();
    for number in 0..full - 1 {
        assert_eq!(system.put(0, &format!("/v1/kv/large-{number}"), &[], value()).status, 201);
    }
    for host in [system.leader(), 3] {
        let put = system.put(host, "/v1/kv/more", &[], value());
        assert_eq!((put.status.as_u16(), put.code().as_str()), (507, "store-full"));
        assert_eq!(put.header("evenkeel-outcome"), "none");
        assert_eq!(system.get(host, "/v1/kv/more").status, 404);
        assert_eq!(system.get(host, "/v1/kv/large-0").status, 200);
        // What makes it no larger is taken.
        assert_eq!(system.put(host, "/v1/kv/large-0", &[], value()).status, 200);
    }
    assert_eq!(system.put(3, "/v1/kv/large-0", &[], "small").status, 200);
    assert_eq!(system.delete(3, "/v1/kv/large-1", &[]).status, 204);
    assert_eq!(system.put(3, "/v1/kv/more", &[], value()).status, 201);
}

#[test]
fn the_systems_own_keys_find_room_in_a_full_store() {
    let system = System::start(1, 0);
    for number in 0..STORE_BYTES_MAX >> 20 {
        system.put(0, &format!("/v1/kv/large-{number}"), &[], vec![b'x'; 1 << 20]);
    }
    assert_eq!(system.put(0, "/v1/kv/more", &[], vec![b'x'; 1 << 20]).status, 507);
    let plan = Command::once(Change::Put {
        space: Space::System,
        key: "plan".to_owned(),
        value: Bytes::from(vec![b'x'; 1 << 20]),
        expect: Expect::Any,
        lease: None,
    });
    let answer = system.block_on(system.coordinator(0).execute(Request::Command(plan)));
    assert!(matches!(answer, Ok(Answer::Written { .. })), "{answer:?}");
}

#[test]
fn conditions_guard_changes() {
    let system = System::start(3, 1);
    for host in [system.leader(), 3] {
        let path = format!("/v1/kv/guarded-{host}");
        let absent: &[(&str, &str)] = &[("if-none-match", "*")];
        let present: &[(&str, &str)] = &[("if-match", "*")];
        assert_eq!(system.put(host, &path, present, "a").status, 412);
        let created = system.put(host, &path, absent, "a");
        assert_eq!(created.status, 201);
        let refused = system.put(host, &path, absent, "b");
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (412, "conflict"));
        assert_eq!(refused.header("etag"), created.header("etag"));

        let replaced = system.put(host, &path, &[("if-match", created.header("etag"))], "b");
        assert_eq!(replaced.status, 200);
        assert_eq!(system.delete(host, &path, &[("if-match", created.header("etag"))]).status, 412);
        let etag = replaced.header("etag");
        let unchanged = [("if-none-match", etag)];
        let read = system.send(host, Method::GET, &path, &unchanged, Bytes::new());
        assert_eq!((read.status.as_u16(), read.body.len()), (304, 0));
        assert_eq!(system.delete(host, &path, &[("if-match", etag)]).status, 204);
    }
}

#[test]
fn a_retry_gets_the_first_answer() {
    let system = System::start(3, 1);
    let key: &[(&str, &str)] = &[("idempotency-key", "order-1"), ("if-none-match", "*")];
    let first = system.put(3, "/v1/kv/order", key, "one");
    assert_eq!((first.status.as_u16(), first.header("evenkeel-replayed")), (201, ""));
    assert_eq!(system.put(0, "/v1/kv/order", &[], "two").status, 200);
    for host in 0..HOSTS {
        let again = system.put(host, "/v1/kv/order", key, "one");
        assert_eq!((again.status.as_u16(), again.header("evenkeel-replayed")), (201, "true"));
        assert_eq!(again.header("etag"), first.header("etag"));
    }
    assert_eq!(&system.get(1, "/v1/kv/order").body[..], b"two");
    let other = system.put(1, "/v1/kv/order", key, "three");
    assert_eq!((other.status.as_u16(), other.code().as_str()), (422, "idempotency-mismatch"));
}

#[test]
fn lists_begin_alike_and_are_bounded() {
    let system = System::start(3, 1);
    for name in ["a", "b", "c"] {
        assert_eq!(system.put(0, &format!("/v1/kv/list/{name}"), &[], name).status, 201);
    }
    assert_eq!(system.put(0, "/v1/kv/list/d", &[], vec![0xff, 0xfe, 0xfb]).status, 201);
    assert_eq!(system.put(0, "/v1/kv/other", &[], "x").status, 201);
    for host in 0..HOSTS {
        for stale in ["", "&stale"] {
            system.wait_until("a stale list is complete", |system| {
                let list = system.get(host, &format!("/v1/kv?prefix=list/{stale}"));
                list.json()["keys"].as_array().unwrap().len() == 4
            });
            let list = system.get(host, &format!("/v1/kv?prefix=list%2F&limit=3{stale}")).json();
            let keys: Vec<&str> = list["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["key"].as_str().unwrap())
                .collect();
            assert_eq!(
                (keys, list["more"].as_bool()),
                (vec!["list/a", "list/b", "list/c"], Some(true))
            );
        }
        let list = system.get(host, "/v1/kv?prefix=list/d").json();
        assert_eq!(list["keys"][0]["value"], "//77");
        assert_eq!(list["keys"][0]["encoding"], "base64");
        assert_eq!(list["more"], false);
    }
    // Five values of 1 MiB are more than one list carries.
    for number in 0..5 {
        let path = format!("/v1/kv/large/{number}");
        assert_eq!(system.put(3, &path, &[], vec![b'x'; 1 << 20]).status, 201);
    }
    let list = system.get(3, "/v1/kv?prefix=large/").json();
    assert_eq!((list["keys"].as_array().unwrap().len(), list["more"].as_bool()), (3, Some(true)));
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let system = System::start(1, 1);
    for host in 0..2 {
        let check =
            |method: Method, path: &str, headers: &[(&str, &str)], expected: (u16, &str)| {
                let answer = system.send(host, method, path, headers, Bytes::from_static(b"x"));
                let code = answer.code();
                assert_eq!((answer.status.as_u16(), code.as_str()), expected, "{path} {headers:?}");
            };
        let long = format!("/v1/kv/{}", "k".repeat(513));
        check(Method::PUT, &long, &[], (400, "bad-key"));
        check(Method::GET, "/v1/kv/", &[], (400, "bad-key"));
        check(Method::GET, "/v1/kv/%ff", &[], (400, "bad-key"));
        check(Method::GET, "/v1/kv?limit=0", &[], (400, "bad-parameter"));
        check(Method::GET, "/v1/kv/a?stael", &[], (400, "bad-parameter"));
        check(Method::PUT, "/v1/kv/a", &[("if-match", "7")], (400, "bad-header"));
        let long = "i".repeat(129);
        check(Method::PUT, "/v1/kv/a", &[("idempotency-key", &long)], (400, "bad-header"));
        check(Method::POST, "/v1/kv/a", &[], (405, "method-not-allowed"));
        let large = system.put(host, "/v1/kv/a", &[], vec![b'x'; (1 << 20) + 1]);
        assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "too-large"));
        assert_eq!(large.header("evenkeel-outcome"), "none");
        assert_eq!(system.put(host, "/v1/kv/a", &[], vec![b'x'; 1 << 20]).status.as_u16() / 100, 2);
    }
    // Nobody from another system, or of another version, is heard.
    let path = "/internal/coordinator/leader";
    assert_eq!(system.get(0, path).status, 409);
    let headers = [("evenkeel-system", "blog"), ("evenkeel-format", "2")];
    assert_eq!(system.send(0, Method::GET, path, &headers, Bytes::new()).status, 409);
    let headers = [("evenkeel-system", "shop"), ("evenkeel-format", "2")];
    assert_eq!(system.send(0, Method::GET, path, &headers, Bytes::new()).status, 200);
}

#[test]
fn the_system_has_keys_of_its_own() {
    let system = System::start(3, 1);
    assert_eq!(system.put(3, "/v1/kv/plan", &[], "a user's").status, 201);
    let mut changes: Vec<_> = (0..3).map(|host| system.coordinator(host).changes()).collect();
    let before: Vec<u64> = changes.iter_mut().map(|c| *c.borrow_and_update()).collect();
    let plan = Command::once(Change::Put {
        space: Space::System,
        key: "plan".to_owned(),
        value: Bytes::from_static(b"the system's"),
        expect: Expect::Absent,
        lease: None,
    });
    let written = system.block_on(system.coordinator(3).execute(Request::Command(plan)));
    let Ok(Answer::Written { revision, created: true, .. }) = written else {
        panic!("{written:?}")
    };
    for (changes, before) in changes.iter_mut().zip(before) {
        assert!(before < revision);
        system.block_on(changes.wait_for(|change| *change == revision)).unwrap();
    }
    let query = || Query::Get { space: Space::System, key: "plan".to_owned(), at: None };
    for host in 0..HOSTS {
        let read = system.block_on(system.coordinator(host).execute(Request::Query(query())));
        assert!(
            matches!(read, Ok(Answer::Value { version, .. }) if version.value == "the system's")
        );
        let stale = system.block_on(system.coordinator(host).stale(query()));
        assert!(matches!(stale, Ok(Answer::Value { .. })), "{stale:?}");
    }
    assert_eq!(&system.get(0, "/v1/kv/plan").body[..], b"a user's");
}
