//! HTTP/2, spoken directly to either system: no stack of client crates stands between the clock and
//! the wire.

use std::future::poll_fn;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use h2::client::SendRequest;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;

/// Flow control windows far above what is ever under way, so that they never hold a request up.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A connection, shared by its clones.
#[derive(Debug, Clone)]
pub(crate) struct Connection(SendRequest<Bytes>);

/// A response as a whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .context("begin HTTP/2")?;
        // Its error is told by the requests that it breaks.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(send))
    }

    /// Sends a request with its body, and waits for all of the response.
    pub(crate) async fn call(&mut self, request: Request<()>, content: Bytes) -> Result<Response> {
        poll_fn(|context| self.0.poll_ready(context)).await.context("wait for a stream")?;
        let (response, mut stream) =
            self.0.send_request(request, content.is_empty()).context("send")?;
        if !content.is_empty() {
            stream.send_data(content, true).context("send the body")?;
        }
        let (head, mut incoming) = response.await.context("wait for the response")?.into_parts();
        let mut body = Vec::new();
        while let Some(chunk) = incoming.data().await {
            let chunk = chunk.context("receive")?;
            incoming.flow_control().release_capacity(chunk.len()).context("release a window")?;
            body.extend_from_slice(&chunk);
        }
        let trailers = incoming.trailers().await.context("receive the trailers")?;
        Ok(Response { status: head.status, headers: head.headers, body, trailers })
    }
}
