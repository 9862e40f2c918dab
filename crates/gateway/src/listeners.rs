//! Listening sockets: inherited from the shim or opened here, kept in step with the table.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_gateway_core::table::{ListenerId, RouteTable};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::admin;
use crate::proxy::Client;
use crate::relay;
use crate::shared::Shared;

/// Connections of clients that may be open at once.
const CONNECTIONS_MAX: u32 = 8192;
/// Connections that the kernel may hold ready for acceptance.
const BACKLOG: u32 = 1024;
/// Longest time from the end of an answer to the end of the next request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest request head in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a socket is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Requests(ListenerId),
    Admin,
    /// Connections of other hosts to replicas of this one.
    Relay,
}

/// Who is served on a socket.
#[derive(Debug, Clone)]
enum Kind {
    Requests(Rc<ListenerId>),
    Admin,
    Relay,
}

/// A socket that is open.
#[derive(Debug)]
struct Open {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// All sockets of a gateway.
#[derive(Debug)]
pub(crate) struct Listeners {
    shared: Rc<Shared>,
    inherited: Vec<std::net::TcpListener>,
    open: BTreeMap<Purpose, Open>,
    /// The last error of a socket that could not be opened, so that it is said once.
    failing: BTreeMap<Purpose, String>,
    room: Arc<Semaphore>,
    /// Apart from `room`: clients and hosts can't take each other's places.
    relay_room: Arc<Semaphore>,
    ending: watch::Sender<bool>,
}

impl Listeners {
    pub(crate) fn new(shared: Rc<Shared>, inherited: Vec<std::net::TcpListener>) -> Self {
        let room = usize::try_from(CONNECTIONS_MAX).unwrap_or(usize::MAX);
        Self {
            shared,
            inherited,
            open: BTreeMap::new(),
            failing: BTreeMap::new(),
            room: Arc::new(Semaphore::new(room)),
            relay_room: Arc::new(Semaphore::new(relay::SESSIONS_MAX)),
            ending: watch::Sender::new(false),
        }
    }

    /// Opens and closes sockets until they are what the table says; those that cannot be opened
    /// now are tried again by the next call.
    pub(crate) fn reconcile(&mut self, table: &RouteTable) {
        let mut wanted: BTreeMap<Purpose, SocketAddr> = BTreeMap::new();
        wanted.insert(Purpose::Admin, table.admin);
        wanted.extend(table.relay.map(|address| (Purpose::Relay, address)));
        for listener in &table.listeners {
            wanted.insert(Purpose::Requests(listener.id.clone()), listener.address);
        }
        self.open.retain(|purpose, open| {
            let keep = wanted.get(purpose) == Some(&open.address);
            if !keep {
                open.accepting.abort();
            }
            keep
        });
        for (purpose, address) in wanted {
            if self.open.contains_key(&purpose) {
                continue;
            }
            match self.listen(address) {
                Ok(listener) => {
                    tracing::info!(%address, "listening");
                    self.failing.remove(&purpose);
                    let accepting = self.accept_on(listener, &purpose);
                    self.open.insert(purpose, Open { address, accepting });
                }
                Err(error) => self.note_failure(purpose, address, &error),
            }
        }
        let of_requests = self.open.keys().filter_map(|purpose| match purpose {
            Purpose::Requests(id) => Some(id.clone()),
            Purpose::Admin | Purpose::Relay => None,
        });
        *self.shared.open.borrow_mut() = of_requests.collect();
    }

    fn note_failure(&mut self, purpose: Purpose, address: SocketAddr, error: &io::Error) {
        let text = error.to_string();
        if self.failing.get(&purpose) != Some(&text) {
            tracing::error!(%address, error = text, "cannot listen; trying again every second");
            self.failing.insert(purpose, text);
        }
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let of_port = |listener: &&std::net::TcpListener| {
            listener.local_addr().is_ok_and(|own| own.port() == address.port())
        };
        if let Some(listener) = self.inherited.iter().find(of_port) {
            let listener = listener.try_clone()?;
            listener.set_nonblocking(true)?;
            return TcpListener::from_std(listener);
        }
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    fn accept_on(&self, listener: TcpListener, purpose: &Purpose) -> JoinHandle<()> {
        let shared = Rc::clone(&self.shared);
        let ending = self.ending.subscribe();
        let (kind, room) = match purpose {
            Purpose::Requests(id) => (Kind::Requests(Rc::new(id.clone())), &self.room),
            Purpose::Admin => (Kind::Admin, &self.room),
            Purpose::Relay => (Kind::Relay, &self.relay_room),
        };
        let room = Arc::clone(room);
        tokio::task::spawn_local(async move {
            while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let (shared, ending) = (Rc::clone(&shared), ending.clone());
                let kind = kind.clone();
                // A panic in it ends this connection and nothing else.
                drop(tokio::task::spawn_local(async move {
                    prepare(&stream);
                    match kind {
                        Kind::Requests(listener) => {
                            let client = Client { shared, listener, peer };
                            serve_requests(client, stream, ending, permit).await;
                        }
                        Kind::Admin => serve_admin(shared, stream, ending, permit).await,
                        Kind::Relay => relay::serve(shared, stream, ending, permit).await,
                    }
                }));
            }
        })
    }

    /// Accepts nothing more, lets each connection end with the answer under way, and waits for
    /// them.
    pub(crate) async fn end(self, longest: Duration) {
        for open in self.open.values() {
            open.accepting.abort();
        }
        // Without a connection nobody listens to it.
        self.ending.send_replace(true);
        let relayed = u32::try_from(relay::SESSIONS_MAX).unwrap_or(u32::MAX);
        let all = async {
            let clients = self.room.acquire_many(CONNECTIONS_MAX).await;
            // What clients of this gateway wait for may be answered through other gateways only.
            (clients, self.relay_room.acquire_many(relayed).await)
        };
        if tokio::time::timeout(longest, all).await.is_err() {
            tracing::warn!(seconds = longest.as_secs(), "connections were cut after the deadline");
        }
    }
}

/// Sets what helps and costs nothing if it cannot be set.
fn prepare(stream: &TcpStream) {
    let set = stream.set_nodelay(true).is_ok()
        && setsockopt(stream, sockopt::KeepAlive, &true).is_ok()
        && setsockopt(stream, sockopt::TcpKeepIdle, &30).is_ok();
    if !set {
        tracing::debug!("cannot set options of a client's connection");
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(HEAD_MAX);
    builder
}

async fn serve_requests(
    client: Client,
    stream: TcpStream,
    mut ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let shared = Rc::clone(&client.shared);
    shared.metrics.connections.inc();
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, std::convert::Infallible>(client.handle(request).await) }
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    // What ends a client's connection is the client's business.
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = ending.wait_for(|ending| *ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    shared.metrics.connections.dec();
    drop(permit);
}

async fn serve_admin(
    shared: Rc<Shared>,
    stream: TcpStream,
    mut ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let service = service_fn(|request| {
        let response = admin::answer(&shared, &request);
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = ending.wait_for(|ending| *ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(permit);
}
