//! Evenkeel's key-value API: HTTP/1.1 on kept connections, one request at a time on each.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    send: SendRequest<Full<Bytes>>,
    host: String,
}

/// The body of `GET /v1/health`.
#[derive(Debug, Deserialize)]
struct Health {
    leader: Option<String>,
}

impl Connection {
    /// Connects to a host's API.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (send, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("begin HTTP/1.1")?;
        // Its error is told by the request that it breaks.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { send, host: address.to_string() })
    }

    /// Writes a key.
    pub(crate) async fn put(&mut self, key: &str, value: Bytes) -> Result<()> {
        let (status, _) = self.call(Method::PUT, format!("/v1/kv/{key}"), value).await?;
        ensure!(status.is_success(), "the put was answered with {status}");
        Ok(())
    }

    /// Reads a key, linearizably.
    pub(crate) async fn get(&mut self, key: &str) -> Result<()> {
        let (status, _) = self.call(Method::GET, format!("/v1/kv/{key}"), Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "the get was answered with {status}");
        Ok(())
    }

    /// Asks which host leads, as far as this one knows.
    pub(crate) async fn leader(&mut self) -> Result<Option<String>> {
        let (_, body) = self.call(Method::GET, "/v1/health".to_owned(), Bytes::new()).await?;
        let health: Health = serde_json::from_slice(&body).context("parse the health")?;
        Ok(health.leader)
    }

    async fn call(
        &mut self,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.send.ready().await.context("wait for the connection")?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.host.as_str())
            .body(Full::new(body))
            .context("build a request")?;
        let response = self.send.send_request(request).await.context("wait for the response")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("receive")?.to_bytes();
        Ok((status, body))
    }
}
