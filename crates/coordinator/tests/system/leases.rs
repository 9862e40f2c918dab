//! Leases, transactions and reads of the past, over HTTP through any host.

use axum::body::Bytes;
use axum::http::Method;
use serde_json::{Value, json};

use crate::support::System;

fn grant(system: &System, host: usize, seconds: f64) -> u64 {
    let granted = system.post(host, "/v1/leases", &json!({"ttl_seconds": seconds}).to_string());
    assert_eq!(granted.status, 201, "{granted:?}");
    granted.json()["lease"].as_u64().unwrap()
}

#[test]
fn a_lease_takes_its_keys_along_unless_it_is_kept_alive() {
    let system = System::start(3, 1);
    for host in 0..4 {
        let (short, kept) = (grant(&system, host, 1.0), grant(&system, host, 2.0));
        for (key, lease) in [("short", short), ("kept", kept)] {
            let path = format!("/v1/kv/{key}?lease={lease}");
            assert!(system.put(host, &path, &[], "v").status.is_success());
        }
        let looked_at = system.get(host, &format!("/v1/leases/{kept}")).json();
        assert_eq!(looked_at["keys"], json!(["kept"]));
        assert!(looked_at["left_seconds"].as_f64().unwrap() <= 2.0);
        let keep = format!("/v1/leases/{kept}/keepalive");
        system.wait_until("the short lease has run out", |system| {
            assert_eq!(system.post(host, &keep, "").status, 200);
            system.get(host, "/v1/kv/short").status == 404
        });
        assert_eq!(system.get(host, "/v1/kv/kept").status, 200);
        let gone = system.post(host, &format!("/v1/leases/{short}/keepalive"), "");
        assert_eq!((gone.status.as_u16(), gone.code().as_str()), (404, "no-lease"));
        let put = system.put(host, &format!("/v1/kv/x?lease={short}"), &[], "v");
        assert_eq!((put.status.as_u16(), put.code().as_str()), (404, "no-lease"));
        let path = format!("/v1/leases/{kept}");
        assert_eq!(system.delete(host, &path, &[]).status, 204);
        assert_eq!(system.get(host, "/v1/kv/kept").status, 404);
        assert_eq!(system.get(host, &path).code(), "no-lease");
    }
}

#[test]
fn a_lease_survives_its_leader() {
    let mut system = System::start(3, 0);
    let leader = system.leader();
    let lease = grant(&system, leader, 4.0);
    let path = format!("/v1/kv/k?lease={lease}");
    assert_eq!(system.put(leader, &path, &[], "v").status, 201);
    let other = (leader + 1) % 3;
    system.kill(leader);
    let keep = format!("/v1/leases/{lease}/keepalive");
    assert_eq!(system.post(other, &keep, "").status, 200);
    assert_eq!(system.get(other, "/v1/kv/k").status, 200);
    system.wait_until("it has run out", |system| system.get(other, "/v1/kv/k").status == 404);
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let system = System::start(3, 1);
    let transact = |host: usize, body: Value| {
        let answer = system.post(host, "/v1/txn", &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    for host in 0..4 {
        let key = |name: &str| format!("{host}/{name}");
        let create = json!({
            "compare": [{"key": key("a"), "target": "version", "with": 0}],
            "then": [
                {"put": {"key": key("a"), "value": "1"}},
                {"put": {"key": key("b"), "value": "2"}},
                {"get": {"key": key("a")}}
            ],
            "else": [{"get": {"key": key("b")}}, {"delete": {"key": key("none")}}]
        });
        let first = transact(host, create.clone());
        assert_eq!(first["succeeded"], true);
        assert_eq!(first["results"][0], json!({"put": {"created": true}}));
        assert_eq!(first["results"][2]["get"]["found"]["value"], "1");
        let second = transact(host, create);
        assert_eq!(
            (&second["succeeded"], &second["revision"]),
            (&json!(false), &first["revision"])
        );
        assert_eq!(second["results"][0]["get"]["found"]["value"], "2");
        assert_eq!(second["results"][1], json!({"delete": {"existed": false}}));
        // Both keys were created with the same revision.
        let list = system.get(host, &format!("/v1/kv?prefix={host}/")).json();
        assert_eq!(list["keys"][0]["created"], list["keys"][1]["created"]);
    }
    let refused = |body: Value| system.post(0, "/v1/txn", &body.to_string()).code();
    let put = json!({"put": {"key": "k", "value": "v"}});
    assert_eq!(refused(json!({"then": [put, put]})), "key-twice");
    let many: Vec<Value> = (0..129).map(|n| json!({"get": {"key": n.to_string()}})).collect();
    assert_eq!(refused(json!({"then": many})), "too-many-operations");
    let lease = json!({"put": {"key": "k", "value": "v", "lease": 999}});
    assert_eq!(
        refused(json!({"then": [{"put": {"key": "other", "value": "v"}}, lease]})),
        "no-lease"
    );
    assert_eq!(system.get(0, "/v1/kv/other").status, 404);
    assert_eq!(refused(json!({"then": [{"burn": {"key": "k"}}]})), "bad-body");
    let large = "x".repeat(700 << 10);
    let put = |key: &str| json!({"put": {"key": key, "value": large}});
    let body = json!({"then": [put("a"), put("b")]}).to_string();
    // Also where it would have to be forwarded.
    for host in 0..4 {
        assert_eq!(system.post(host, "/v1/txn", &body).code(), "too-large");
    }
}

#[test]
fn a_retried_transaction_and_lease_get_the_first_answer() {
    let system = System::start(3, 1);
    let name = [("idempotency-key", "once")];
    let body = || Bytes::from_static(br#"{"then": [{"put": {"key": "k", "value": "v"}}]}"#);
    let first = system.send(0, Method::POST, "/v1/txn", &name, body());
    system.put(0, "/v1/kv/k", &[], "newer");
    let again = system.send(3, Method::POST, "/v1/txn", &name, body());
    assert_eq!(again.header("evenkeel-replayed"), "true");
    assert_eq!(again.json(), first.json());
    assert_eq!(system.get(0, "/v1/kv/k").body, "newer");
    let body = || Bytes::from_static(br#"{"ttl_seconds": 5}"#);
    let name = [("idempotency-key", "lease")];
    let leases = [0, 1].map(|host| system.send(host, Method::POST, "/v1/leases", &name, body()));
    assert_eq!(leases[0].json()["lease"], leases[1].json()["lease"]);
}

#[test]
fn the_past_is_read_in_pages() {
    let system = System::start(3, 1);
    for number in 0..10 {
        system.put(0, &format!("/v1/kv/p/{number}"), &[], "old");
    }
    let at: u64 = system.get(0, "/v1/kv?prefix=p/").json()["revision"].as_u64().unwrap();
    system.put(0, "/v1/kv/p/3", &[], "new");
    system.delete(0, "/v1/kv/p/4", &[]);
    system.put(0, "/v1/kv/p/99", &[], "new");
    for host in 0..4 {
        let (mut after, mut seen) = (String::new(), Vec::new());
        loop {
            let path = format!("/v1/kv?prefix=p/&limit=3&revision={at}&after={after}");
            let page = system.get(host, &path).json();
            for key in page["keys"].as_array().unwrap() {
                assert_eq!(key["value"], "old");
                seen.push(key["key"].as_str().unwrap().to_owned());
            }
            after = seen.last().unwrap().clone();
            if page["more"] == false {
                break;
            }
        }
        let expected: Vec<String> = (0..10).map(|number| format!("p/{number}")).collect();
        assert_eq!(seen, expected);
    }
}
