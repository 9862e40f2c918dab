//! How a gateway ends.

use std::time::Duration;

use crate::harness::{Manner, TestClient, TestGateway, TestUpstream, wait_until};

#[test]
fn answers_under_way_end_before_the_gateway_does() {
    let upstream = TestUpstream::start("web-1");
    let mut gateway = TestGateway::over(&[&upstream], |_| {});
    let mut idle = TestClient::connect(gateway.address);
    assert_eq!(idle.ask("GET", "/", "").status(), 200);
    upstream.set(Manner::Slow(Duration::from_millis(300)));
    let mut busy = TestClient::connect(gateway.address);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request upstream", || upstream.seen().len() == 2);
    gateway.begin_stop();
    let answer = busy.answer().unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (200, "close"));
    assert!(busy.answer().is_none());
    // An idle connection does not hold up the end.
    assert!(idle.answer().is_none());
    gateway.join();
    assert_eq!(gateway.log.text().lines().count(), 2);
}
