//! `docs/openapi.json` says what the server does: its paths, methods, statuses and codes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use axum::body::Bytes;
use axum::http::Method;
use serde_json::{Value, json};

use crate::support::System;

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

/// Sends a request to a path of the document, and returns the status.
fn status(system: &System, method: &str, path: &str, lease: u64, body: &str) -> u16 {
    let path = path.replace("{key}", "some/key").replace("{lease}", &lease.to_string());
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    system.send(0, method, &path, &[], body).status.as_u16()
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
    let bodies = bodies.into_iter().chain([key_twice.as_str()]);
    let mut seen: BTreeMap<&(String, String), BTreeSet<u16>> = BTreeMap::new();
    for body in bodies {
        for (request, statuses) in &documented {
            let (path, method) = request;
            system.put(0, "/v1/kv/some/key", &[], "v");
            let granted = system.post(0, "/v1/leases", r#"{"ttl_seconds": 60}"#).json();
            for lease in [granted["lease"].as_u64().unwrap(), 0, 999_999] {
                let status = status(&system, method, path, lease, body);
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
    for path in &routes {
        for method in METHODS {
            let known = documented.contains_key(&(path.clone(), method.to_owned()));
            let refused = status(&system, method, path, 1, "") == 405;
            assert_eq!(refused, !known, "{method} {path}");
        }
    }
    assert_eq!(system.get(0, "/v1/nothing").status, 404);
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
