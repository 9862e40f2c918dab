//! HTTP requests to other hosts of the system.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_model::name::SystemName;
use evenkeel_trust::http::Connector;
use evenkeel_trust::tls::Trust;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::wire::FORMAT;

/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 << 20;

/// Silence of a host after which it is asked whether it is there, and time for it to answer. Then its
/// connection has ended, and the next question makes a new one.
const SILENCE: Duration = Duration::from_secs(1);

/// Header that names the sender's system; another system's is refused.
pub const SYSTEM_HEADER: &str = "evenkeel-system";

/// Header that tells the version of [`crate::wire`]; another one is refused.
pub const FORMAT_HEADER: &str = "evenkeel-format";

/// A pool of connections to other hosts.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    system: SystemName,
}

impl Client {
    /// Starts with no connection; those to come are protected by `trust`.
    #[must_use]
    pub fn new(system: SystemName, trust: Option<Trust>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // The whole exchange has a limit, which knows how far the other host is.
        connector.set_connect_timeout(None);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            // One connection carries all: to prove who one is costs more than most questions.
            .http2_only(true)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(SILENCE)
            .http2_keep_alive_timeout(SILENCE)
            .build(Connector::new(connector, trust));
        Self { pool, system }
    }

    /// Sends `body` as JSON and returns the answer's body.
    ///
    /// # Errors
    /// In words, when no answer with status 200 comes within `limit`.
    pub async fn post(
        &self,
        to: SocketAddr,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, String> {
        self.send(Method::POST, to, path, body, limit).await
    }

    /// Asks for `path` and returns the answer's body.
    ///
    /// # Errors
    /// In words, when no answer with status 200 comes within `limit`.
    pub async fn get(&self, to: SocketAddr, path: &str, limit: Duration) -> Result<Bytes, String> {
        self.send(Method::GET, to, path, Vec::new(), limit).await
    }

    async fn send(
        &self,
        method: Method,
        to: SocketAddr,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(SYSTEM_HEADER, self.system.as_str())
            .header(FORMAT_HEADER, FORMAT)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("`{path}` is no path: {error}"))?;
        let exchange = async {
            let answer =
                self.pool.request(request).await.map_err(|error| format!("{to}{path}: {error}"))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| format!("{to}{path}: {error}"))?.to_bytes();
            match status {
                StatusCode::OK => Ok(body),
                _ => Err(format!("{to}{path}: {status} {}", String::from_utf8_lossy(&body))),
            }
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("{to}{path}: no answer within {limit:?}")))
    }
}
