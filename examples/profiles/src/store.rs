//! The client of Evenkeel's key-value store.
//!
//! Passes through what makes retries and conditional writes safe: `Idempotency-Key`, `If-Match` and
//! `If-None-Match` on the way in, `ETag` and the store's own verdict on the way out. Above all it
//! never turns "nobody knows whether this was applied" (504) into "this failed" (503).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Time for the store's whole answer. It waits for an election by itself, for about 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The store is behind a listener of this host: a connection is made at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest answer in bytes: a page of profiles.
const ANSWER_MAX: usize = 80 << 20;

/// Headers of a caller that the store must see.
const TO_STORE: [&str; 3] = ["idempotency-key", "if-match", "if-none-match"];
/// Headers of the store that a caller must see.
const FROM_STORE: [&str; 6] = [
    "etag",
    "retry-after",
    "evenkeel-host",
    "evenkeel-outcome",
    "evenkeel-replayed",
    "evenkeel-revision",
];

/// Connections to the store.
pub(crate) struct Store {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Store {
    /// Takes the store's URL. Connects on the first request.
    pub(crate) fn new(url: &str) -> Result<Self, hyper::http::uri::InvalidUri> {
        url.parse::<Uri>()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// Sends one request. A store that does not answer is an answer too: 503 when the request
    /// surely never reached it, 504 when that cannot be known.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response<Bytes> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        match format!("{}{path}", self.url).parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return error_bytes(StatusCode::BAD_REQUEST, "bad-request", "bad path"),
        }
        copy(&TO_STORE, headers, request.headers_mut());
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(Failure::NotSent)) => no_store(),
            Ok(Err(Failure::Unknown(error))) => unknown(&error),
            Err(_elapsed) => unknown("it did not answer in time"),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        let answer = self.client.request(request).await.map_err(|error| {
            if error.is_connect() { Failure::NotSent } else { Failure::Unknown(error.to_string()) }
        })?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| Failure::Unknown(error.to_string()))?.to_bytes();
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        copy(&FROM_STORE, &parts.headers, response.headers_mut());
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(response)
    }
}

/// Why no answer came.
enum Failure {
    NotSent,
    Unknown(String),
}

/// Profiles and the store's errors are both JSON.
const JSON: header::HeaderValue = header::HeaderValue::from_static("application/json");

fn copy(names: &[&'static str], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names.iter().copied().map(HeaderName::from_static) {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}

fn no_store() -> Response<Bytes> {
    let message = "the key-value store cannot be reached; nothing was changed";
    let mut response = error_bytes(StatusCode::SERVICE_UNAVAILABLE, "no-store", message);
    let headers = response.headers_mut();
    headers.insert("evenkeel-outcome", header::HeaderValue::from_static("none"));
    headers.insert("retry-after", header::HeaderValue::from_static("1"));
    response
}

fn unknown(why: &str) -> Response<Bytes> {
    let message = format!("the key-value store may or may not have applied this: {why}");
    let mut response = error_bytes(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", &message);
    let unknown = header::HeaderValue::from_static("unknown");
    response.headers_mut().insert("evenkeel-outcome", unknown);
    response
}

fn error_bytes(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// An error of this service, in the same form as the store's.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> axum::response::Response {
    forward(error_bytes(status, code, message))
}

/// Hands an answer of the store on to the caller.
pub(crate) fn forward(answer: Response<Bytes>) -> Response<Body> {
    answer.map(Body::from)
}
