//! What a failing upstream costs a client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Folder, Manner, Message, Sockets, TestClient, TestGateway, TestUpstream, ask, wait_until,
};

/// Runs clients while `disturb` does its work, and returns every answer that was not 200.
fn load(gateway: &TestGateway, headers: &str, disturb: impl FnOnce()) -> (usize, Vec<Message>) {
    let stopping = AtomicBool::new(false);
    let stop = &stopping;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|at| {
                scope.spawn(move || {
                    let method = if at % 2 == 0 { "GET" } else { "POST" };
                    let mut client = TestClient::connect(gateway.address);
                    let (mut count, mut bad) = (0, Vec::new());
                    while !stop.load(Ordering::SeqCst) {
                        let answer = client.ask(method, "/", headers);
                        count += 1;
                        if answer.status() != 200 {
                            bad.push(answer);
                        }
                    }
                    (count, bad)
                })
            })
            .collect();
        disturb();
        stop.store(true, Ordering::SeqCst);
        let done = clients.into_iter().map(|client| client.join().unwrap());
        done.fold((0, Vec::new()), |(count, mut bad), (more, worse)| {
            bad.extend(worse);
            (count + more, bad)
        })
    })
}

const KEYED: &str = "Idempotency-Key: k\r\nContent-Length: 0\r\n";

#[test]
fn a_killed_upstream_fails_no_request() {
    let mut first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    let (count, bad) = load(&gateway, KEYED, || {
        wait_until("load on the first", || first.seen().len() > 200);
        first.kill();
        let before = second.seen().len();
        wait_until("load on the second", || second.seen().len() > before + 500);
    });
    assert!(bad.is_empty(), "{} of {count}, first {:?}", bad.len(), bad.first());
}

#[test]
fn a_frozen_upstream_costs_less_than_a_second() {
    let first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    first.set(Manner::Freeze);
    let mut client = TestClient::connect(gateway.address);
    let mut slowest = Duration::ZERO;
    wait_until("the frozen one to be out", || {
        let began = Instant::now();
        assert_eq!(client.ask("GET", "/", "").text(), "web-2");
        slowest = slowest.max(began.elapsed());
        gateway.state().contains("\"standing\": \"silent\"")
    });
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let before = second.seen().len();
    for _ in 0..50 {
        assert_eq!(client.ask("GET", "/", "").text(), "web-2");
    }
    assert_eq!(second.seen().len(), before + 50);
}

#[test]
fn an_upstream_that_only_answers_checks_is_ejected() {
    let first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    first.set(Manner::Stall);
    let mut client = TestClient::connect(gateway.address);
    wait_until("an ejection", || {
        assert_eq!(client.ask("GET", "/", "").text(), "web-2");
        gateway.state().contains("\"standing\": \"ejected\"")
    });
    assert!(gateway.metrics().contains("evenkeel_gateway_retries_total{service=\"web\"}"));
}

#[test]
fn repeats_a_sent_post_only_with_a_key() {
    let first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    first.set(Manner::HangUp);
    second.set(Manner::HangUp);
    let answer = ask(gateway.address, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!((answer.status(), answer.header("evenkeel-outcome")), (502, "unknown"));
    assert_eq!(first.seen().len() + second.seen().len(), 1);
    let answer = ask(gateway.address, "POST", "/", KEYED);
    assert_eq!(answer.status(), 502);
    // Each once: never the same endpoint twice.
    assert_eq!(first.seen().len() + second.seen().len(), 3);
    second.set(Manner::Name);
    let (asked, mut retried) = (20, 0);
    for _ in 0..asked {
        let before = first.seen().len();
        assert_eq!(ask(gateway.address, "POST", "/", KEYED).text(), "web-2");
        retried += first.seen().len() - before;
    }
    assert!(retried > 0, "no request met the failing endpoint");
}

#[test]
fn takes_another_endpoint_after_503_and_forwards_the_last() {
    let first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    first.set(Manner::Status(503));
    for _ in 0..10 {
        assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-2");
    }
    second.set(Manner::Status(503));
    let answer = ask(gateway.address, "GET", "/", "");
    assert_eq!((answer.status(), answer.header("x-own")), (503, "kept"));
}

/// The first try may have been carried out, whatever the second endpoint says of its own.
#[test]
fn a_refusal_after_a_lost_try_is_no_proof() {
    let first = TestUpstream::start("web-1");
    let second = TestUpstream::start("web-2");
    let gateway = TestGateway::over(&[&first, &second], |_| {});
    first.set(Manner::HangUp);
    second.set(Manner::Status(503));
    let mut lost = 0;
    for _ in 0..20 {
        let before = first.seen().len();
        let answer = ask(gateway.address, "POST", "/", KEYED);
        let was_lost = first.seen().len() > before;
        let outcome = if was_lost { "unknown" } else { "none" };
        assert_eq!(answer.header("evenkeel-outcome"), outcome, "{}", answer.text());
        lost += usize::from(was_lost);
    }
    assert!(lost > 0, "no request met the failing endpoint");
}

#[test]
fn answers_504_when_the_only_endpoint_is_silent() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |table| {
        for listener in &mut table.listeners {
            for route in &mut listener.routes {
                route.timeout = Duration::from_millis(400);
            }
        }
    });
    upstream.set(Manner::Stall);
    let began = Instant::now();
    let answer = ask(gateway.address, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!((answer.status(), answer.header("evenkeel-outcome")), (504, "unknown"));
    assert!((400..900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[test]
fn answers_503_when_nothing_is_there() {
    let mut upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.kill();
    let answer = ask(gateway.address, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.header("evenkeel-outcome"), "none");
    assert!(answer.text().contains("\"code\":\"no-endpoint\""), "{}", answer.text());
}

#[test]
fn cancels_upstream_when_the_client_leaves() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.set(Manner::Stall);
    let mut client = TestClient::connect(gateway.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request upstream", || upstream.seen().len() == 1);
    let before = upstream.ended();
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    wait_until("the end of the upstream connection", || upstream.ended() > before);
    wait_until("the line in the log", || gateway.log.text().contains("\"status\":499"));
    assert!(gateway.state().contains("\"in_flight\": 0"), "{}", gateway.state());
}

#[test]
fn an_endpoint_with_another_identity_is_never_used() {
    let foreign = TestUpstream::start_as("other-9", "other-9");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    evenkeel_gateway::snapshot::write(&folder.snapshot(), &sockets.table(&[&foreign])).unwrap();
    let gateway = TestGateway::start(&sockets, folder);
    // The very first request waits for the check instead of trying its luck.
    for _ in 0..5 {
        assert_eq!(ask(gateway.address, "GET", "/", "").status(), 503);
    }
    assert!(foreign.seen().is_empty());
    assert!(gateway.state().contains("\"standing\": \"foreign\""), "{}", gateway.state());
}
