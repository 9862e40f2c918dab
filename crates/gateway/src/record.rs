//! What is written down about one request when it ends, however it ends.

use std::net::SocketAddr;
use std::rc::Rc;

use evenkeel_gateway_core::pool::Tier;
use evenkeel_gateway_core::table::ListenerId;
use evenkeel_model::time::Timestamp;
use hyper::http::request;

use crate::access_log::{Line, PATH_MAX};
use crate::head;
use crate::live::LiveRoute;
use crate::shared::Shared;

/// The status that is logged when the client left before its answer (nginx's convention).
const CLIENT_LEFT: u16 = 499;

/// One request, counted and logged when dropped.
#[derive(Debug)]
pub(crate) struct Record {
    shared: Rc<Shared>,
    /// Whose budget counts the request as in flight.
    route: Option<Rc<LiveRoute>>,
    listener: Rc<ListenerId>,
    peer: SocketAddr,
    method: String,
    host: String,
    path: String,
    began: Timestamp,
    status: u16,
    bytes: u64,
    endpoint: Option<(String, Tier)>,
    tries: u32,
    note: Option<&'static str>,
}

impl Record {
    pub(crate) fn begin(
        shared: Rc<Shared>,
        listener: Rc<ListenerId>,
        peer: SocketAddr,
        head: &request::Parts,
    ) -> Self {
        Self {
            route: None,
            listener,
            peer,
            method: head.method.as_str().to_owned(),
            host: shorten(head::authority(head)),
            path: shorten(head.uri.path()),
            began: shared.clock.now(),
            status: CLIENT_LEFT,
            bytes: 0,
            endpoint: None,
            tries: 0,
            note: None,
            shared,
        }
    }

    /// Counts the request as in flight to the route's upstream.
    pub(crate) fn begin_route(&mut self, route: Rc<LiveRoute>) {
        self.shared.balancer.borrow_mut().begin_request(&route.route.to);
        self.route = Some(route);
    }

    pub(crate) fn answer(&mut self, status: u16) {
        self.status = status;
    }

    pub(crate) fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(crate) fn note(&mut self, note: &'static str) {
        self.note = Some(note);
    }

    pub(crate) fn tried(&mut self, endpoint: String, tier: Tier) {
        self.endpoint = Some((endpoint, tier));
    }

    pub(crate) fn sent(&mut self, tries: u32) {
        self.tries = tries;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let shared = &self.shared;
        let duration = shared.clock.now().since(self.began);
        if let Some(route) = &self.route {
            shared.balancer.borrow_mut().end_request(&route.route.to);
            route.metrics.observe(self.status, duration);
        }
        let line = Line {
            ts: jiff::Timestamp::now().to_string(),
            kind: "access",
            gateway: &self.listener.to_string(),
            peer: self.peer.to_string(),
            method: &self.method,
            host: &self.host,
            path: &self.path,
            status: self.status,
            bytes: self.bytes,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            endpoint: self.endpoint.as_ref().map(|(endpoint, _)| endpoint.as_str()),
            tier: self.endpoint.as_ref().map(|(_, tier)| tier.as_str()),
            tries: self.tries,
            note: self.note,
        };
        shared.access_log.write(&line, &shared.metrics);
    }
}

fn shorten(text: &str) -> String {
    text.get(..text.floor_char_boundary(PATH_MAX)).unwrap_or("").to_owned()
}
