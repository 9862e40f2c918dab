//! What happens when hosts go, and what is there when they come back.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Method;
use evenkeel_coordinator::log::{SEGMENT_MIN, Space};

use crate::support::{Answer, System};

fn put_once(system: &System, host: usize, path: &str) -> Answer {
    system.send(host, Method::PUT, path, &[], Bytes::from(vec![b'x'; 2000]))
}

#[test]
fn writes_go_on_when_the_leader_dies() {
    let mut system = System::start(3, 1);
    for round in 0..3 {
        let path = |name: &str| format!("/v1/kv/{name}-{round}");
        assert_eq!(system.put(3, &path("before"), &[], "x").status, 201);
        let leader = system.leader();
        system.kill(leader);
        let begun = Instant::now();
        for host in (0..4).filter(|host| *host != leader) {
            let idempotency = format!("{round}-{host}");
            let headers = [("idempotency-key", idempotency.as_str())];
            let put = system.put(host, &path(&format!("after-{host}")), &headers, "y");
            assert_eq!(put.status, 201, "{put:?}");
            assert_eq!(system.get(host, &path("before")).status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        system.restart(leader);
        // The host that returns catches up, and answers too.
        system.wait_until("the host has caught up", |system| {
            system.get(leader, &format!("{}?stale", path("after-3"))).status == 200
        });
        system.wait_until("the host is healthy", |system| system.is_healthy(leader));
        assert_eq!(system.get(leader, &path("after-3")).status, 200);
    }
}

#[test]
fn everything_is_there_after_a_restart_of_all() {
    let mut system = System::start(3, 0);
    for number in 0..50 {
        let (path, key) = (format!("/v1/kv/{number}"), format!("i{number}"));
        let put = system.put(number % 3, &path, &[("idempotency-key", &key)], format!("{number}"));
        assert_eq!(put.status, 201);
    }
    for host in 0..3 {
        system.kill(host);
    }
    for host in 0..3 {
        system.restart(host);
    }
    system.leader();
    for number in 0..50 {
        let path = format!("/v1/kv/{number}");
        system.wait_until("the hosts answer", |system| system.is_healthy(number % 3));
        let get = system.get(number % 3, &path);
        assert_eq!(get.body, format!("{number}"));
        let headers = [("idempotency-key", format!("i{number}"))];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        let again = system.put(number % 3, &path, &headers, format!("{number}"));
        assert_eq!(again.header("evenkeel-replayed"), "true");
    }
}

#[test]
fn without_a_quorum_changes_fail_and_stale_reads_go_on() {
    let mut system = System::start(3, 1);
    assert_eq!(system.put(0, "/v1/kv/a", &[], "x").status, 201);
    let survivor = system.leader();
    let others: Vec<usize> = (0..3).filter(|host| *host != survivor).collect();
    for host in &others {
        system.wait_until("the followers have it", |system| {
            system.get(*host, "/v1/kv/a?stale").status == 200
        });
        system.kill(*host);
    }
    // Until the leader has noticed, the outcome of a change can be unknown.
    system.wait_until("the leader steps down", |system| !system.is_healthy(survivor));
    for host in [survivor, 3] {
        system.wait_until("the host has noticed", |system| !system.is_healthy(host));
        let put = put_once(&system, host, "/v1/kv/a");
        assert_eq!((put.status.as_u16(), put.code().as_str()), (503, "no-quorum"));
        assert_eq!((put.header("evenkeel-outcome"), put.header("retry-after")), ("none", "1"));
        // The election is no longer young: the answer comes at once.
        let begun = Instant::now();
        assert_eq!(system.send(host, Method::GET, "/v1/kv/a", &[], Bytes::new()).status, 503);
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        let stale = system.get(host, "/v1/kv/a?stale");
        assert_eq!((stale.status.as_u16(), &stale.body[..]), (200, &b"x"[..]));
    }
    system.restart(others[0]);
    system.leader();
    for host in [survivor, 3, others[0]] {
        system.wait_until("the host is healthy", |system| system.is_healthy(host));
        assert_eq!(&system.get(host, "/v1/kv/a").body[..], b"x");
    }
}

#[test]
fn a_host_that_missed_much_is_sent_a_snapshot() {
    let mut system = System::start(3, 0);
    let behind = (system.leader() + 1) % 3;
    system.kill(behind);
    let leader = system.leader();
    // More entries and bytes than the others keep for one that is a little behind.
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let system = &system;
            scope.spawn(move || {
                for number in 0..300 {
                    let path = format!("/v1/kv/bulk/{thread}-{number}");
                    let put = system.put(leader, &path, &[], vec![b'v'; 3000]);
                    assert_eq!(put.status, 201);
                }
            });
        }
    });
    system.restart(behind);
    system.wait_until("the host has caught up", |system| {
        let last = system.get(behind, "/v1/kv/bulk/9-299?stale");
        last.status == 200 && last.body.len() == 3000
    });
    let first = system.get(behind, "/v1/kv/bulk/0-0?stale");
    assert_eq!((first.status.as_u16(), first.body.len()), (200, 3000));
    // What it was sent is on its disk.
    system.kill(behind);
    system.restart(behind);
    system.wait_until("the host is healthy", |system| system.is_healthy(behind));
    assert_eq!(system.get(behind, "/v1/kv/bulk/0-0?stale").status, 200);
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let system = System::start_with(1, 1, |_| 3 * SEGMENT_MIN);
    let full = system.coordinator(0).space();
    let mut number = 0;
    while *full.borrow() == Space::Free {
        number += 1;
        assert!(number < 1000, "the log grows beyond its bound");
        let put = put_once(&system, 1, &format!("/v1/kv/{number}"));
        assert!(put.status == 201 || put.status == 503, "{put:?}");
    }
    for host in 0..2 {
        let put = put_once(&system, host, "/v1/kv/more");
        assert_eq!((put.status.as_u16(), put.code().as_str()), (503, "disk-full"));
        assert_eq!(put.header("evenkeel-outcome"), "none");
        assert_eq!(system.get(host, "/v1/kv/1").status, 200);
        assert_eq!(system.get(host, "/v1/kv/more").status, 404);
    }
}

#[test]
fn one_full_disk_does_not_stop_the_others() {
    let system =
        System::start_with(3, 0, |host| if host == 0 { 3 * SEGMENT_MIN } else { u64::MAX });
    let full = system.coordinator(0).space();
    let mut number = 0;
    let mut after_full = 0;
    // The full host may lead at first; another one takes over.
    while after_full < 20 {
        number += 1;
        assert!(number < 2000, "host 0 never runs full");
        let put = put_once(&system, 1, &format!("/v1/kv/{number}"));
        if *full.borrow() == Space::Full {
            after_full += usize::from(put.status == 201);
        }
    }
    let put = system.put(0, "/v1/kv/through-the-full-host", &[], "x");
    assert_eq!(put.status, 201);
}

#[test]
fn small_changes_do_not_eat_the_reserve_of_a_full_disk() {
    let system =
        System::start_with(3, 0, |host| if host == 0 { 3 * SEGMENT_MIN } else { u64::MAX });
    let full = system.coordinator(0).space();
    let mut number = 0;
    while *full.borrow() == Space::Free {
        number += 1;
        assert!(number < 2000, "host 0 never runs full");
        put_once(&system, 1, &format!("/v1/kv/{number}"));
    }
    system.wait_until("another host leads", |system| {
        (1..3).any(|host| system.coordinator(host).leader().borrow().is_self)
    });
    for number in 0..50 {
        let put = system.put(1, &format!("/v1/kv/s{number}"), &[], "x");
        assert_eq!(put.status, 201, "{put:?}");
    }
    for host in 1..3 {
        let has_all = |system: &System| system.get(host, "/v1/kv/s49?stale").status == 200;
        system.wait_until("the others have every change", has_all);
    }
    // Each was sent to it on its own, in a message of less than 100 bytes.
    assert_eq!(system.get(0, "/v1/kv/s0?stale").status, 404);
    assert_eq!(*full.borrow(), Space::Full);
}
