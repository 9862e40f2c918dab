//! Runs the built service against a stand-in for the key-value store: one map behind the few parts
//! of its HTTP API that the service uses. The real store is met in the demo and the drill.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::routing::get;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The stand-in: values with the revision of their last change.
#[derive(Default)]
struct Map {
    values: BTreeMap<String, (Bytes, u64)>,
    revision: u64,
    /// Idempotency keys that were seen, with the revision of the first answer.
    applied: BTreeMap<String, u64>,
    quorum_lost: bool,
}

type Shared = Arc<Mutex<Map>>;

fn answer(status: u16, revision: u64, body: Bytes) -> Response<axum::body::Body> {
    let answer = Response::builder().status(status).header("etag", format!("\"{revision}\""));
    answer.header("evenkeel-host", "fra-a1").body(body.into()).unwrap()
}

async fn key(
    State(map): State<Shared>,
    method: Method,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<axum::body::Body> {
    let mut map = map.lock().unwrap();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let current = map.values.get(&key).cloned();
    if map.quorum_lost {
        let error = json!({"error": {"code": "no-quorum", "message": "no quorum"}});
        let mut answer = answer(503, 0, error.to_string().into());
        answer.headers_mut().insert("evenkeel-outcome", "none".parse().unwrap());
        return answer;
    }
    if method == Method::GET {
        return current
            .map_or_else(|| answer(404, 0, Bytes::new()), |(value, rev)| answer(200, rev, value));
    }
    if let Some(revision) = header("idempotency-key").and_then(|id| map.applied.get(&id)) {
        return answer(201, *revision, Bytes::new());
    }
    let revision = current.as_ref().map(|(_, revision)| format!("\"{revision}\""));
    let expected = header("if-match").is_none_or(|expected| Some(expected) == revision);
    if !expected || (header("if-none-match").is_some() && current.is_some()) {
        return answer(412, current.map_or(0, |(_, revision)| revision), Bytes::new());
    }
    map.revision += 1;
    let revision = map.revision;
    if let Some(id) = header("idempotency-key") {
        map.applied.insert(id, revision);
    }
    if method == Method::DELETE {
        map.values.remove(&key);
        return answer(204, revision, Bytes::new());
    }
    map.values.insert(key, (body, revision));
    answer(if current.is_some() { 200 } else { 201 }, revision, Bytes::new())
}

async fn prefix(State(map): State<Shared>) -> Response<axum::body::Body> {
    let map = map.lock().unwrap();
    let keys: Vec<Value> = map
        .values
        .iter()
        .map(|(key, (value, revision))| {
            let value = std::str::from_utf8(value).unwrap();
            json!({"key": key, "value": value, "encoding": "utf8", "revision": revision})
        })
        .collect();
    let body = json!({"revision": map.revision, "keys": keys, "more": false});
    answer(200, map.revision, body.to_string().into())
}

/// The running service; ends with the test.
struct Service {
    child: Child,
    url: String,
    map: Shared,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Service {
    async fn start() -> Self {
        let map = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kv_url = format!("http://{}", listener.local_addr().unwrap());
        let store = Router::new()
            .route("/v1/kv", get(prefix))
            .route("/v1/kv/{*key}", get(key).put(key).delete(key))
            .with_state(Arc::clone(&map));
        tokio::spawn(async { axum::serve(listener, store).await });
        Self::start_at(&kv_url, map)
    }

    fn start_at(kv_url: &str, map: Shared) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_profiles"))
            .envs([("KV_URL", kv_url), ("PORT", "0"), ("ADDRESS", "127.0.0.1")])
            .env("EVENKEEL_INSTANCE", "web-7")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("http://{}", line.trim().rsplit(' ').next().unwrap());
        Self { child, url, map, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn a_profile_lives_from_create_to_delete() {
    let service = Service::start().await;
    let (status, headers, body) =
        service.send("PUT", "/profiles/ada", &[], r#"{"name":"Ada"}"#).await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (StatusCode::CREATED, "\"1\""));
    assert!(body.contains(r#""id":"ada""#), "{body}");

    let (_, headers, body) = service.send("GET", "/profiles/ada", &[], "").await;
    assert!(body.contains(r#""name":"Ada""#), "{body}");
    assert_eq!(headers["etag"], "\"1\"");
    assert_eq!(headers["evenkeel-host"], "fra-a1");
    assert_eq!(headers["evenkeel-instance"], "web-7");

    let changed = r#"{"name":"Ada","email":"ada@example.org"}"#;
    let stale = service.send("PUT", "/profiles/ada", &[("if-match", "\"9\"")], changed).await;
    assert_eq!(stale.0, StatusCode::PRECONDITION_FAILED);
    let fresh = service.send("PUT", "/profiles/ada", &[("if-match", "\"1\"")], changed).await;
    assert_eq!(fresh.0, StatusCode::OK);

    let (_, headers, body) = service.send("GET", "/profiles", &[], "").await;
    assert!(body.contains(r#""id":"ada""#) && body.contains(r#""revision":2"#), "{body}");
    assert_eq!(headers["evenkeel-host"], "fra-a1");

    assert_eq!(service.send("DELETE", "/profiles/ada", &[], "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(service.send("GET", "/profiles/ada", &[], "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_retried_creation_makes_one_profile() {
    let service = Service::start().await;
    let key = [("idempotency-key", "press-1")];
    let (first, headers, _) = service.send("POST", "/profiles", &key, r#"{"name":"Ada"}"#).await;
    let (again, retried, _) = service.send("POST", "/profiles", &key, r#"{"name":"Ada"}"#).await;
    assert_eq!((first, again), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(headers["location"], retried["location"]);
    service.send("POST", "/profiles", &[], r#"{"name":"Bob"}"#).await;
    assert_eq!(service.map.lock().unwrap().values.len(), 2);

    let taken = r#"{"id":"ada","name":"Ada"}"#;
    assert_eq!(service.send("POST", "/profiles", &[], taken).await.0, StatusCode::CREATED);
    let refused = service.send("POST", "/profiles", &[], taken).await.0;
    assert_eq!(refused, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_lost_quorum_is_said_at_once_and_takes_no_replica_out() {
    let service = Service::start().await;
    service.map.lock().unwrap().quorum_lost = true;
    let (status, headers, body) =
        service.send("PUT", "/profiles/ada", &[], r#"{"name":"Ada"}"#).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["evenkeel-outcome"], "none");
    assert!(body.contains("no-quorum"), "{body}");
    assert_eq!(service.send("GET", "/readyz", &[], "").await.0, StatusCode::OK);
    let (status, headers, _) = service.send("GET", "/healthz", &[], "").await;
    assert_eq!((status, headers["evenkeel-instance"].to_str().unwrap()), (StatusCode::OK, "web-7"));
    let (_, _, metrics) = service.send("GET", "/metrics", &[], "").await;
    assert!(metrics.contains("profiles_requests_total{status=\"5xx\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_unreachable_store_surely_changed_nothing() {
    // A port that was free a moment ago refuses connections.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::start_at(&format!("http://{free}"), Shared::default());
    let (status, headers, body) =
        service.send("PUT", "/profiles/ada", &[], r#"{"name":"Ada"}"#).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["evenkeel-outcome"], "none");
    assert!(body.contains("no-store"), "{body}");
}

#[tokio::test]
async fn bad_input_is_refused_with_the_reason() {
    let service = Service::start().await;
    for (method, path, body) in [
        ("PUT", "/profiles/ada", "not json"),
        ("PUT", "/profiles/ada", r#"{"name":"Ada","age":36}"#),
        ("PUT", "/profiles/a%20b", r#"{"name":"Ada"}"#),
        ("POST", "/profiles", r#"{"email":"nobody@example.org"}"#),
    ] {
        let (status, _, answer) = service.send(method, path, &[], body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path} {body}");
        assert!(answer.contains("bad-request"), "{answer}");
    }
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(70_000));
    let (status, _, _) = service.send("PUT", "/profiles/ada", &[], &long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn sigterm_ends_it_gracefully() {
    let mut service = Service::start().await;
    let pid = service.child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || service.child.wait().unwrap()).await.unwrap();
    assert!(status.success());
}
