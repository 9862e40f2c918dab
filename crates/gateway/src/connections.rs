//! Connections to endpoints: speaking HTTP on them, and keeping idle ones for the next request.
//!
//! | endpoint | connection |
//! |---|---|
//! | on this host, or on one whose traffic is not protected | HTTP/1.1 over TCP |
//! | a replica on another host | HTTP/1.1 through a tunnel in the session with that host's relay |
//! | the API of another host | a session with it: HTTP/2, shared by all requests |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use evenkeel_gateway_core::balancer::EndpointKey;
use evenkeel_gateway_core::table::{Endpoint, EndpointId, Link};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::{Authority, Scheme};
use hyper::http::{HeaderMap, Uri};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::body::Outgoing;
use crate::relay;
use crate::sessions::Session;
use crate::shared::Shared;

/// Idle connections kept for one endpoint.
const IDLE_MAX: usize = 64;
/// Time after which an idle connection is closed. Shorter than what servers commonly allow (Node
/// closes after 5 s, nginx after 75 s), so that the gateway closes first in most cases.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// What a request can be sent on.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One request after the other.
    Own(http1::SendRequest<Outgoing>),
    /// Many at once.
    Shared(Authority, Session),
}

impl Connection {
    fn is_closed(&self) -> bool {
        match self {
            Self::Own(connection) => connection.is_closed(),
            Self::Shared(_, session) => session.is_closed(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Own(connection) => connection.is_ready(),
            Self::Shared(_, session) => session.is_ready(),
        }
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// There is none. The error holds the request if nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match self {
            Self::Own(connection) => connection.try_send_request(request).await,
            Self::Shared(authority, session) => {
                let path = std::mem::take(request.uri_mut());
                *request.uri_mut() = absolute(authority, path);
                strip_connection(request.headers_mut());
                session.try_send_request(request).await
            }
        }
    }
}

/// HTTP/2 wants to know the whole address (RFC 9113 §8.3.1).
fn absolute(authority: &Authority, path: Uri) -> Uri {
    let mut parts = path.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    Uri::from_parts(parts).unwrap_or_default()
}

/// Takes out what speaks of a connection of HTTP/1.1 (RFC 9113 §8.2.2).
fn strip_connection(headers: &mut HeaderMap) {
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING, TE] {
        headers.remove(name);
    }
}

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

    /// Keeps a connection whose answer has been read. A session is kept already.
    pub(crate) fn keep(&self, endpoint: EndpointKey, connection: Connection) {
        if connection.is_closed() || matches!(connection, Connection::Shared(..)) {
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

/// Opens a connection to an endpoint.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] when its host is there and it is not, others when it can't
/// be reached.
pub(crate) async fn connect(shared: &Shared, endpoint: &Endpoint) -> io::Result<Connection> {
    match (endpoint.link, &endpoint.id) {
        (Link::Plain, _) => {
            let stream = shared.protection.connect(endpoint.address).await?;
            begin(TokioIo::new(stream)).await
        }
        (Link::Proven, EndpointId::Api(_)) => {
            let authority = Authority::try_from(endpoint.address.to_string());
            let authority = authority.map_err(io::Error::other)?;
            Ok(Connection::Shared(authority, shared.session(endpoint).await?))
        }
        (Link::Proven, EndpointId::Replica(replica)) => {
            begin(relay::ask(shared.session(endpoint).await?, replica).await?).await
        }
    }
}

/// Begins to speak HTTP/1.1.
async fn begin(io: impl Read + Write + Unpin + Send + 'static) -> io::Result<Connection> {
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    // It ends when both sides are done; its errors reach whoever waits for an answer.
    drop(tokio::task::spawn_local(async move { connection.with_upgrades().await.ok() }));
    Ok(Connection::Own(sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_gets_whole_addresses_and_nothing_of_the_connection() {
        let authority = Authority::from_static("[fd00::1]:7400");
        let whole = absolute(&authority, Uri::from_static("/v1/kv/a?prefix"));
        assert_eq!(whole, "http://[fd00::1]:7400/v1/kv/a?prefix");
        let mut headers = HeaderMap::new();
        for name in ["connection", "upgrade", "te", "transfer-encoding", "host", "if-match"] {
            headers.insert(name, "x".parse().unwrap());
        }
        strip_connection(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(hyper::header::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "if-match"]);
    }
}
