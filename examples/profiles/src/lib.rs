//! People's profiles over HTTP/JSON: the small service that an Evenkeel user copies.
//!
//! It keeps nothing itself. Every replica reads and writes the key-value store behind `KV_URL`, so
//! any of them can die at any moment, and any of them can answer the next request. What makes that
//! safe for its callers stands in `store.rs`: revisions and idempotency keys go through both ways.
//!
//! Environment: `KV_URL` (`${kv.url}` in the system file), `PORT` (given by Evenkeel), and if wanted
//! `ADDRESS` to listen on one address only. `EVENKEEL_INSTANCE` names the replica in its answers.

mod metrics;
mod profile;
mod store;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::metrics::Metrics;
use crate::profile::Profile;
use crate::store::Store;

/// Longest profile in bytes.
const BODY_MAX: usize = 64 * 1024;

/// What every request handler shares.
struct Service {
    store: Store,
    metrics: Metrics,
    /// This replica's name, `local` outside Evenkeel.
    instance: HeaderValue,
}

/// Runs the service until SIGTERM.
///
/// # Errors
/// When its environment is incomplete or its port is taken.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    let kv_url = std::env::var("KV_URL").context("read KV_URL, the URL of the key-value store")?;
    let instance = std::env::var("EVENKEEL_INSTANCE").unwrap_or_else(|_| "local".to_owned());
    let service = Arc::new(Service {
        store: Store::new(&kv_url).context("read KV_URL")?,
        metrics: Metrics::default(),
        instance: HeaderValue::from_str(&instance).context("read EVENKEEL_INSTANCE")?,
    });
    let listener = listen().await?;
    writeln!(std::io::stdout(), "profiles listens on {}", listener.local_addr()?)?;

    // Requests under way are ended; Evenkeel has told the gateways before that no new ones come.
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, routes(service))
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}

/// Opens the listening socket: on `ADDRESS`, else on every address of the host.
async fn listen() -> anyhow::Result<TcpListener> {
    let port: u16 = std::env::var("PORT").context("read PORT")?.parse().context("read PORT")?;
    if let Ok(address) = std::env::var("ADDRESS") {
        let address: IpAddr = address.parse().context("read ADDRESS")?;
        let listener = TcpListener::bind((address, port)).await;
        return listener.with_context(|| format!("listen on {address} port {port}"));
    }
    // The IPv6 wildcard takes IPv4 as well, where the host has IPv6 at all.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listen on port {port}")),
    }
}

fn routes(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/profiles", get(list).post(create))
        .route("/profiles/{id}", get(read).put(update).delete(delete))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(service): State<Arc<Service>>| service.metrics.text()))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), observe))
        .with_state(service)
}

/// Counts each answer and says in it which replica answered.
async fn observe(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut response = next.run(request).await;
    service.metrics.count(response.status(), started.elapsed());
    let name = HeaderName::from_static("evenkeel-instance");
    response.headers_mut().insert(name, service.instance.clone());
    response
}

/// A replica is ready as soon as it listens. It does not ask the store: a store without a quorum
/// would take every replica out at once, and each can still say so better than nobody.
async fn ready() -> &'static str {
    "ready\n"
}

/// `GET /profiles?limit=N`
async fn list(State(service): State<Arc<Service>>, Query(query): Query<profile::Page>) -> Response {
    let (prefix, limit) = (profile::KEY_PREFIX, query.limit.unwrap_or(100).min(1000));
    let path = format!("/v1/kv?prefix={prefix}&limit={limit}");
    let mut answer = service.store.send(Method::GET, &path, &HeaderMap::new(), Bytes::new()).await;
    if answer.status() != StatusCode::OK {
        return store::forward(answer);
    }
    match profile::list(answer.body()) {
        Ok(body) => {
            *answer.body_mut() = body;
            store::forward(answer)
        }
        Err(error) => store::error(StatusCode::BAD_GATEWAY, "bad-store-answer", &error.to_string()),
    }
}

/// `POST /profiles` with `{"name": …}` and, if wanted, `"id"`. An id that exists is refused (412).
async fn create(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let (id, profile) = match profile::parse_new(&body, &headers) {
        Ok(parsed) => parsed,
        Err(problem) => return refuse(&problem),
    };
    let mut headers = headers;
    headers.insert("if-none-match", HeaderValue::from_static("*"));
    headers.remove("if-match");
    let mut response = write(&service, Method::PUT, &id, &headers, &profile).await;
    if let Ok(location) = HeaderValue::from_str(&format!("/profiles/{id}")) {
        response.headers_mut().insert("location", location);
    }
    response
}

/// `GET /profiles/{id}`: the profile, its revision as `ETag`.
async fn read(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Response {
    match profile::key_path(&id) {
        Ok(path) => {
            let headers = HeaderMap::new();
            let sent = service.store.send(Method::GET, &path, &headers, Bytes::new());
            store::forward(sent.await)
        }
        Err(problem) => refuse(&problem),
    }
}

/// `PUT /profiles/{id}`: creates or replaces; `If-Match` makes it conditional.
async fn update(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match Profile::parse(&body) {
        Ok(profile) => write(&service, Method::PUT, &id, &headers, &profile).await,
        Err(problem) => refuse(&problem),
    }
}

/// `DELETE /profiles/{id}`; `If-Match` makes it conditional.
async fn delete(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match profile::key_path(&id) {
        Ok(path) => {
            let sent = service.store.send(Method::DELETE, &path, &headers, Bytes::new());
            store::forward(sent.await)
        }
        Err(problem) => refuse(&problem),
    }
}

/// Stores a profile and answers with it, so that a caller who sent no id learns it.
async fn write(
    service: &Service,
    method: Method,
    id: &str,
    headers: &HeaderMap,
    profile: &Profile,
) -> Response {
    let path = match profile::key_path(id) {
        Ok(path) => path,
        Err(problem) => return refuse(&problem),
    };
    let mut answer = service.store.send(method, &path, headers, profile.to_bytes()).await;
    if answer.status().is_success() {
        *answer.body_mut() = profile.with_id(id);
    }
    store::forward(answer)
}

fn refuse(problem: &str) -> Response {
    store::error(StatusCode::BAD_REQUEST, "bad-request", problem)
}
