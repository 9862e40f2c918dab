//! Locks and elections, over HTTP through any host and by the client.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Method;
use evenkeel_client::{Client, Error, LockOptions, Operation, Options, PutOptions, Transaction};
use serde_json::{Value, json};

use crate::support::{Answer, System};

/// A lease that outlasts a test, and a wait that does not.
const LONG: f64 = 60.0;

fn ask(system: &System, host: usize, lock: &str, named: &str, body: &Value) -> Answer {
    let headers: &[(&str, &str)] =
        if named.is_empty() { &[] } else { &[("idempotency-key", named)] };
    let body = Bytes::from(body.to_string());
    system.send(host, Method::POST, &format!("/v1/locks/{lock}"), headers, body)
}

#[track_caller]
fn acquire(system: &System, host: usize, lock: &str, ttl: f64, wait: f64) -> u64 {
    let body = json!({"ttl_seconds": ttl, "wait_seconds": wait, "value": format!("h{host}")});
    let answer = ask(system, host, lock, "", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_u64().unwrap()
}

fn release(system: &System, host: usize, lock: &str, token: u64) -> u16 {
    system.delete(host, &format!("/v1/locks/{lock}?token={token}"), &[]).status.as_u16()
}

fn state(system: &System, lock: &str) -> Value {
    system.get(0, &format!("/v1/locks/{lock}")).json()
}

fn wait_for_queue(system: &System, lock: &str, waiting: usize) {
    system.wait_until("the queue is so long", |system| {
        state(system, lock)["waiting"] == json!(waiting)
    });
}

#[test]
fn a_lock_passes_on_in_the_order_of_arrival() {
    let system = System::start(3, 1);
    let first = acquire(&system, 0, "l", LONG, 0.0);
    let tokens = std::thread::scope(|scope| {
        let waiting = (1..8).map(|number| {
            let one = scope.spawn({
                let system = &system;
                move || {
                    let token = acquire(system, number % 4, "l", LONG, LONG);
                    assert_eq!(state(system, "l")["holder"]["token"], token);
                    assert_eq!(release(system, (number + 1) % 4, "l", token), 204);
                    token
                }
            });
            wait_for_queue(&system, "l", number);
            one
        });
        let waiting: Vec<_> = waiting.collect();
        assert_eq!(release(&system, 3, "l", first), 204);
        let tokens = waiting.into_iter().map(|one| one.join().unwrap());
        tokens.collect::<Vec<u64>>()
    });
    assert!(first < tokens[0] && tokens.is_sorted(), "{first} {tokens:?}");
    assert_eq!(state(&system, "l")["holder"], Value::Null);
    // No lease is left behind.
    assert_eq!(system.get(0, "/v1/kv?prefix=locks/").json()["keys"], json!([]));
}

#[test]
fn only_the_holder_releases_and_proclaims() {
    let system = System::start(3, 1);
    let token = acquire(&system, 3, "l", LONG, 0.0);
    let path = |token: u64| format!("/v1/locks/l?token={token}");
    let held = ask(&system, 1, "l", "", &json!({"ttl_seconds": 5}));
    assert_eq!((held.status.as_u16(), held.code().as_str()), (409, "lock-held"));
    assert!(held.json()["error"]["message"].as_str().unwrap().contains(&token.to_string()));
    for wrong in [token - 1, token + 1, 0] {
        assert_eq!(release(&system, 1, "l", wrong), 412);
        assert_eq!(system.put(1, &path(wrong), &[], "x").code(), "not-held");
        let keep = system.post(1, &format!("/v1/locks/l/keepalive?token={wrong}"), "");
        assert_eq!(keep.code(), "not-held");
    }
    assert_eq!(system.put(2, &path(token), &[], "second").status, 204);
    let kept = system.post(0, &format!("/v1/locks/l/keepalive?token={token}"), "").json();
    assert_eq!((&kept["ttl_seconds"], &kept["token"]), (&json!(LONG), &json!(token)));
    let found = state(&system, "l");
    assert_eq!(
        (&found["holder"]["value"], &found["holder"]["token"]),
        (&json!("second"), &json!(token))
    );
    assert_eq!(release(&system, 1, "l", token), 204);
    assert_eq!(release(&system, 1, "l", token), 412);
}

#[test]
fn a_repeated_request_has_one_place() {
    let system = System::start(3, 1);
    let first = acquire(&system, 0, "l", LONG, 0.0);
    let body = json!({"ttl_seconds": LONG, "wait_seconds": LONG});
    let tokens = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4)
            .map(|host| {
                let (system, body) = (&system, &body);
                scope.spawn(move || ask(system, host, "l", "once", body).json()["token"].clone())
            })
            .collect();
        wait_for_queue(&system, "l", 1);
        // One that gives up leaves the place to the others.
        hang_up(&system, 1, "l", "Idempotency-Key: once\r\n", &body);
        assert_eq!(release(&system, 0, "l", first), 204);
        asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<Value>>()
    });
    assert!(tokens.iter().all(|token| token.is_u64() && *token == tokens[0]), "{tokens:?}");
    assert_eq!(state(&system, "l")["waiting"], 0);
    // Also once it is held.
    let again = ask(&system, 2, "l", "once", &body);
    assert_eq!(again.json()["token"], tokens[0]);
    // The lease's own name of the place: asked for twice, it is one.
    let lease = system.post(0, "/v1/leases", r#"{"ttl_seconds": 60}"#).json()["lease"].clone();
    for host in 0..4 {
        let answer = ask(&system, host, "l", "", &json!({"lease": lease}));
        assert_eq!(answer.code(), "lock-held");
        assert_eq!(state(&system, "l")["waiting"], 1);
    }
}

/// Begins to wait for a lock and leaves without a word, once one waits.
fn hang_up(system: &System, host: usize, lock: &str, headers: &str, body: &Value) {
    let url = system.url(host);
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let body = body.to_string();
    let length = body.len();
    let head = format!("POST /v1/locks/{lock} HTTP/1.1\r\nHost: a\r\n{headers}");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    wait_for_queue(system, lock, 1);
}

#[test]
fn a_client_that_leaves_gives_its_place_away() {
    let system = System::start(3, 1);
    let first = acquire(&system, 0, "l", LONG, 0.0);
    let body = json!({"ttl_seconds": LONG, "wait_seconds": LONG});
    for host in 0..4 {
        hang_up(&system, host, "l", "", &body);
        wait_for_queue(&system, "l", 0);
    }
    // One that may come back has a place for as long as its lease lasts.
    let short = json!({"ttl_seconds": 1, "wait_seconds": LONG});
    hang_up(&system, 0, "l", "Idempotency-Key: late\r\n", &short);
    wait_for_queue(&system, "l", 0);
    let late = ask(&system, 0, "l", "late", &short);
    assert_eq!((late.status.as_u16(), late.code().as_str()), (404, "no-lease"));
    assert_eq!(release(&system, 0, "l", first), 204);
}

#[test]
fn a_lock_outlives_its_leader_and_not_its_holder() {
    let mut system = System::start(3, 1);
    let leader = system.leader();
    let other = (leader + 1) % 3;
    let first = acquire(&system, leader, "l", 2.0, 0.0);
    let second = std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<u64>();
        let url = system.url(3);
        scope.spawn(move || {
            let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
            let body = json!({"ttl_seconds": 2.0, "wait_seconds": LONG}).to_string();
            let head = "POST /v1/locks/l HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
            let length = body.len();
            let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).unwrap();
            let answer = std::io::read_to_string(stream).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            sender.send(body["token"].as_u64().unwrap()).unwrap();
        });
        system.wait_until("one waits", |system| {
            system.get(other, "/v1/locks/l").json()["waiting"] == json!(1)
        });
        system.kill(leader);
        // Nobody keeps the first one's lease alive.
        receiver.recv_timeout(Duration::from_secs(30)).unwrap()
    });
    assert!(second > first);
    let late = system.delete(other, &format!("/v1/locks/l?token={first}"), &[]);
    assert_eq!(late.status, 412);
}

#[test]
fn the_token_guards_writes() {
    let system = System::start(1, 0);
    let held = ask(&system, 0, "l", "", &json!({"ttl_seconds": LONG})).json();
    let write = |value: &str| {
        let body = json!({
            "compare": [{"key": held["key"], "target": "created", "with": held["token"]}],
            "then": [{"put": {"key": "report", "value": value}}]
        });
        system.post(0, "/v1/txn", &body.to_string()).json()["succeeded"].as_bool().unwrap()
    };
    assert!(write("mine"));
    release(&system, 0, "l", held["token"].as_u64().unwrap());
    assert!(!write("late"));
    let again = ask(&system, 0, "l", "", &json!({"ttl_seconds": LONG})).json();
    assert!(again["token"].as_u64() > held["token"].as_u64());
    assert!(!write("later"));
    assert_eq!(system.get(0, "/v1/kv/report").body, "mine");
}

#[test]
fn holders_are_observed_as_they_follow_each_other() {
    let system = System::start(3, 1);
    for host in [0, 3] {
        let mut events = system.watch(host, "/v1/locks/chief?watch");
        let mut told = || {
            loop {
                let event = events.next(&system).unwrap();
                if event.name != "progress" {
                    assert_eq!(event.name, "holder");
                    return event.data["holder"].clone();
                }
            }
        };
        assert_eq!(told(), Value::Null);
        let first = acquire(&system, 1, "chief", LONG, 0.0);
        assert_eq!(told()["value"], "h1");
        system.put(0, &format!("/v1/locks/chief?token={first}"), &[], "busy");
        let busy = told();
        assert_eq!((&busy["value"], &busy["token"]), (&json!("busy"), &json!(first)));
        // Others in the queue are no news.
        std::thread::scope(|scope| {
            let second = scope.spawn(|| acquire(&system, 2, "chief", LONG, LONG));
            wait_for_queue(&system, "chief", 1);
            release(&system, 0, "chief", first);
            let second = second.join().unwrap();
            let mut seen = told();
            // Nobody, if that is what was read between the two.
            if seen.is_null() {
                seen = told();
            }
            assert_eq!(seen["token"], second);
            release(&system, 0, "chief", second);
        });
        assert_eq!(told(), Value::Null);
    }
}

fn client(system: &System, hosts: &[usize]) -> Client {
    Client::new(hosts.iter().map(|host| system.url(*host)), Options::STANDARD).unwrap()
}

fn options(ttl: u64, wait: Option<u64>, value: &'static str) -> LockOptions {
    let (ttl, wait) = (Duration::from_secs(ttl), wait.map(Duration::from_secs));
    LockOptions { ttl, wait, value: value.into() }
}

#[test]
fn a_client_holds_a_lock_until_it_lets_go() {
    let system = System::start(3, 1);
    let (one, two) = (client(&system, &[0, 1]), client(&system, &[3, 0]));
    system.block_on(async {
        let mut lock = one.lock("l", &options(1, None, "one")).await.unwrap();
        let held = two.lock("l", &options(1, Some(0), "two")).await.unwrap_err();
        assert_eq!(held.code(), "lock-held");
        // It is kept alive for longer than its lease.
        let second = two.lock("l", &options(1, Some(3), "two")).await.unwrap_err();
        assert_eq!(second.code(), "lock-held");
        // Given up while it has a place in the queue.
        let given_up = async { while one.lock_state("l").await.unwrap().waiting == 0 {} };
        let none = two.lock_unless("l", &options(60, None, "two"), given_up).await.unwrap();
        assert!(none.is_none());
        let state = two.lock_state("l").await.unwrap();
        assert_eq!((state.waiting, &*state.holder.unwrap().value), (0, &b"one"[..]));
        lock.proclaim("busy").await.unwrap();
        let put = |lock: &evenkeel_client::Lock, value: &'static str| Transaction {
            compare: vec![lock.guard()],
            success: vec![Operation::Put { key: "k".to_owned(), value: value.into(), lease: None }],
            failure: Vec::new(),
        };
        let guarded = put(&lock, "one");
        assert!(one.transact(&guarded, None).await.unwrap().succeeded);
        let token = lock.token();
        // Three times the lease has passed by now.
        let lost = tokio::select! {
            biased;
            lost = lock.lost() => Some(lost),
            () = std::future::ready(()) => None,
        };
        assert_eq!(lost, None);
        let wanted = options(1, None, "two");
        let (released, next) = tokio::join!(lock.release(), two.lock("l", &wanted));
        assert!(released.unwrap());
        assert!(next.unwrap().token() > token);
        assert!(!one.transact(&guarded, None).await.unwrap().succeeded);
    });
}

#[test]
fn a_holder_learns_that_its_lock_is_lost_before_anybody_else_holds_it() {
    let mut system = System::start(3, 0);
    let leader = system.leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let (alone, fine) = (client(&system, &[leader]), client(&system, &others));
    let ttl = 3;
    let mut lock = system.block_on(async {
        let mut lock = alone.lock("l", &options(ttl, None, "one")).await.unwrap();
        let place = lock.key().to_owned();
        // Taken away by hand.
        fine.delete(&place, &evenkeel_client::DeleteOptions::default()).await.unwrap();
        let lost = lock.lost().await;
        assert_eq!(lost.cause.code(), "not-held");
        lock.release().await.unwrap();
        alone.lock("l", &options(ttl, None, "one")).await.unwrap()
    });
    // The holder's only host is gone; the lease lives for a while.
    system.kill(leader);
    system.block_on(async {
        let waiting = async {
            let next = fine.lock("l", &options(ttl, Some(30), "two")).await.unwrap();
            (Instant::now(), next.token())
        };
        let (lost, (held, token)) = tokio::join!(lock.lost(), waiting);
        assert!(matches!(lost.cause, Error::Unreachable { .. }), "{lost:?}");
        assert!(lost.until < held, "{:?} too late", lost.until - held);
        assert!(token > lock.token());
        let put = fine.put("k", "v", &PutOptions::default()).await;
        assert!(put.is_ok(), "{put:?}");
    });
}
