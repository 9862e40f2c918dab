//! What a node answers over HTTP beside the key-value API: heartbeats of other hosts, the status,
//! metrics, and, on its unix socket only, the order to stop.

pub mod changes;
pub mod logs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use evenkeel_control::declaration::Wanted;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, LeaderAnswer};
use evenkeel_coordinator::options::{RoundTrips, patience_for};
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_model::system::System;
use evenkeel_supervisor::shims::Shims;
use evenkeel_trust::tls::Caller;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::{Client, FORMAT_HEADER, SYSTEM_HEADER};
use crate::status::StatusWire;
use crate::store::Store;
use crate::wire::{AnswerWire, FORMAT, ReportWire, SYSTEM_FILE_MAX};

/// Longest report, in bytes.
const REPORT_MAX: usize = 1 << 20;

/// How long a leader near by may take to say its status before the local one is given instead, see
/// [`evenkeel_model::patience`].
const LEADER_STATUS_MAX: Duration = Duration::from_millis(500);

/// A question to the host's loop.
#[derive(Debug)]
pub enum Question {
    /// A host reports. Answered with `None` when this host does not lead.
    Heartbeat(Box<HostReport>, oneshot::Sender<Option<LeaderAnswer>>),
    /// Somebody asks how things stand.
    Status(oneshot::Sender<StatusWire>),
    /// Somebody asks what would follow if this were wanted. Answered with the plan in force and the
    /// one in the end.
    Preview(Box<Wanted>, oneshot::Sender<(Plan, Plan)>),
    /// Stop everything on this host. Answered when all has stopped.
    Down(oneshot::Sender<()>),
}

/// What the handlers need.
#[derive(Debug, Clone)]
pub struct Context {
    /// The way to the host's loop.
    pub questions: mpsc::Sender<Question>,
    /// The way to other hosts.
    pub client: Client,
    /// The replicated store.
    pub store: Store,
    /// The processes of this host.
    pub shims: Shims,
    /// How far other hosts are.
    pub round_trips: watch::Receiver<RoundTrips>,
    /// The system in force.
    pub system: watch::Receiver<Arc<System>>,
    /// This host.
    pub host: HostName,
}

/// Returns the routes for the API port.
pub fn public(context: Context) -> Router {
    Router::new()
        .route("/internal/heartbeat", post(heartbeat))
        .route("/internal/log", get(logs::own))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(REPORT_MAX))
        .with_state(context)
}

/// Returns the routes for the unix socket, which only this machine's administrator can reach.
pub fn local(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/system", post(changes::apply))
        .route("/v1/drain", post(changes::drain))
        .route("/v1/logs", get(logs::of))
        .route("/v1/down", post(down))
        .layer(DefaultBodyLimit::max(SYSTEM_FILE_MAX))
        .with_state(context)
}

async fn heartbeat(
    State(context): State<Context>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let system = context.system.borrow().name.clone();
    if !is_of_system(&headers, &system) {
        let text = format!("this node is of system `{system}` and speaks format {FORMAT}");
        return (StatusCode::CONFLICT, text).into_response();
    }
    let report = serde_json::from_slice::<ReportWire>(&body).ok();
    let Some(report) = report.and_then(|wire| HostReport::try_from(wire).ok()) else {
        return (StatusCode::BAD_REQUEST, "not a report").into_response();
    };
    if let Some(Extension(caller)) = caller
        && caller != Caller::Host(report.host.clone())
    {
        return (StatusCode::FORBIDDEN, "a host reports of itself alone").into_response();
    }
    let (reply, answer) = oneshot::channel();
    if context.questions.send(Question::Heartbeat(Box::new(report), reply)).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response();
    }
    match answer.await {
        Ok(Some(answer)) => json(&AnswerWire::new(&answer)),
        Ok(None) | Err(_) => {
            (StatusCode::MISDIRECTED_REQUEST, "this host does not lead").into_response()
        }
    }
}

/// A message of another system or version changes nothing here.
fn is_of_system(headers: &HeaderMap, system: &SystemName) -> bool {
    let is = |name: &str, expected: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes() == expected.as_bytes())
    };
    is(SYSTEM_HEADER, system.as_str()) && is(FORMAT_HEADER, &FORMAT.to_string())
}

/// Answers with the leader's status, or, with `?local` or without a leader, with this host's own.
async fn status(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let Some(own) = ask_status(&context).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response();
    };
    let system = Arc::clone(&context.system.borrow());
    let local = query.as_deref().is_some_and(|query| query.split('&').any(|part| part == "local"));
    if !local
        && let Some(leader) = own.leader.as_ref().filter(|leader| *leader != context.host.as_str())
        && let Ok(host) = system.find_host(leader)
    {
        let address = SocketAddr::new(host.address, system.ports.api);
        let limit = patience_for(&context.round_trips.borrow(), &host.name, LEADER_STATUS_MAX);
        let begun = Instant::now();
        let asked = context.client.get(address, "/v1/status?local", limit).await;
        if let Ok(body) = asked
            && let Ok(theirs) = serde_json::from_slice::<StatusWire>(&body)
            && theirs.is_leader()
        {
            return json(&theirs.seen_from(&own));
        }
        return json(&own.without_leader(begun.elapsed()));
    }
    json(&own)
}

async fn metrics(State(context): State<Context>) -> Response {
    match ask_status(&context).await {
        Some(status) => {
            let text = crate::metrics::encode(&status, &context.host);
            ([(header::CONTENT_TYPE, evenkeel_telemetry::metrics::CONTENT_TYPE)], text)
                .into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response(),
    }
}

async fn ask_status(context: &Context) -> Option<StatusWire> {
    let (reply, answer) = oneshot::channel();
    context.questions.send(Question::Status(reply)).await.ok()?;
    answer.await.ok()
}

async fn down(State(context): State<Context>) -> Response {
    let (reply, answer) = oneshot::channel();
    if context.questions.send(Question::Down(reply)).await.is_err() || answer.await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping").into_response();
    }
    StatusCode::NO_CONTENT.into_response()
}

fn json<T: serde::Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
