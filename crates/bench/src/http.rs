//! Evenkeel's key-value API.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;

use crate::{http1, http2};

/// A way to a host's API.
#[derive(Debug)]
pub(crate) enum Connection {
    /// With others, by HTTP/2.
    Shared { connection: http2::Connection, address: SocketAddr },
    /// Alone, by HTTP/1.1.
    Own(http1::Connection),
}

/// The body of `GET /v1/health`.
#[derive(Debug, Deserialize)]
struct Health {
    leader: Option<String>,
}

impl Connection {
    /// Connects, to share the connection.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let connection = http2::Connection::open(address).await?;
        Ok(Self::Shared { connection, address })
    }

    /// Connects for one client alone.
    pub(crate) async fn open_own(address: SocketAddr) -> Result<Self> {
        Ok(Self::Own(http1::Connection::open(address).await?))
    }

    /// Returns another client's way over the same connection.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Shared { connection, address } => {
                Some(Self::Shared { connection: connection.clone(), address: *address })
            }
            Self::Own(_) => None,
        }
    }

    /// Writes a key.
    pub(crate) async fn put(&mut self, key: &str, value: Bytes) -> Result<()> {
        let (status, _) = self.call(Method::PUT, &format!("/v1/kv/{key}"), value).await?;
        ensure!(status.is_success(), "the put was answered with {status}");
        Ok(())
    }

    /// Reads a key, linearizably.
    pub(crate) async fn get(&mut self, key: &str) -> Result<()> {
        let (status, _) = self.call(Method::GET, &format!("/v1/kv/{key}"), Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "the get was answered with {status}");
        Ok(())
    }

    /// Asks which host leads, as far as this one knows.
    pub(crate) async fn leader(&mut self) -> Result<Option<String>> {
        let (_, body) = self.call(Method::GET, "/v1/health", Bytes::new()).await?;
        let health: Health = serde_json::from_slice(&body).context("parse the health")?;
        Ok(health.leader)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        content: Bytes,
    ) -> Result<(StatusCode, Vec<u8>)> {
        match self {
            Self::Shared { connection, address } => {
                let request = Request::builder()
                    .method(method)
                    .uri(format!("http://{address}{path}"))
                    .body(())
                    .context("build a request")?;
                let response = connection.call(request, content).await?;
                Ok((response.status, response.body))
            }
            Self::Own(connection) => {
                let (status, body) = connection.call(method, path, &content).await?;
                Ok((status, body.to_vec()))
            }
        }
    }
}
