//! Leases: made, kept alive, looked at, ended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Change, LeaseId, Query};
use serde::{Deserialize, Serialize};

use super::response::{Refusal, Reply};
use super::target::{self, Parameters};
use super::{Api, read_json};

/// The body of a request for a lease.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    /// Seconds, with a fraction if need be.
    ttl_seconds: f64,
}

/// The body of an answer about a lease.
#[derive(Serialize)]
struct LeaseBody {
    lease: u64,
    ttl_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
}

pub(super) async fn grant(State(api): State<Arc<Api>>, request: Request) -> Response {
    let grant = async {
        Parameters::parse(request.uri(), &[])?;
        let (head, body) = request.into_parts();
        let _permit = api.admit()?;
        let Grant { ttl_seconds } = read_json(body).await?;
        let ttl = seconds("ttl_seconds", ttl_seconds)?;
        let answer = api.change(Change::GrantLease { ttl }, &head.headers).await?;
        let Answer::Granted { lease: LeaseId(lease), replayed } = answer else {
            return Err(Refusal::from_answer(&answer));
        };
        let body = LeaseBody { lease, ttl_seconds, left_seconds: None, keys: None };
        Ok(Reply::json(StatusCode::CREATED, &body).replayed(replayed).into_response())
    };
    api.respond(grant.await)
}

pub(super) async fn read(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let read = async {
        Parameters::parse(&uri, &[])?;
        let lease = target::lease(&uri, "")?;
        answer(lease, api.ask(Query::Lease { lease }, false).await?)
    };
    api.respond(read.await)
}

pub(super) async fn keep_alive(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let keep = async {
        Parameters::parse(&uri, &[])?;
        let lease = target::lease(&uri, "/keepalive")?;
        answer(lease, api.ask(Query::KeepAlive { lease }, false).await?)
    };
    api.respond(keep.await)
}

pub(super) async fn revoke(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let revoke = async {
        Parameters::parse(&uri, &[])?;
        let lease = target::lease(&uri, "")?;
        let _permit = api.admit()?;
        let answer = api.change(Change::RevokeLease { lease }, &headers).await?;
        Reply::to_change(answer).map(Reply::into_response)
    };
    api.respond(revoke.await)
}

fn answer(LeaseId(lease): LeaseId, answer: Answer) -> Result<Response, Refusal> {
    let Answer::Lease { ttl, left, keys } = answer else {
        return Err(Refusal::from_answer(&answer));
    };
    let body = LeaseBody {
        lease,
        ttl_seconds: ttl.as_secs_f64(),
        left_seconds: left.map(|left| left.as_secs_f64()),
        keys: Some(keys),
    };
    Ok(Reply::json(StatusCode::OK, &body).into_response())
}

/// Reads a time out of a body.
pub(super) fn seconds(name: &str, seconds: f64) -> Result<Duration, Refusal> {
    let bad = |_| Refusal::bad("bad-body", format!("`{name}`: {seconds} is no time"));
    Duration::try_from_secs_f64(seconds).map_err(bad)
}
