//! What reaches the upstream and what reaches the client.

use std::io::Write;

use crate::harness::{Manner, TestClient, TestGateway, TestUpstream, ask, wait_until};

#[test]
fn forwards_heads_and_drops_what_is_for_one_hop() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    let mut client = TestClient::connect(gateway.address);
    for _ in 0..3 {
        let answer = client.ask(
            "GET",
            "/a%2Fb?q=1",
            "Connection: keep-alive, x-secret\r\nX-Secret: 1\r\nTE: trailers\r\n\
             X-Forwarded-For: 9.9.9.9\r\nX-Mine: 2\r\n",
        );
        assert_eq!((answer.status(), answer.text()), (200, "web-1".to_owned()));
        assert_eq!(answer.header("x-own"), "kept");
        assert_eq!(answer.header("keep-alive"), "");
        assert_eq!(answer.header("evenkeel-gateway"), "h1");
    }
    let seen = upstream.seen();
    let request = seen.first().unwrap();
    assert_eq!(request.first, "GET /a%2Fb?q=1 HTTP/1.1");
    assert_eq!(request.header("host"), "a.test");
    assert_eq!(request.header("x-forwarded-for"), "9.9.9.9, 127.0.0.1");
    assert_eq!(request.header("x-forwarded-proto"), "http");
    assert_eq!(request.header("evenkeel-gateway"), "h1");
    assert_eq!(request.header("x-mine"), "2");
    for gone in ["x-secret", "te", "connection", "transfer-encoding", "content-length"] {
        assert_eq!(request.header(gone), "", "{gone}");
    }
}

#[test]
fn answers_head_and_absolute_targets_and_unknown_paths() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |table| {
        for listener in &mut table.listeners {
            for route in &mut listener.routes {
                route.path = "/known".to_owned();
            }
        }
    });
    let mut client = TestClient::connect(gateway.address);
    client.send("HEAD /known HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = client.answer_to_head().unwrap();
    assert_eq!((answer.status(), answer.header("content-length")), (200, "5"));
    let answer = client.ask("GET", "http://a.test/known/x", "");
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.seen().last().unwrap().first, "GET /known/x HTTP/1.1");
    let answer = client.ask("GET", "/unknown", "");
    assert_eq!(answer.status(), 404);
    assert!(answer.text().contains("\"code\":\"no-route\""), "{}", answer.text());
}

#[test]
fn forwards_bodies_short_long_and_chunked() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.set(Manner::Mirror);
    let mut client = TestClient::connect(gateway.address);
    for length in [0, 1, 65_536, 65_537, 300_000] {
        let body = "x".repeat(length);
        client.send(&format!(
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.body.len()), (200, length));
        let seen = upstream.seen();
        assert_eq!(seen.last().unwrap().header("content-length"), length.to_string());
    }
    for chunks in [1, 3, 30] {
        let chunk = format!("2710\r\n{}\r\n", "y".repeat(10_000));
        client.send("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(&format!("{}0\r\n\r\n", chunk.repeat(chunks)));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.body.len()), (200, chunks * 10_000));
    }
}

#[test]
fn bounds_bodies() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |table| {
        for listener in &mut table.listeners {
            for route in &mut listener.routes {
                route.body_max = 100_000;
            }
        }
    });
    let check = |request: &str| {
        let mut client = TestClient::connect(gateway.address);
        client.send(request);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (413, "close"), "{request:.60}");
        assert!(answer.text().contains("too-large"));
    };
    // At once: not a byte of the body was sent.
    check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n");
    let chunk = format!("2710\r\n{}\r\n", "y".repeat(10_000));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{head}{}", chunk.repeat(11)));
    let answer = ask(gateway.address, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!(answer.status(), 200);
}

#[test]
fn waits_with_the_body_when_the_client_does() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.set(Manner::Mirror);
    let mut client = TestClient::connect(gateway.address);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().unwrap().status(), 100);
    client.send("hello");
    assert_eq!(client.answer().unwrap().text(), "hello");
    assert_eq!(upstream.seen().first().unwrap().header("expect"), "");
}

#[test]
fn passes_an_upgraded_connection_through() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.set(Manner::Echo);
    let mut client = TestClient::connect(gateway.address);
    let answer = client.ask("GET", "/ws", "Connection: Upgrade\r\nUpgrade: echo\r\n");
    assert_eq!((answer.status(), answer.header("upgrade")), (101, "echo"));
    for text in ["one", "two three"] {
        client.stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(client.read_exactly(text.len()), text.as_bytes());
    }
    // Without the wish there is no upgrade, and h2c is no wish.
    upstream.set(Manner::Name);
    let answer = ask(gateway.address, "GET", "/", "Connection: Upgrade\r\nUpgrade: h2c\r\n");
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.seen().last().unwrap().header("upgrade"), "");
}

#[test]
fn refuses_requests_with_two_meanings() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    let check = |head: &str| {
        let mut client = TestClient::connect(gateway.address);
        client.send(&format!("{head}\r\n\r\n"));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (400, "close"), "{head}");
        assert!(client.answer().is_none(), "closed: {head}");
    };
    check("GET / HTTP/1.1");
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a");
    check("GET / HTTP/1.1\r\nHost: a@b");
    check("GET / HTTP/1.1\r\nHost: a b");
    check("GET http://b/ HTTP/1.1\r\nHost: a");
    check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked");
    check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
    assert!(upstream.seen().is_empty());
}

#[test]
fn sends_one_framing_when_the_client_sent_two() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |_| {});
    upstream.set(Manner::Mirror);
    let mut client = TestClient::connect(gateway.address);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\nz\r\n0\r\n\r\n",
    );
    assert_eq!(client.answer().unwrap().text(), "z");
    let seen = upstream.seen();
    let request = seen.first().unwrap();
    assert_eq!((request.header("content-length"), request.header("transfer-encoding")), ("1", ""));
}

#[test]
fn balances_counts_and_logs() {
    let upstreams = ["web-1", "web-2"].map(TestUpstream::start);
    let gateway = TestGateway::over(&[&upstreams[0], &upstreams[1]], |_| {});
    let mut client = TestClient::connect(gateway.address);
    for _ in 0..100 {
        assert_eq!(client.ask("GET", "/x?secret=1", "").status(), 200);
    }
    for upstream in &upstreams {
        let count = upstream.seen().len();
        assert!((20..=80).contains(&count), "{count} of 100 requests");
    }
    let metrics = gateway.metrics();
    let counted =
        "evenkeel_gateway_requests_total{gateway=\"public\",route=\"/\",code=\"200\"} 100";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("evenkeel_gateway_request_duration_seconds_bucket"), "{metrics}");
    wait_until("every line of the log", || gateway.log.text().lines().count() == 100);
    let log = gateway.log.text();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line.get("status").unwrap(), 200);
    assert_eq!(line.get("path").unwrap(), "/x");
    assert_eq!(line.get("tier").unwrap(), "zone");
    assert_eq!(line.get("tries").unwrap(), 1);
}

#[test]
fn never_waits_for_the_reader_of_its_log() {
    struct Stuck;
    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (crate::harness::Sockets::open(), crate::harness::Folder::new());
    let table = sockets.table(&[&upstream]);
    evenkeel_gateway::snapshot::write(&folder.snapshot(), &table).unwrap();
    let log = crate::harness::LogText::default();
    let gateway = TestGateway::start_with_log(&sockets, folder, log, Box::new(Stuck));
    let mut client = TestClient::connect(gateway.address);
    for _ in 0..1500 {
        assert_eq!(client.ask("GET", "/", "").status(), 200);
    }
    wait_until("dropped lines to be counted", || {
        let metrics = gateway.metrics();
        let line = metrics.lines().find(|line| line.contains("access_log_dropped_total"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    });
}
