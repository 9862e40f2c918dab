//! The API's port: finds out who calls where traffic is protected, and what they may ask.
//!
//! | who | proves it by | may ask |
//! |---|---|---|
//! | a host of the system | its certificate | everything |
//! | an operator | a certificate | all but `/internal/` |
//! | a program on this machine | its address; plain HTTP will do | all but `/internal/` |
//! | anybody else | nothing, over TLS | to join |

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use evenkeel_trust::join::JOIN_PATH;
use evenkeel_trust::stream::Stream;
use evenkeel_trust::tls::{Caller, Trust};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::sockopt::{KeepAlive, ReuseAddr, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

/// Seconds of silence on a connection after which the other side is asked whether it is there, and
/// between two such questions.
const KEEPALIVE_SECONDS: u32 = 10;

/// Questions without an answer after which a connection has ended.
const KEEPALIVE_MAX: u32 = 3;

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for the first byte of a connection.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(5);
/// Connections that have not proved yet who is there: from addresses of hosts, and from others,
/// so that others can't take the hosts' places. More are closed.
const UNPROVED_MAX: usize = 512;
/// Requests that may be under way on one connection at once, watches among them. More wait.
const STREAMS_MAX: u32 = 4096;
/// Bytes of one request that may come before anybody reads them.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all requests of a connection together.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The first byte of TLS (RFC 8446 §5.1: a handshake record). No HTTP request begins with it.
const TLS: u8 = 22;

/// What whoever speaks plain HTTP from another machine is told.
const PLAIN: &str = "this port is for hosts of the system, which prove who they are by TLS; \
    programs ask the key-value API of their own machine, and everybody else a gateway\n";

/// Opens a listening socket that a restarted node can open again at once. Connections to it whose
/// other side is no more end by themselves.
///
/// # Errors
/// The address is taken, or not this machine's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, KeepAlive, &true)?;
    setsockopt(&socket, TcpKeepIdle, &KEEPALIVE_SECONDS)?;
    setsockopt(&socket, TcpKeepInterval, &KEEPALIVE_SECONDS)?;
    setsockopt(&socket, TcpKeepCount, &KEEPALIVE_MAX)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(1024)?)?;
    Ok(TcpListener::from(socket))
}

/// Serves the API, to everybody alike without `trust` or on a loopback address.
///
/// # Errors
/// The listener can't be used.
pub(crate) fn serve(listener: TcpListener, router: Router, trust: Option<Trust>) -> io::Result<()> {
    let address = listener.local_addr()?.ip();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let trust = trust.filter(|trust| trust.protects(address));
    tokio::spawn(accept(listener, router, trust));
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, router: Router, trust: Option<Trust>) {
    let (hosts, others) =
        (Arc::new(Semaphore::new(UNPROVED_MAX)), Arc::new(Semaphore::new(UNPROVED_MAX)));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let Some(trust) = trust.clone() else {
            // Nothing depends on it.
            drop(stream.set_nodelay(true));
            tokio::spawn(answer(Stream::Plain(stream), router));
            continue;
        };
        let permits = if trust.is_member_at(from.ip()) { &hosts } else { &others };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else { continue };
        tokio::spawn(async move {
            let proved = prove(stream, &trust).await;
            drop(permit);
            match proved {
                Ok((stream, caller)) => answer_authorized(stream, router, caller).await,
                Err(error) => tracing::debug!(%from, %error, "a connection to the API was refused"),
            }
        });
    }
}

/// Answers on a connection whose other side is known.
async fn answer_authorized(stream: Stream, router: Router, caller: Caller) {
    let authorized = router.layer(Extension(caller.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, may) = (authorized.clone(), may_ask(&caller, request.uri().path()));
        async move {
            if may {
                return router.call(request).await;
            }
            let text = "only hosts of this system may ask for that";
            Ok((StatusCode::FORBIDDEN, text).into_response())
        }
    });
    serve_connection(stream, service).await;
}

/// Answers everybody.
async fn answer(stream: Stream, router: Router) {
    serve_connection(stream, TowerToHyperService::new(router)).await;
}

/// Speaks HTTP/1.1 or HTTP/2, whichever the other side begins with.
async fn serve_connection<S>(stream: Stream, service: S)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Gateways give up many requests at once, when something has taken long.
        .max_pending_accept_reset_streams(usize::try_from(STREAMS_MAX).ok())
        .max_local_error_reset_streams(None);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::trace!(error, "a connection to the API has ended");
    }
}

fn may_ask(caller: &Caller, path: &str) -> bool {
    match caller {
        Caller::Host(_) => true,
        Caller::Operator(_) | Caller::Local => !path.starts_with("/internal"),
        Caller::Stranger => path == JOIN_PATH,
    }
}

/// Finds out who is at the other end.
async fn prove(stream: TcpStream, trust: &Trust) -> io::Result<(Stream, Caller)> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    let looked = timeout(FIRST_BYTE_MAX, stream.peek(&mut first)).await;
    match looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ if first == [TLS] => return trust.accept_anyone(stream).await,
        _ => {}
    }
    // A packet that claims to come from one of this machine's own addresses, and does not, is
    // dropped by the kernel before it gets here.
    let (from, to) = (stream.peer_addr()?.ip(), stream.local_addr()?.ip());
    if from == to || from.is_loopback() {
        return Ok((Stream::Plain(stream), Caller::Local));
    }
    refuse_plain(stream).await?;
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it speaks plain HTTP"))
}

async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    let length = PLAIN.len();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{PLAIN}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // With bytes unread, closing would take the answer back.
    let mut rest = [0; 4096];
    let reading = async {
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await.is_ok_and(|read| read > 0)
        {
        }
    };
    drop(timeout(Duration::from_secs(1), reading).await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenkeel_model::name::HostName;
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn connections_notice_that_the_other_side_is_no_more() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(getsockopt(&accepted, KeepAlive).unwrap());
        assert_eq!(getsockopt(&accepted, TcpKeepIdle).unwrap(), KEEPALIVE_SECONDS);
        drop(client);
    }

    #[test]
    fn who_proves_less_may_ask_for_less() {
        let name = || HostName::parse("a1").unwrap();
        let check = |path: &str, expected: [bool; 4]| {
            let callers =
                [Caller::Host(name()), Caller::Operator(name()), Caller::Local, Caller::Stranger];
            assert_eq!(callers.map(|caller| may_ask(&caller, path)), expected, "{path}");
        };
        check("/v1/kv/key", [true, true, true, false]);
        check("/v1/status", [true, true, true, false]);
        check("/join", [true, true, true, true]);
        check("/join/", [true, true, true, false]);
        check("/internal/heartbeat", [true, false, false, false]);
        check("/internal", [true, false, false, false]);
    }
}
