//! What all tasks of one gateway share. One thread, so cells instead of locks; no borrow is held
//! over an `await`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use evenkeel_gateway_core::balancer::{Balancer, EndpointKey, Event};
use evenkeel_gateway_core::health::{Identity, Outcome};
use evenkeel_gateway_core::table::{Endpoint, ListenerId, UpstreamId};
use evenkeel_model::time::Timestamp;
use hyper::header::HeaderValue;
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::connections::Connections;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::protection::Protection;
use crate::sessions::{Session, Sessions};

/// The monotonic clock of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the runtime's instant of a timestamp.
    pub(crate) fn instant(self, at: Timestamp) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + at.since(Timestamp::ZERO))
    }
}

/// State of the whole gateway.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The host's name, as it stands in `Evenkeel-Gateway`.
    pub(crate) host: HeaderValue,
    pub(crate) clock: Clock,
    pub(crate) balancer: RefCell<Balancer>,
    /// The routes in force. A request keeps those it began with.
    pub(crate) live: RefCell<Rc<Live>>,
    /// The listeners that are open.
    pub(crate) open: RefCell<BTreeSet<ListenerId>>,
    pub(crate) connections: Connections,
    pub(crate) sessions: Rc<Sessions>,
    pub(crate) protection: Rc<Protection>,
    pub(crate) metrics: Metrics,
    pub(crate) access_log: AccessLog,
    /// Told when a waiting request may go on: a first check ended, or a retry did.
    pub(crate) changed: Notify,
    /// Told when the balancer has something to do.
    pub(crate) wake: Notify,
}

impl Shared {
    /// Returns the session with an endpoint's host, opens it if there is none.
    pub(crate) async fn session(&self, endpoint: &Endpoint) -> io::Result<Session> {
        let place = (endpoint.host.clone(), endpoint.address);
        let prove = || {
            let (protection, (host, address)) = (Rc::clone(&self.protection), place.clone());
            async move { protection.prove(address, &host).await }
        };
        self.sessions.get(&place, prove).await
    }
}

/// A request in flight to an endpoint; told to the balancer as ended when dropped.
#[derive(Debug)]
pub(crate) struct Try {
    shared: Rc<Shared>,
    endpoint: EndpointKey,
    is_stream: bool,
}

impl Try {
    /// Guards a choice that the balancer has counted.
    pub(crate) const fn new(shared: Rc<Shared>, endpoint: EndpointKey) -> Self {
        Self { shared, endpoint, is_stream: false }
    }

    /// Lets it go on for long: from here on it takes no room from others, as far as there is room
    /// for such.
    pub(crate) fn last(&mut self) {
        self.is_stream =
            self.is_stream || self.shared.balancer.borrow_mut().begin_stream(self.endpoint);
    }

    pub(crate) const fn endpoint(&self) -> EndpointKey {
        self.endpoint
    }

    /// Tells how the try went. A try whose client left is not judged.
    pub(crate) fn judge(&self, outcome: Outcome) {
        Self::judge_late(&self.shared, self.endpoint, outcome);
    }

    /// Tells how a try went that has ended already.
    pub(crate) fn judge_late(shared: &Shared, endpoint: EndpointKey, outcome: Outcome) {
        let event = Event::TryJudged(outcome);
        shared.balancer.borrow_mut().handle_event(endpoint, event, shared.clock.now());
        let usual = matches!(
            outcome,
            Outcome::Answered { status: ..500, identity: Identity::Unsaid | Identity::Same }
        );
        if !usual {
            shared.wake.notify_one();
        }
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        let mut balancer = self.shared.balancer.borrow_mut();
        let event = if self.is_stream { Event::StreamEnded } else { Event::TryEnded };
        balancer.handle_event(self.endpoint, event, now);
        if balancer.endpoint(self.endpoint).is_none() {
            self.shared.connections.forget(self.endpoint);
        }
    }
}

/// Room in an upstream's retry budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct RetryRoom {
    shared: Rc<Shared>,
    upstream: UpstreamId,
}

impl RetryRoom {
    /// Takes room if there is any.
    pub(crate) fn take(shared: &Rc<Shared>, upstream: &UpstreamId) -> Option<Self> {
        let granted = shared.balancer.borrow_mut().begin_retry(upstream);
        granted.then(|| Self { shared: Rc::clone(shared), upstream: upstream.clone() })
    }
}

impl Drop for RetryRoom {
    fn drop(&mut self) {
        self.shared.balancer.borrow_mut().end_retry(&self.upstream);
        self.shared.changed.notify_waiters();
    }
}
