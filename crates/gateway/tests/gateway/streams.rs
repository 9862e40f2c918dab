//! Streams and requests that wait: they take no room from others, and nobody is hurried.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_gateway_core::table::{EndpointId, ListenerId, RouteTable, UpstreamId};

use crate::harness::{Manner, TestClient, TestGateway, TestUpstream, ask, wait_until};

/// More than make requests spill over.
const MANY: usize = 70;

/// Moves the second endpoint to another region.
fn second_is_far(table: &mut RouteTable) {
    let endpoints = table.upstreams.values_mut().flat_map(|upstream| &mut upstream.endpoints);
    for endpoint in endpoints.skip(1) {
        endpoint.region = "s".parse().unwrap();
    }
}

/// Makes the service the key-value API, of hosts `h1`, `h2` and so on.
fn key_value(table: &mut RouteTable) {
    for upstream in table.upstreams.values_mut() {
        for (endpoint, number) in upstream.endpoints.iter_mut().zip(1..) {
            endpoint.id = EndpointId::Api(format!("h{number}").parse().unwrap());
        }
    }
    let upstreams = std::mem::take(&mut table.upstreams);
    table.upstreams = upstreams
        .into_values()
        .map(|upstream| (UpstreamId::KeyValue, upstream))
        .collect::<BTreeMap<_, _>>();
    for listener in &mut table.listeners {
        listener.id = ListenerId::KeyValue;
        for route in &mut listener.routes {
            route.to = UpstreamId::KeyValue;
            route.timeout = Duration::from_millis(600);
        }
    }
}

#[track_caller]
fn wait_for(gateway: &TestGateway, in_flight: usize, streams: usize) {
    let wanted = format!("\"in_flight\": {in_flight},\n      \"streams\": {streams}");
    wait_until(&wanted, || gateway.state().contains(&wanted));
}

#[test]
fn streams_take_no_room_from_requests() {
    let upstreams = ["web-1", "web-2"].map(TestUpstream::start);
    let gateway = TestGateway::over(&[&upstreams[0], &upstreams[1]], second_is_far);
    for (manner, headers, status) in
        [(Manner::Events, "", 200), (Manner::Echo, "Connection: Upgrade\r\nUpgrade: echo\r\n", 101)]
    {
        upstreams[0].set(manner);
        let mut clients = Vec::new();
        for _ in 0..MANY {
            let mut client = TestClient::connect(gateway.address);
            client.send(&format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n"));
            assert_eq!(client.answer_to_head().unwrap().status(), status);
            clients.push(client);
        }
        wait_for(&gateway, 0, MANY);
        upstreams[0].set(Manner::Name);
        for _ in 0..10 {
            assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-1");
        }
        assert!(gateway.metrics().contains("evenkeel_gateway_endpoint_streams{"));
        drop(clients);
        wait_for(&gateway, 0, 0);
    }
    assert!(upstreams[1].seen().is_empty());
}

#[test]
fn whoever_waits_for_a_lock_is_not_hurried() {
    let upstreams = ["h1", "h2"].map(|name| TestUpstream::start_as(name, ""));
    let gateway = TestGateway::over(&[&upstreams[0], &upstreams[1]], key_value);
    for upstream in &upstreams {
        upstream.set(Manner::Slow(Duration::from_millis(1500)));
    }
    let mut client = TestClient::connect(gateway.address);
    client.send(
        "POST /v1/locks/report HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\n\
         Content-Length: 2\r\n\r\n{}",
    );
    wait_for(&gateway, 0, 1);
    assert_eq!(client.answer().unwrap().status(), 200);
    let seen = || upstreams.iter().map(|upstream| upstream.seen().len()).sum::<usize>();
    assert_eq!(seen(), 1);
    // Any other request has the time of its route.
    let begun = Instant::now();
    let answer = ask(gateway.address, "GET", "/v1/locks/report", "");
    assert_eq!(answer.status(), 504, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_millis(1400), "{:?}", begun.elapsed());
    // One that waits leaves nothing behind when its client goes.
    let mut client = TestClient::connect(gateway.address);
    client.send("POST /v1/locks/report HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    wait_for(&gateway, 0, 1);
    drop(client);
    wait_until("no stream", || !gateway.state().contains("\"streams\": 1"));
}
