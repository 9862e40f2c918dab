//! `docs/openapi.json` says what the server does: its paths, methods, statuses and codes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use axum::body::Bytes;
use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, System};

/// Methods of which each path is asked whether it takes them.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> Value {
    let text = std::fs::read_to_string(folder().join("../../docs/openapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns the sources of the API, without their tests.
fn sources() -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("src/api")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.chain([folder().join("src/api.rs")]);
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap());
    texts.map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned()).collect()
}

/// Returns the statuses that each path documents, by method.
fn documented(document: &Value) -> BTreeMap<(String, String), BTreeSet<u16>> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(responses) = operation["responses"].as_object() {
                let statuses = responses.keys().map(|status| status.parse().unwrap()).collect();
                found.insert((path.clone(), method.clone()), statuses);
            }
        }
    }
    found
}

/// What the paths of the document name.
struct Things {
    lease: u64,
    token: u64,
}

impl Things {
    /// Makes them anew.
    fn make(system: &System) -> Self {
        system.put(0, "/v1/kv/some/key", &[], "v");
        let granted = system.post(0, "/v1/leases", r#"{"ttl_seconds": 60}"#).json();
        let held = system.get(0, "/v1/locks/some-lock").json();
        if let Some(token) = held["holder"]["token"].as_u64() {
            system.delete(0, &format!("/v1/locks/some-lock?token={token}"), &[]);
        }
        let acquired = system.post(0, "/v1/locks/some-lock", r#"{"ttl_seconds": 60}"#).json();
        let number = |value: &Value| value.as_u64().unwrap();
        Self { lease: number(&granted["lease"]), token: number(&acquired["token"]) }
    }

    /// Writes a path of the document.
    fn target(&self, method: &str, path: &str) -> String {
        let acquires = (method, path) == ("post", "/v1/locks/{lock}");
        let lock = if acquires { "other-lock" } else { "some-lock" };
        let claims = path.ends_with("{lock}/keepalive")
            || path.ends_with("{lock}") && matches!(method, "put" | "delete");
        let token = if claims { format!("?token={}", self.token) } else { String::new() };
        let path = path.replace("{key}", "some/key").replace("{lock}", lock);
        path.replace("{lease}", &self.lease.to_string()) + &token
    }
}

/// Sends a request to a path of the document.
fn send(system: &System, method: &str, path: &str, things: &Things, body: &str) -> Answer {
    let target = things.target(method, path);
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    system.send(0, method, &target, &[], Bytes::copy_from_slice(body.as_bytes()))
}

#[test]
fn every_documented_request_is_answered_as_documented() {
    let system = System::start(1, 0);
    let documented = documented(&document());
    assert!(documented.len() >= 11, "{documented:?}");
    // Well and badly made: each is answered with a status that is written down.
    let bodies =
        ["", "{", "{}", r#"{"ttl_seconds": 60}"#, r#"{"ttl_seconds": 0}"#, r#"{"through": 0}"#];
    let key_twice =
        json!({"then": [{"delete": {"key": "k"}}, {"delete": {"key": "k"}}]}).to_string();
    let bodies = bodies.into_iter().chain([key_twice.as_str(), r#"{"lease": 999999}"#]);
    let mut seen: BTreeMap<&(String, String), BTreeSet<u16>> = BTreeMap::new();
    for body in bodies {
        for (request, statuses) in &documented {
            let (path, method) = request;
            let things = Things::make(&system);
            for wrong in [None, Some(0), Some(999_999)] {
                let lease = wrong.unwrap_or(things.lease);
                let token = wrong.unwrap_or(things.token);
                let answer = send(&system, method, path, &Things { lease, token }, body);
                let status = answer.status.as_u16();
                assert!(statuses.contains(&status), "{method} {path} with {body}: {status}");
                seen.entry(request).or_default().insert(status);
            }
        }
    }
    for (request, statuses) in seen {
        assert!(statuses.iter().any(|status| *status < 300), "{request:?} only ever fails");
    }
}

#[test]
fn nothing_but_what_is_documented_is_answered() {
    let system = System::start(1, 0);
    let documented = documented(&document());
    let paths: BTreeSet<&String> = documented.keys().map(|(path, _)| path).collect();
    let mut routes = BTreeSet::new();
    for source in sources() {
        for part in source.split(".route(\"").skip(1) {
            routes.insert(part.split('"').next().unwrap().replace("{*key}", "{key}"));
        }
    }
    // Where the key is empty, which is refused.
    assert!(routes.remove("/v1/kv/"), "{routes:?}");
    assert_eq!(routes.iter().collect::<BTreeSet<_>>(), paths);
    let things = Things { lease: 1, token: 1 };
    for path in &routes {
        for method in METHODS {
            let known = documented.contains_key(&(path.clone(), method.to_owned()));
            let answer = send(&system, method, path, &things, "");
            assert_eq!(answer.status == 405, !known, "{method} {path}");
            if !known {
                assert_eq!(answer.code(), "method-not-allowed", "{method} {path}");
                let allowed = answer.header("allow").to_lowercase();
                let allows = |method: &&str| allowed.split(',').any(|allowed| allowed == *method);
                let mut taken = METHODS.iter().filter(|method| {
                    documented.contains_key(&(path.clone(), (**method).to_owned()))
                });
                assert!(taken.all(allows), "{path}: {allowed}");
                assert!(!allows(&method), "{path}: {allowed}");
            }
        }
    }
}

#[test]
fn every_refusal_says_what_helps() {
    let system = System::start(1, 0);
    let check = |method: &str, path: &str, status: u16, code: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = system.send(0, method, path, &[], Bytes::new());
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        assert_eq!(answer.header("evenkeel-host"), "h0", "{path}");
        let help = answer.json()["error"]["help"].as_str().unwrap().to_owned();
        assert!(help.contains("/v1/openapi.json"), "{path}: {help}");
    };
    for path in ["/", "/v1", "/v1/nothing", "/v1/locks", "/v1/locks/", "/v1/locks/a/b", "/v2/kv/k"]
    {
        check("GET", path, 404, "unknown-path");
    }
    check("GET", "/v1/leases/%ff", 400, "bad-lease");
    check("DELETE", "/v1/leases/%ff", 400, "bad-lease");
    check("POST", "/v1/leases/%ff/keepalive", 400, "bad-lease");
    check("GET", "/v1/locks/%ff", 400, "bad-lock");
    check("GET", "/v1/locks/a%2Fb", 400, "bad-lock");
    check("POST", "/v1/locks/%/keepalive?token=1", 400, "bad-lock");
    check("GET", "/v1/kv/%ff", 400, "bad-key");
    check("DELETE", "/v1/locks/l", 400, "bad-parameter");
    check("POST", "/v1/health", 405, "method-not-allowed");
    assert_eq!(system.post(0, "/v1/health", "").header("allow"), "GET,HEAD");
    let described = system.get(0, "/v1/openapi.json");
    assert_eq!(described.json(), document());
}

#[test]
fn limits_are_those_that_are_documented() {
    let system = System::start(1, 0);
    let document = document();
    let components = &document["components"];
    let number = |value: &Value| value.as_u64().unwrap();
    let code = |answer: &Answer| {
        if answer.status.is_success() { String::new() } else { answer.code() }
    };
    let check = |answer: &Answer, expected: &str| assert_eq!(code(answer), expected, "{answer:?}");
    let limit = &components["parameters"]["Limit"]["schema"];
    let list = |limit: u64| system.get(0, &format!("/v1/kv?limit={limit}"));
    check(&list(number(&limit["minimum"])), "");
    check(&list(number(&limit["minimum"]) - 1), "bad-parameter");
    check(&list(number(&limit["maximum"])), "");
    check(&list(number(&limit["maximum"]) + 1), "bad-parameter");
    check(&system.get(0, "/v1/kv?revision=18446744073709551616"), "bad-parameter");
    check(&system.get(0, "/v1/kv?watch&since=-1"), "bad-parameter");
    for (parameter, path, refusal) in
        [("Key", "/v1/kv/", "bad-key"), ("Lock", "/v1/locks/", "bad-lock")]
    {
        let longest = number(&components["parameters"][parameter]["schema"]["maxLength"]);
        let name = |length: u64| "n".repeat(usize::try_from(length).unwrap());
        let found = system.get(0, &format!("{path}{}", name(longest)));
        assert_ne!(code(&found), refusal);
        check(&system.get(0, &format!("{path}{}", name(longest + 1))), refusal);
    }
    let longest = number(&components["parameters"]["IdempotencyKey"]["schema"]["maxLength"]);
    let named = |length: u64| {
        let name = "n".repeat(usize::try_from(length).unwrap());
        system.put(0, "/v1/kv/k", &[("idempotency-key", &name)], "v")
    };
    check(&named(longest), "");
    check(&named(longest + 1), "bad-header");
    let acquire = &components["schemas"]["Acquire"]["properties"];
    let lock = |body: Value| system.post(0, "/v1/locks/limits", &body.to_string());
    let wait_max = number(&acquire["wait_seconds"]["maximum"]);
    let value_max = usize::try_from(number(&acquire["value"]["maxLength"])).unwrap();
    check(&lock(json!({"ttl_seconds": 1, "wait_seconds": wait_max + 1})), "bad-body");
    check(&lock(json!({"ttl_seconds": 1, "wait_seconds": -1})), "bad-body");
    check(&lock(json!({"ttl_seconds": 1, "value": "v".repeat(value_max + 1)})), "too-large");
    check(&lock(json!({"ttl_seconds": 0.5})), "bad-ttl");
    check(&lock(json!({"ttl_seconds": number(&acquire["ttl_seconds"]["maximum"]) + 1})), "bad-ttl");
    check(&lock(json!({"ttl_seconds": 1, "lease": 1})), "bad-body");
    check(&lock(json!({"lease": 0})), "bad-body");
    let longest = "v".repeat(value_max);
    check(&lock(json!({"ttl_seconds": 60, "wait_seconds": wait_max, "value": longest})), "");
}

#[test]
fn every_code_is_documented() {
    let document = document();
    let error = &document["components"]["schemas"]["Error"]["properties"]["error"];
    let listed = error["properties"]["code"]["enum"].as_array().unwrap();
    let listed: BTreeSet<String> =
        listed.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    let written: BTreeSet<String> = sources().iter().flat_map(|source| codes(source)).collect();
    assert!(written.contains("conflict") && written.contains("no-quorum"), "{written:?}");
    assert_eq!(written, listed);
    // Each is also said of a response.
    let responses = document["components"]["responses"].to_string();
    for code in listed {
        assert!(responses.contains(&format!("`{code}`")), "`{code}` is said of no response");
    }
}

/// Finds what a source gives a refusal for a code: the text behind a status or `bad(`.
fn codes(source: &str) -> Vec<String> {
    let is_code = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let pieces: Vec<&str> = source.split('"').collect();
    let pairs = pieces.windows(2).filter(|pair| {
        let before = pair[0].trim_end();
        let last_word = before.trim_end_matches(',').rsplit(' ').next().unwrap_or_default();
        let behind_status = before.ends_with(',') && last_word.contains("StatusCode::");
        is_code(pair[1]) && (before.ends_with("bad(") || behind_status)
    });
    pairs.map(|pair| pair[1].to_owned()).collect()
}
