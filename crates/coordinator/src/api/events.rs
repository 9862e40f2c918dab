//! Server-sent events: one at a time, at the pace of whoever reads them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body_util::channel::{Channel, Sender};
use serde::Serialize;
use tokio::time::timeout;

use super::Api;
use super::response::Refusal;
use crate::failure::Failure;

/// Time after which a reader is told that nothing has changed.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Time for a reader to take an event.
const READ_TIME: Duration = Duration::from_secs(30);
/// Time without a leader after which a reader is sent elsewhere.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);
/// Events that may wait for their reader.
const BUFFER: usize = 8;

/// The reader has gone.
pub(super) struct Gone;

/// Where events go in.
pub(super) struct Outlet(Sender<Bytes>);

/// Returns an answer whose body are the events.
pub(super) fn open() -> (Outlet, Response) {
    let (sender, body) = Channel::new(BUFFER);
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (Outlet(sender), response)
}

/// Says why a host that has had no leader for a while can tell no more.
pub(super) fn leaderless(api: &Api) -> Option<Refusal> {
    let view = api.executor.leader();
    let lost = view.leader.is_none() && view.since.elapsed() > LEADERLESS_MAX;
    lost.then(|| Refusal::from(Failure::NoQuorum { host: api.executor.host.clone() }))
}

impl Outlet {
    /// Tells an event of a revision.
    pub(super) async fn tell(
        &mut self,
        name: &str,
        id: u64,
        body: &impl Serialize,
    ) -> Result<(), Gone> {
        let data = serde_json::to_string(body).unwrap_or_default();
        self.send(format!("event: {name}\nid: {id}\ndata: {data}\n\n")).await
    }

    /// Tells why no more will come.
    pub(super) async fn end(&mut self, refusal: &Refusal) -> Result<(), Gone> {
        self.send(format!("event: end\ndata: {}\n\n", refusal.text())).await
    }

    async fn send(&mut self, event: String) -> Result<(), Gone> {
        match timeout(READ_TIME, self.0.send_data(event.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
