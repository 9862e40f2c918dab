//! Lets a browser of this machine in: a listener outside the lab, answered from inside it.
//!
//! It stands for what a browser does with a name of several addresses: when a gateway does not
//! answer, the next one is asked. It belongs to the demo's clients, not to the system.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::client::{Client, Question};
use crate::load::EnterNetwork;

/// Longest request in bytes.
const BODY_MAX: usize = 1 << 20;
/// Between two neighbours only.
const HOP_BY_HOP: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];
/// Makes a request safe to send again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Answers everything that comes to `listener` from one of `addresses`, reached through a network
/// of the lab, until this process ends.
pub(crate) fn start(
    listener: TcpListener,
    enter: EnterNetwork,
    addresses: Vec<SocketAddr>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let relay = move || -> io::Result<()> {
        enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(listener, addresses))
    };
    let run = move || {
        if let Err(error) = relay() {
            tracing::warn!(%error, "the demo's address for browsers is closed");
        }
    };
    thread::Builder::new().name("demo-relay".to_owned()).spawn(run)?;
    Ok(())
}

async fn serve(listener: TcpListener, addresses: Vec<SocketAddr>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let client = Arc::new(Client::new(addresses, None));
    let requests = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let (client, requests) = (Arc::clone(&client), Arc::clone(&requests));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let number = requests.fetch_add(1, Ordering::Relaxed);
                let client = Arc::clone(&client);
                async move { Ok::<_, Infallible>(answer(&client, request, number).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A browser may leave at any time.
            connection.await.ok();
        });
    }
}

async fn answer(client: &Client, request: Request<Incoming>, number: u64) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is longer than 1 MiB\n");
    };
    let mut headers = parts.headers;
    for name in HOP_BY_HOP.into_iter().chain([HOST]) {
        headers.remove(name);
    }
    let is_write = !matches!(parts.method, Method::GET | Method::HEAD);
    if is_write && !headers.contains_key(IDEMPOTENCY_KEY) {
        let process = std::process::id();
        if let Ok(key) = HeaderValue::from_str(&format!("browser-{process}-{number}")) {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let question = Question { method: parts.method, path, headers, body: body.to_bytes() };
    let Some(found) = client.send(&question).await.answer else {
        return plain(StatusCode::BAD_GATEWAY, "no gateway of the system answers\n");
    };
    let mut response = Response::new(Full::new(found.body));
    *response.status_mut() = found.status;
    *response.headers_mut() = found.headers;
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
