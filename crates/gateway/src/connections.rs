//! Connections to endpoints: speaking HTTP on them, and keeping idle ones for the next request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use evenkeel_gateway_core::balancer::EndpointKey;
use evenkeel_trust::stream::Stream;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::body::Outgoing;

/// Idle connections kept for one endpoint.
const IDLE_MAX: usize = 64;
/// Time after which an idle connection is closed. Shorter than what servers commonly allow (Node
/// closes after 5 s, nginx after 75 s), so that the gateway closes first in most cases.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// One connection on which a request can be sent.
pub(crate) type Connection = SendRequest<Outgoing>;

/// The idle connections of every endpoint.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    idle: RefCell<BTreeMap<EndpointKey, Vec<(Instant, Connection)>>>,
}

impl Connections {
    /// Takes the connection to an endpoint that was used last, if one is open and free.
    pub(crate) fn take(&self, endpoint: EndpointKey) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&endpoint)?;
        kept.retain(|(_, connection)| !connection.is_closed());
        let at = kept.iter().rposition(|(_, connection)| connection.is_ready())?;
        Some(kept.swap_remove(at).1)
    }

    /// Keeps a connection whose answer has been read.
    pub(crate) fn keep(&self, endpoint: EndpointKey, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(endpoint).or_default();
        if kept.len() < IDLE_MAX {
            kept.push((Instant::now(), connection));
        }
    }

    /// Closes the idle connections of an endpoint that is gone.
    pub(crate) fn forget(&self, endpoint: EndpointKey) {
        self.idle.borrow_mut().remove(&endpoint);
    }

    /// Closes connections that were idle for long, and those of endpoints that are gone.
    pub(crate) fn close_old(&self, exists: impl Fn(EndpointKey) -> bool) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|endpoint, kept| {
            kept.retain(|(since, connection)| {
                !connection.is_closed() && now.duration_since(*since) < IDLE_TIME_MAX
            });
            !kept.is_empty() && exists(*endpoint)
        });
    }
}

/// Begins to speak HTTP on a connection.
pub(crate) async fn begin(stream: Stream) -> io::Result<Connection> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends when both sides are done; its errors reach whoever waits for an answer.
    drop(tokio::task::spawn_local(async move { connection.with_upgrades().await.ok() }));
    Ok(sender)
}
