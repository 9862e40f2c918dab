//! The key-value API and the gateways, as clients see them.

use crate::http::{Answer, Request};
use crate::rig::Rig;

/// Longest value, in bytes.
const VALUE_MAX: usize = 1 << 20;

/// Every host, voter or not, answers for every key, by itself and through its gateway.
pub(crate) fn any_host_answers_for_any_key(rig: &mut Rig) {
    let hosts = rig.hosts();
    let status = rig.status("waw-a1").unwrap();
    let voters = status.hosts.iter().filter(|host| host.voter).count();
    assert_eq!((hosts.len(), voters), (7, 5));
    for (host, other) in hosts.iter().zip(hosts.iter().cycle().skip(1)) {
        let own = |request: &Request| rig.ask_api(host, request);
        exercise(&own, &|request| rig.ask_api(other, request), &format!("api/{host}"));
        let own = |request: &Request| rig.ask_kv(host, request);
        exercise(&own, &|request| rig.ask_kv(other, request), &format!("kv/{host}"));
    }
}

/// Tries everything that the API can, with what one way writes seen through another.
fn exercise(own: &dyn Fn(&Request) -> Answer, other: &dyn Fn(&Request) -> Answer, key: &str) {
    let path = format!("/v1/kv/{key}");
    let created = own(&Request::put(&path, b"one").header("idempotency-key", key));
    assert_eq!(created.status, 201, "{key}: {created:?}");
    let read = other(&Request::get(&path));
    assert_eq!((read.status, read.text()), (200, "one".to_owned()), "{key}");
    assert_eq!(read.etag(), created.etag(), "{key}");

    let retried = other(&Request::put(&path, b"one").header("idempotency-key", key));
    assert_eq!((retried.status, retried.etag()), (201, created.etag()), "{key}: a retry");
    assert_eq!(retried.header("evenkeel-replayed"), Some("true"), "{key}");
    let misused = other(&Request::put(&path, b"two").header("idempotency-key", key));
    assert_eq!((misused.status, misused.code().as_str()), (422, "idempotency-mismatch"), "{key}");

    let replaced = other(&Request::put(&path, b"two").header("if-match", &created.etag()));
    assert_eq!(replaced.status, 200, "{key}: {replaced:?}");
    let late = own(&Request::put(&path, b"three").header("if-match", &created.etag()));
    assert_eq!((late.status, late.etag()), (412, replaced.etag()), "{key}: a stale condition");
    let again = own(&Request::put(&path, b"three").header("if-none-match", "*"));
    assert_eq!(again.status, 412, "{key}: created twice");

    let list = own(&Request::get(&format!("/v1/kv?prefix={key}")));
    let body: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(body["keys"].as_array().map(Vec::len), Some(1), "{key}: {body}");
    assert_eq!(body["keys"][0]["value"], "two", "{key}");

    assert_eq!(own(&Request::delete(&path)).status, 204, "{key}");
    assert_eq!(other(&Request::get(&path)).status, 404, "{key}");
    assert_eq!(other(&Request::delete(&path)).status, 404, "{key}");
}

/// What is longer than its bound is refused by the store and by the gateway, and nothing else is.
pub(crate) fn large_bodies_are_refused(rig: &mut Rig) {
    let longest = vec![b'x'; VALUE_MAX];
    let longer = vec![b'x'; VALUE_MAX + 1];
    for ask in [Rig::ask_api, Rig::ask_kv] {
        let answer = ask(rig, "fra-a1", &Request::put("/v1/kv/large", &longest));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let answer = ask(rig, "fra-a1", &Request::put("/v1/kv/large", &longer));
        assert_eq!((answer.status, answer.code().as_str()), (413, "too-large"));
    }
    let answer = rig.ask_gateway("fra-a1", &Request::put("/profiles/large", &longer));
    assert_eq!((answer.status, answer.code().as_str()), (413, "too-large"));
    let removed = rig.ask_api("fra-a1", &Request::delete("/v1/kv/large"));
    assert_eq!(removed.status, 204);
}

/// A system whose hosts have IPv6 addresses only.
pub(crate) fn gateways_answer_over_ipv6(rig: &mut Rig) {
    let hosts = rig.hosts();
    for (host, other) in hosts.iter().zip(hosts.iter().cycle().skip(1)) {
        let own = |request: &Request| rig.ask_api(host, request);
        exercise(&own, &|request| rig.ask_kv(other, request), &format!("v6/{host}"));
        let path = format!("/profiles/of-{host}");
        let profile = format!(r#"{{"name": "{host}"}}"#);
        let created = rig.ask_gateway(host, &Request::put(&path, profile.as_bytes()));
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(created.header("evenkeel-gateway"), Some(host.as_str()));
        let read = rig.ask_gateway(other, &Request::get(&path));
        assert_eq!((read.status, read.etag()), (200, created.etag()));
        assert!(read.text().contains(host), "{}", read.text());
    }
}
