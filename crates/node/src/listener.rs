//! The API's port: finds out who calls where traffic is protected, and what they may ask.
//!
//! | who | proves it by | may ask |
//! |---|---|---|
//! | a host of the system | its certificate | everything |
//! | an operator | a certificate | all but `/internal/` |
//! | a program on this machine | its address; plain HTTP will do | all but `/internal/` |
//! | anybody else | nothing, over TLS | to join |

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::serve::{IncomingStream, Listener};
use evenkeel_trust::join::JOIN_PATH;
use evenkeel_trust::stream::Stream;
use evenkeel_trust::tls::{Caller, Trust};
use nix::sys::socket::sockopt::{KeepAlive, ReuseAddr, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

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
    let Some(trust) = trust.filter(|trust| trust.protects(address)) else {
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the API has ended");
            }
        });
        return Ok(());
    };
    let (outlet, proved) = mpsc::channel(64);
    tokio::spawn(accept(listener, trust, outlet));
    let router = router.layer(from_fn(authorize)).into_make_service_with_connect_info::<Asker>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(Proved(proved), router).await {
            tracing::error!(%error, "the API has ended");
        }
    });
    Ok(())
}

/// Connections whose other side is known.
struct Proved(mpsc::Receiver<(Stream, Caller)>);

impl Listener for Proved {
    type Io = Stream;
    type Addr = Caller;

    async fn accept(&mut self) -> (Stream, Caller) {
        match self.0.recv().await {
            Some(proved) => proved,
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller::Local)
    }
}

/// Who asks.
#[derive(Debug, Clone)]
struct Asker(Caller);

impl Connected<IncomingStream<'_, Proved>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Proved>) -> Self {
        Self(stream.remote_addr().clone())
    }
}

async fn authorize(
    ConnectInfo(Asker(caller)): ConnectInfo<Asker>,
    mut request: Request,
    next: Next,
) -> Response {
    if !may_ask(&caller, request.uri().path()) {
        let text = "only hosts of this system may ask for that";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn may_ask(caller: &Caller, path: &str) -> bool {
    match caller {
        Caller::Host(_) => true,
        Caller::Operator(_) | Caller::Local => !path.starts_with("/internal"),
        Caller::Stranger => path == JOIN_PATH,
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    trust: Trust,
    outlet: mpsc::Sender<(Stream, Caller)>,
) {
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
        let permits = if trust.is_member_at(from.ip()) { &hosts } else { &others };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else { continue };
        let (trust, outlet) = (trust.clone(), outlet.clone());
        tokio::spawn(async move {
            let proved = prove(stream, &trust).await;
            drop(permit);
            match proved {
                // The API has ended: the connection goes too.
                Ok(proved) => drop(outlet.send(proved).await),
                Err(error) => tracing::debug!(%from, %error, "a connection to the API was refused"),
            }
        });
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
