//! Asks other hosts of the system over HTTP.

pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use evenkeel_consensus::command::Answer;
use evenkeel_model::name::SystemName;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The version of what hosts ask each other.
pub(crate) const FORMAT: &str = "1";
/// Names the asking host's system.
pub(crate) const SYSTEM_HEADER: &str = "evenkeel-system";
/// Names the version of the question.
pub(crate) const FORMAT_HEADER: &str = "evenkeel-format";
/// Counts how often a request was forwarded.
pub(crate) const HOPS_HEADER: &str = "evenkeel-hops";
/// Where requests are carried out for other hosts.
pub(crate) const EXECUTE_PATH: &str = "/internal/coordinator/execute";
/// Where a voter says who leads.
pub(crate) const LEADER_PATH: &str = "/internal/coordinator/leader";
/// Longest answer in bytes: a list of keys, see [`crate::executor`].
const ANSWER_MAX: usize = 16 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Time after which a silent connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS_MAX: usize = 16;

/// A pool of connections to other hosts.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    system: String,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody has seen the question.
    #[error("the question was not delivered: {0}")]
    NotSent(String),
    /// The question may have been heard.
    #[error("the reply was lost: {0}")]
    Lost(String),
}

/// What a host says about who leads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaderReport {
    pub(crate) leader: Option<String>,
    pub(crate) term: u64,
    pub(crate) is_self: bool,
}

/// A reply and the revision of the store behind it.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) result: Result<Answer, Failure>,
    pub(crate) revision: u64,
}

impl Client {
    pub(crate) fn new(system: &SystemName) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(SILENCE_MAX));
        connector.set_tcp_user_timeout(Some(SILENCE_MAX));
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http, system: system.to_string() }
    }

    /// Returns the system that this host belongs to.
    pub(crate) fn system(&self) -> &str {
        &self.system
    }

    /// Has a request (see [`wire`]) carried out by another host.
    pub(crate) async fn execute(
        &self,
        host: SocketAddr,
        request: Bytes,
        hops: u8,
    ) -> Result<Forwarded, CallError> {
        let reply = self.call(Method::POST, host, EXECUTE_PATH, request, hops).await?;
        wire::decode_reply(reply).ok_or_else(|| CallError::Lost("it is no reply".to_owned()))
    }

    /// Asks another host who leads.
    pub(crate) async fn leader(&self, host: SocketAddr) -> Result<LeaderReport, CallError> {
        let reply = self.call(Method::GET, host, LEADER_PATH, Bytes::new(), 0).await?;
        serde_json::from_slice(&reply).map_err(|error| CallError::Lost(error.to_string()))
    }

    async fn call(
        &self,
        method: Method,
        host: SocketAddr,
        path: &str,
        body: Bytes,
        hops: u8,
    ) -> Result<Bytes, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"))
            .header(SYSTEM_HEADER, &self.system)
            .header(FORMAT_HEADER, FORMAT)
            .header(HOPS_HEADER, u16::from(hops))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(body))
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| {
            if error.is_connect() {
                CallError::NotSent(error.to_string())
            } else {
                CallError::Lost(error.to_string())
            }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| CallError::Lost(error.to_string()))?.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            // Only what was refused before it was looked at has another status.
            _ => Err(CallError::NotSent(format!(
                "{status}: {}",
                String::from_utf8_lossy(body.get(..200).unwrap_or(&body))
            ))),
        }
    }
}
