//! What other hosts of the system ask this one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
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
    let wait = waits(&request, wait);
    let executor = &api.executor;
    let result = match (api.admit(), &request) {
        (Err(_), _) => Err(Failure::Overloaded { host: executor.host.clone() }),
        (Ok(_permit), crate::Request::Query(query)) if stale => match wait {
            Some((after, wait)) => executor.changes(query, after, wait, hops).await,
            None => executor.execute_stale(query, hops).await,
        },
        (Ok(_permit), _) => executor.execute(&request, hops).await,
    };
    Response::new(Body::from(wire::encode_reply(&result, executor.revision())))
}

/// Returns behind which revision, and for how long, a question for changes waits for the first.
fn waits(request: &crate::Request, millis: u64) -> Option<(u64, Duration)> {
    let crate::Request::Query(Query::Changes { after, .. }) = request else { return None };
    Some((*after, Duration::from_millis(millis).min(WAIT_MAX)))
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
