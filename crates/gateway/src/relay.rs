//! The relay: gateways of other hosts reach this host's replicas through it.
//!
//! Replicas speak plain HTTP and listen for their own host alone. Between hosts there is one
//! session, HTTP/2 in TLS in which both sides prove who they are, and in it a tunnel for each
//! connection to a replica (RFC 9113 §8.5):
//!
//! ```text
//!  gateway of A ════ TLS ════▶ relay of B ──── loopback ────▶ replica on B
//!      CONNECT web-17  ──▶
//!                      ◀──  200
//!      bytes of the replica's own protocol, both ways
//! ```
//!
//! It leads to what this host's table calls its own replicas, and to nothing else.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::HostName;
use evenkeel_trust::stream::Stream;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::http::{Method, StatusCode, Uri};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::io::InspectReader;

use crate::body::Outgoing;
use crate::protection::notice_death;
use crate::sessions::{ASK_AFTER, SESSION_WINDOW, SILENCE_MAX, STREAM_WINDOW, Session, ThisThread};
use crate::shared::Shared;

/// Sessions that other hosts may hold here at once: each has one or, while it is replaced, two.
pub(crate) const SESSIONS_MAX: usize = 1024;

/// Tunnels that one session may hold at once. More wait.
const TUNNELS_MAX: u32 = 4096;
/// Time to connect to a replica of this machine.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Silence after an answer's bytes after which a tunnel counts as idle, once this gateway ends.
/// While a question waits for its answer it does not.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// Asks the relay at the other end for a replica, and returns the way to it.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] when the host is there and the replica is not.
pub(crate) async fn ask(mut session: Session, replica: &InstanceId) -> io::Result<Upgraded> {
    let to = Uri::try_from(replica.to_string()).map_err(io::Error::other)?;
    let question = Request::builder().method(Method::CONNECT).uri(to);
    let question = question.body(Outgoing::Kept(Bytes::new())).map_err(io::Error::other)?;
    let answer = session.send_request(question).await.map_err(io::Error::other)?;
    match answer.status() {
        StatusCode::OK => hyper::upgrade::on(answer).await.map_err(io::Error::other),
        StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("replica `{replica}` takes no connection on its host"),
        )),
        other => Err(io::Error::other(format!("the relay answers with {other}"))),
    }
}

/// Serves the session of another host.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    stream: TcpStream,
    ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let from = stream.peer_addr().ok();
    match prove(&shared, stream).await {
        Ok((stream, host)) => {
            shared.metrics.relay_sessions.inc();
            take_questions(&shared, stream, Rc::new(host), ending).await;
            shared.metrics.relay_sessions.dec();
        }
        Err(error) => tracing::debug!(?from, %error, "a session did not begin"),
    }
    drop(permit);
}

/// Finds out who asks.
async fn prove(shared: &Shared, stream: TcpStream) -> io::Result<(Stream, HostName)> {
    notice_death(&stream)?;
    let trust = shared.protection.trust();
    trust.ok_or_else(|| io::Error::other("there is no certificate"))?.accept(stream).await
}

async fn take_questions(
    shared: &Rc<Shared>,
    stream: Stream,
    host: Rc<HostName>,
    mut ending: watch::Receiver<bool>,
) {
    let until = ending.clone();
    let service = service_fn(move |question: Request<Incoming>| {
        let (shared, host, until) = (Rc::clone(shared), Rc::clone(&host), until.clone());
        async move {
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = take(shared, &host, question, until).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http2::Builder::new(ThisThread);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(SILENCE_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SESSION_WINDOW)
        .max_concurrent_streams(TUNNELS_MAX)
        // It has proved that it is a host of this system: what it gives up, it may.
        .max_pending_accept_reset_streams(usize::try_from(TUNNELS_MAX).ok())
        .max_local_error_reset_streams(None);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a session ends is its two sides' business.
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = ending.wait_for(|ending| *ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// Begins a tunnel, and says what came of it.
async fn take(
    shared: Rc<Shared>,
    host: &HostName,
    mut question: Request<Incoming>,
    ending: watch::Receiver<bool>,
) -> StatusCode {
    if question.method() != Method::CONNECT {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    if !shared.protection.takes(host) {
        return StatusCode::FORBIDDEN;
    }
    let replica = question.uri().authority().map(|replica| InstanceId::parse(replica.as_str()));
    let Some(Ok(replica)) = replica else { return StatusCode::BAD_REQUEST };
    let address = shared.balancer.borrow().table().own_replica(&replica);
    let Some(address) = address else { return StatusCode::NOT_FOUND };
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    match timeout(CONNECT_MAX, connecting).await {
        Ok(Ok(stream)) => {
            let opening = hyper::upgrade::on(&mut question);
            drop(tokio::task::spawn_local(pass_on(shared, opening, stream, ending)));
            StatusCode::OK
        }
        Ok(Err(error)) => {
            tracing::debug!(%replica, %error, "a replica takes no connection");
            StatusCode::SERVICE_UNAVAILABLE
        }
        Err(_late) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Which side has spoken last, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// A question, which waits for its answer.
    Caller,
    /// An answer, or a part of one.
    Replica(Instant),
}

impl Said {
    /// Returns when to look again whether the connection is idle; `None` when it is.
    fn until_idle(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Caller => Some(IDLE_AFTER),
            Self::Replica(at) => {
                let silence = now.saturating_duration_since(at);
                Some(IDLE_AFTER.saturating_sub(silence)).filter(|left| !left.is_zero())
            }
        }
    }
}

/// Carries bytes both ways until a side ends, or this gateway does and no answer is under way.
async fn pass_on(
    shared: Rc<Shared>,
    opening: OnUpgrade,
    replica: TcpStream,
    mut ending: watch::Receiver<bool>,
) {
    // The other side has given it up in the meantime.
    let Ok(caller) = opening.await else { return };
    let caller = TokioIo::new(caller);
    shared.metrics.relayed.inc();
    let said = Cell::new(Said::Replica(Instant::now()));
    let mut caller = InspectReader::new(caller, |bytes: &[u8]| {
        if !bytes.is_empty() {
            said.set(Said::Caller);
        }
    });
    let mut replica = InspectReader::new(replica, |bytes: &[u8]| {
        if !bytes.is_empty() {
            said.set(Said::Replica(Instant::now()));
        }
    });
    let copying = tokio::io::copy_bidirectional(&mut caller, &mut replica);
    let idle = async {
        // Without a gateway nobody ends it.
        if ending.wait_for(|ending| *ending).await.is_err() {
            std::future::pending::<()>().await;
        }
        while let Some(pause) = said.get().until_idle(Instant::now()) {
            sleep(pause).await;
        }
    };
    tokio::select! {
        // How a connection ends is its two sides' business.
        _ended = copying => {}
        () = idle => {}
    }
    shared.metrics.relayed.dec();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_under_way_is_not_idle() {
        let now = Instant::now();
        let answer = Said::Replica(now);
        assert_eq!(answer.until_idle(now + IDLE_AFTER / 4), Some(IDLE_AFTER * 3 / 4));
        assert_eq!(answer.until_idle(now + IDLE_AFTER), None);
        assert_eq!(Said::Caller.until_idle(now + IDLE_AFTER * 9), Some(IDLE_AFTER));
    }
}
