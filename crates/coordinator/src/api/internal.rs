//! What other hosts of the system ask this one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::Query;
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::{Api, BODY_TIME, VALUE_MAX};
use crate::client::{
    FORMAT, FORMAT_HEADER, HOPS_HEADER, LeaderReport, SYSTEM_HEADER, WAIT_HEADER, wire,
};
use crate::failure::Failure;

/// Longest request in bytes: values, their keys, and what stands around them.
const REQUEST_MAX: usize = VALUE_MAX + (256 << 10);

/// Longest time for which a question waits for something to change.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Says who leads, as far as this voter knows.
pub(super) async fn leader(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse_sender(&api, &headers) {
        return refusal;
    }
    let view = api.executor.leader();
    let report = LeaderReport {
        leader: view.leader.map(|leader| leader.to_string()),
        term: view.term,
        is_self: view.is_self,
    };
    let body = serde_json::to_vec(&report).unwrap_or_default();
    Response::new(Body::from(body))
}

/// Carries out a request for another host.
pub(super) async fn execute(State(api): State<Arc<Api>>, request: Request) -> Response {
    if let Some(refusal) = refuse_sender(&api, request.headers()) {
        return refusal;
    }
    let hops = request.headers().get(HOPS_HEADER);
    let hops = hops.and_then(|hops| hops.to_str().ok()?.parse().ok()).unwrap_or(u8::MAX);
    let wait = request.headers().get(WAIT_HEADER);
    let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok()).unwrap_or(0);
    let body = timeout(BODY_TIME, Limited::new(request.into_body(), REQUEST_MAX).collect());
    let Ok(Ok(body)) = body.await else {
        return plain(StatusCode::BAD_REQUEST, "the request is incomplete or too long".to_owned());
    };
    let Some((request, stale)) = wire::decode_request(body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, "the request cannot be read".to_owned());
    };
    let wait = Duration::from_millis(wait).min(WAIT_MAX);
    let result = carry_out(&api, &request, stale, hops, wait).await;
    Response::new(Body::from(wire::encode_reply(&result, api.executor.revision())))
}

async fn carry_out(
    api: &Api,
    request: &crate::Request,
    stale: bool,
    hops: u8,
    wait: Duration,
) -> Result<Answer, Failure> {
    let executor = &api.executor;
    let overloaded = |_| Failure::Overloaded { host: executor.host.clone() };
    match request {
        crate::Request::Query(query @ Query::Changes { after, .. }) if stale => {
            // It may wait for long, and takes no room from those that do not.
            let _permit = api.polls.try_acquire().map_err(overloaded)?;
            executor.changes(query, *after, wait, hops).await
        }
        crate::Request::Query(query) if stale => {
            let _permit = api.permits.try_acquire().map_err(overloaded)?;
            executor.execute_stale(query, hops).await
        }
        crate::Request::Query(_) | crate::Request::Command(_) => {
            let _permit = api.permits.try_acquire().map_err(overloaded)?;
            executor.execute(request, hops).await
        }
    }
}

/// Refuses whoever belongs to another system or speaks another version.
fn refuse_sender(api: &Api, headers: &HeaderMap) -> Option<Response> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (host, system) = (&api.executor.host, api.executor.client.system());
    let welcome = header(SYSTEM_HEADER) == Some(system) && header(FORMAT_HEADER) == Some(FORMAT);
    let text = || format!("host `{host}` belongs to system `{system}` and speaks format {FORMAT}");
    (!welcome).then(|| plain(StatusCode::CONFLICT, text()))
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
