//! The gateway's own pages for operators and tools: `/metrics`, `/state`, `/healthz`.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::{Method, StatusCode};
use hyper::{Request, Response};
use serde::Serialize;

use crate::body::Answer;
use crate::shared::Shared;

/// What `/state` says.
#[derive(Serialize)]
struct StateText {
    system: String,
    host: String,
    generation: u64,
    listeners: Vec<ListenerText>,
    endpoints: Vec<EndpointText>,
}

#[derive(Serialize)]
struct ListenerText {
    id: String,
    address: String,
    /// Whether it is open; a port that is taken is tried again every second.
    open: bool,
}

#[derive(Serialize)]
struct EndpointText {
    upstream: String,
    id: String,
    address: String,
    host: String,
    standing: &'static str,
    /// Absent once the table does not name the endpoint any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    share_percent: u32,
    in_flight: u32,
    streams: u32,
}

/// Answers a request to the admin listener.
pub(crate) fn answer(shared: &Rc<Shared>, request: &Request<Incoming>) -> Response<Answer> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/metrics" => {
            let text = shared.metrics.encode(&shared.balancer.borrow(), shared.clock.now());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            plain(StatusCode::OK, kind, text)
        }
        "/state" => {
            let text = serde_json::to_string_pretty(&state(shared)).unwrap_or_default();
            plain(StatusCode::OK, "application/json", text + "\n")
        }
        _ => plain(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics, /state and /healthz\n".to_owned(),
        ),
    }
}

fn plain(status: StatusCode, kind: &'static str, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn state(shared: &Rc<Shared>) -> StateText {
    let balancer = shared.balancer.borrow();
    let table = balancer.table();
    let open = shared.open.borrow();
    let listeners = table.listeners.iter().map(|listener| ListenerText {
        id: listener.id.to_string(),
        address: listener.address.to_string(),
        open: open.contains(&listener.id),
    });
    let endpoints = balancer.view(shared.clock.now()).map(|view| EndpointText {
        upstream: view.upstream.to_string(),
        id: view.endpoint.id.to_string(),
        address: view.endpoint.address.to_string(),
        host: view.endpoint.host.to_string(),
        standing: view.standing.as_str(),
        tier: view.tier.map(|tier| tier.as_str()),
        share_percent: view.share,
        in_flight: view.in_flight,
        streams: view.streams,
    });
    StateText {
        system: table.system.to_string(),
        host: table.host.to_string(),
        generation: table.generation,
        listeners: listeners.collect(),
        endpoints: endpoints.collect(),
    }
}
