//! The HTTP API: keys for users, health for gateways, requests of other hosts.
//!
//! Paths, statuses and headers are the contract with clients in any language; what they mean in
//! the store is decided elsewhere.

mod acquire;
mod events;
mod headers;
mod internal;
mod keys;
mod leases;
mod locks;
mod observe;
mod response;
mod target;
mod transactions;
mod value;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Change, Command, Query};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::client::{EXECUTE_PATH, LEADER_PATH};
use crate::executor::Executor;
use crate::failure::Failure;
use response::{Refusal, Reply};

/// Longest value in bytes.
pub(crate) const VALUE_MAX: usize = 1 << 20;
/// Longest body of JSON in bytes: values of 1 MiB together, each byte escaped or in base64.
const JSON_MAX: usize = 4 << 20;
/// Time for a request's body to arrive: a client that is no more must not hold its place for ever.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Requests that are worked on at once; more are refused.
const REQUESTS_MAX: usize = 512;

/// Those who watch at once; more are refused.
const WATCHERS_MAX: usize = 1024;
/// Other hosts' questions for changes that wait at once; more are refused.
const POLLS_MAX: usize = 4096;
/// Those who want a lock at once; more are refused.
const WAITERS_MAX: usize = 1024;

/// Time between two looks of whoever waits for a lock or observes one: changes of other keys wake
/// it too, and a busy store must not keep it busy.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What describes this API, for programs and for people.
const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

/// What the handlers share.
#[derive(Debug)]
struct Api {
    executor: Arc<Executor>,
    permits: Semaphore,
    watchers: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    polls: Semaphore,
}

/// Returns the routes of the API.
pub(crate) fn router(executor: &Arc<Executor>) -> Router {
    let api = Api {
        executor: Arc::clone(executor),
        permits: Semaphore::const_new(REQUESTS_MAX),
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
        polls: Semaphore::const_new(POLLS_MAX),
    };
    let keys = get(keys::read).put(keys::put).delete(keys::delete).fallback(refuse_method);
    let lease = get(leases::read).delete(leases::revoke).fallback(refuse_method);
    let lock = get(locks::read)
        .post(locks::acquire)
        .put(locks::proclaim)
        .delete(locks::release)
        .fallback(refuse_method);
    let only = |method: MethodRouter<Arc<Api>>| method.fallback(refuse_method);
    Router::new()
        .route("/v1/kv", get(keys::list).fallback(refuse_method))
        .route("/v1/txn", only(post(transactions::transact)))
        .route("/v1/leases", only(post(leases::grant)))
        .route("/v1/leases/{lease}", lease)
        .route("/v1/leases/{lease}/keepalive", only(post(leases::keep_alive)))
        .route("/v1/locks/{lock}", lock)
        .route("/v1/locks/{lock}/keepalive", only(post(locks::keep_alive)))
        .route("/v1/compact", only(post(keys::compact)))
        .route("/v1/kv/", keys.clone())
        .route("/v1/kv/{*key}", keys)
        .route("/v1/health", only(get(health)))
        .route("/v1/openapi.json", only(get(describe)))
        .route(LEADER_PATH, get(internal::leader))
        .route(EXECUTE_PATH, post(internal::execute))
        .fallback(refuse_path)
        .with_state(Arc::new(api))
}

impl Api {
    fn admit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.permits
            .try_acquire()
            .map_err(|_| Refusal::from(Failure::Overloaded { host: self.executor.host.clone() }))
    }

    fn admit_watcher(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.admit_long(&self.watchers)
    }

    fn admit_waiter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.admit_long(&self.waiters)
    }

    fn admit_long(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(permits)
            .try_acquire_owned()
            .map_err(|_| Refusal::from(Failure::Overloaded { host: self.executor.host.clone() }))
    }

    async fn ask(&self, query: Query, stale: bool) -> Result<Answer, Refusal> {
        let _permit = self.admit()?;
        let answer = if stale {
            self.executor.execute_stale(&query, 0).await
        } else {
            self.executor.execute(&crate::Request::Query(query), 0).await
        };
        Ok(answer?)
    }

    /// Carries out a change under the name that `headers` give it, if they give one.
    async fn change(&self, change: Change, headers: &HeaderMap) -> Result<Answer, Refusal> {
        let idempotency = headers::idempotency_key(headers)?;
        let command = Command { change, idempotency };
        Ok(self.executor.execute(&crate::Request::Command(command), 0).await?)
    }

    fn respond(&self, result: Result<Response, Refusal>) -> Response {
        let response = result.unwrap_or_else(Refusal::into_response);
        response::sign(response, &self.executor)
    }
}

async fn refuse_method(State(api): State<Arc<Api>>) -> Response {
    api.respond(Err(Refusal::method()))
}

async fn refuse_path(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    api.respond(Err(Refusal::path(uri.path())))
}

/// Answers with the description of this API.
async fn describe(State(api): State<Arc<Api>>) -> Response {
    api.respond(Ok(Reply::document(DESCRIPTION).into_response()))
}

/// Says whether this host knows a leader, and so can answer with the latest state.
async fn health(State(api): State<Arc<Api>>) -> Response {
    let view = api.executor.leader();
    let healthy = view.leader.is_some();
    let leader = view.leader.map(|leader| leader.to_string());
    let body = serde_json::json!({ "leader": leader, "term": view.term });
    api.respond(Ok(Reply::health(healthy, &body).into_response()))
}

/// Reads a body of at most `bytes_max`.
async fn read_body(body: Body, bytes_max: usize, longest: Duration) -> Result<Bytes, Refusal> {
    let bad = |message: &str| Refusal::bad("bad-body", message.to_owned());
    match timeout(longest, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::from(Failure::TooLarge)),
        Ok(Err(_)) => Err(bad("the request's body ended early")),
        Err(_) => Err(bad("the request's body did not arrive in time")),
    }
}

/// Reads a body of JSON.
async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = read_body(body, JSON_MAX, BODY_TIME).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad("bad-body", format!("the request's body: {error}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn check(sent: &str, expected: &str) {
        let echo = |body: Body| async {
            let read = read_body(body, VALUE_MAX, Duration::from_millis(50)).await;
            read.unwrap_or_else(|_| Bytes::from_static(b"given up"))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let router = Router::new().route("/", post(echo));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let head = "POST / HTTP/1.1\r\nhost: a1\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
        client.write_all(format!("{head}{sent}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(expected), "{answer}");
        server.abort();
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        check("value", "value").await;
        check("val", "given up").await;
    }
}
