//! The HTTP API: keys for users, health for gateways, requests of other hosts.
//!
//! Paths, statuses and headers are the contract with clients in any language; what they mean in
//! the store is decided elsewhere.

mod base64;
mod headers;
mod internal;
mod response;
mod target;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use evenkeel_consensus::command::{Answer, Command, Query, Space};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::client::{EXECUTE_PATH, LEADER_PATH};
use crate::executor::Executor;
use crate::failure::Failure;
use headers::Conditions;
use response::{Refusal, Reply};
use target::Parameters;

/// Longest value in bytes.
pub(crate) const VALUE_MAX: usize = 1 << 20;
/// Time for a request's body to arrive: a client that is no more must not hold its place for ever.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Requests that are worked on at once; more are refused.
const REQUESTS_MAX: usize = 512;

/// What the handlers share.
#[derive(Debug)]
struct Api {
    executor: Arc<Executor>,
    permits: Semaphore,
}

/// Returns the routes of the API.
pub(crate) fn router(executor: &Arc<Executor>) -> Router {
    let api = Api { executor: Arc::clone(executor), permits: Semaphore::const_new(REQUESTS_MAX) };
    let keys = get(read_key).put(put_key).delete(delete_key).fallback(refuse_method);
    Router::new()
        .route("/v1/kv", get(list_keys).fallback(refuse_method))
        .route("/v1/kv/", keys.clone())
        .route("/v1/kv/{*key}", keys)
        .route("/v1/health", get(health))
        .route(LEADER_PATH, get(internal::leader))
        .route(EXECUTE_PATH, post(internal::execute))
        .with_state(Arc::new(api))
}

impl Api {
    fn admit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.permits
            .try_acquire()
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

    async fn change(&self, command: Command) -> Result<Answer, Refusal> {
        Ok(self.executor.execute(&crate::Request::Command(command), 0).await?)
    }

    fn respond(&self, result: Result<Reply, Refusal>) -> Response {
        let response = result.map_or_else(Refusal::into_response, Reply::into_response);
        response::sign(response, &self.executor)
    }
}

async fn read_key(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let read = async {
        let key = target::key(&uri)?;
        let parameters = Parameters::parse(&uri, &["stale"])?;
        let conditions = Conditions::parse_read(&headers)?;
        let answer = api.ask(Query::Get { space: Space::User, key }, parameters.stale).await?;
        Reply::to_read(answer, &conditions)
    };
    api.respond(read.await)
}

async fn list_keys(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let list = async {
        let Parameters { stale, prefix, limit } =
            Parameters::parse(&uri, &["stale", "prefix", "limit"])?;
        let answer = api.ask(Query::Prefix { space: Space::User, prefix, limit }, stale).await?;
        Reply::to_list(answer)
    };
    api.respond(list.await)
}

async fn put_key(State(api): State<Arc<Api>>, request: Request) -> Response {
    let put = async {
        let key = target::key(request.uri())?;
        Parameters::parse(request.uri(), &[])?;
        let expect = Conditions::parse_write(request.headers())?;
        let idempotency = headers::idempotency_key(request.headers())?;
        let _permit = api.admit()?;
        let value = read_body(request.into_body(), BODY_TIME).await?;
        let space = Space::User;
        Reply::to_change(
            &api.change(Command::Put { space, key, value, expect, idempotency }).await?,
        )
    };
    api.respond(put.await)
}

async fn delete_key(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let delete = async {
        let key = target::key(&uri)?;
        Parameters::parse(&uri, &[])?;
        let expect = Conditions::parse_write(&headers)?;
        let idempotency = headers::idempotency_key(&headers)?;
        let _permit = api.admit()?;
        let space = Space::User;
        Reply::to_change(&api.change(Command::Delete { space, key, expect, idempotency }).await?)
    };
    api.respond(delete.await)
}

async fn refuse_method(State(api): State<Arc<Api>>) -> Response {
    api.respond(Err(Refusal::method()))
}

/// Says whether this host knows a leader, and so can answer with the latest state.
async fn health(State(api): State<Arc<Api>>) -> Response {
    let view = api.executor.leader();
    let healthy = view.leader.is_some();
    let leader = view.leader.map(|leader| leader.to_string());
    let body = serde_json::json!({ "leader": leader, "term": view.term });
    api.respond(Ok(Reply::health(healthy, &body)))
}

async fn read_body(body: Body, longest: Duration) -> Result<Bytes, Refusal> {
    let bad = |message: &str| Refusal::bad("bad-body", message.to_owned());
    match timeout(longest, Limited::new(body, VALUE_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::from(Failure::TooLarge)),
        Ok(Err(_)) => Err(bad("the request's body ended early")),
        Err(_) => Err(bad("the request's body did not arrive in time")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn check(sent: &str, expected: &str) {
        let echo = |body: Body| async {
            let read = read_body(body, Duration::from_millis(50)).await;
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
