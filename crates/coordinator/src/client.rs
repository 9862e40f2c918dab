//! Asks other hosts of the system over HTTP.

pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use evenkeel_consensus::answer::Answer;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_model::patience::patience;
use evenkeel_trust::http::Connector;
use evenkeel_trust::tls::Trust;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::options::{RoundTrips, Voters, patience_for};

/// The version of what hosts ask each other.
pub(crate) const FORMAT: &str = "2";
/// Names the asking host's system.
pub(crate) const SYSTEM_HEADER: &str = "evenkeel-system";
/// Names the version of the question.
pub(crate) const FORMAT_HEADER: &str = "evenkeel-format";
/// Counts how often a request was forwarded.
pub(crate) const HOPS_HEADER: &str = "evenkeel-hops";
/// Says for how many milliseconds a question for changes waits for one.
pub(crate) const WAIT_HEADER: &str = "evenkeel-wait";
/// Where requests are carried out for other hosts.
pub(crate) const EXECUTE_PATH: &str = "/internal/coordinator/execute";
/// Where a voter says who leads.
pub(crate) const LEADER_PATH: &str = "/internal/coordinator/leader";
/// Longest answer in bytes: a list of keys, see [`crate::executor`].
const ANSWER_MAX: usize = 16 << 20;

/// Time to connect to a host near by, see [`patience`].
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Time after which a silent connection to a host near by is given up.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Bytes of one answer that may come before it is read.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all answers of a host together.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A pool of connections to other hosts.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Arc<Mutex<Pool>>,
    voters: Voters,
    round_trips: watch::Receiver<RoundTrips>,
    system: String,
    trust: Option<Trust>,
}

/// Connections that were made with the same limits.
#[derive(Debug)]
struct Pool {
    /// The round trip that the limits are made for.
    round_trip: Duration,
    http: HyperClient<Connector, Full<Bytes>>,
}

impl Pool {
    fn new(round_trip: Duration, trust: Option<Trust>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(patience(CONNECT_TIMEOUT, Some(round_trip))));
        let silence_max = patience(SILENCE_MAX, Some(round_trip));
        connector.set_keepalive(Some(silence_max));
        connector.set_tcp_user_timeout(Some(silence_max));
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            // All questions to a host share a connection. With one each, a pause would make a crowd
            // of them wait, and each would then take more work to connect than to be answered.
            .http2_only(true)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(silence_max)
            .http2_keep_alive_timeout(silence_max)
            .build(Connector::new(connector, trust));
        Self { round_trip, http }
    }

    /// Returns whether other limits are worth new connections: these are a fifth off.
    fn is_off(&self, round_trip: Duration) -> bool {
        let limit = |round_trip| patience(CONNECT_TIMEOUT, Some(round_trip));
        let (now, wanted) = (limit(self.round_trip), limit(round_trip));
        now.abs_diff(wanted) * 5 > now
    }
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
    /// Starts with no connection to any of `voters`.
    pub(crate) fn new(
        system: &SystemName,
        voters: Voters,
        round_trips: watch::Receiver<RoundTrips>,
        trust: Option<Trust>,
    ) -> Self {
        Self {
            pool: Arc::new(Mutex::new(Pool::new(Duration::ZERO, trust.clone()))),
            voters,
            round_trips,
            system: system.to_string(),
            trust,
        }
    }

    /// Returns the connections, whose limits are those for the farthest voter.
    fn http(&self) -> HyperClient<Connector, Full<Bytes>> {
        let farthest = {
            let round_trips = self.round_trips.borrow();
            let voters = self.voters.borrow();
            let measured = voters.iter().filter_map(|voter| round_trips.get(&voter.host));
            measured.map(|trip| trip.median).max().unwrap_or_default()
        };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.is_off(farthest) {
            *pool = Pool::new(farthest, self.trust.clone());
        }
        pool.http.clone()
    }

    /// Returns how long to wait for an answer of `host`.
    pub(crate) fn patience(&self, host: &HostName, least: Duration) -> Duration {
        patience_for(&self.round_trips.borrow(), host, least)
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
        self.execute_after(host, request, hops, Duration::ZERO).await
    }

    /// Like [`Self::execute`]; a question for changes waits for at most `wait` for one.
    pub(crate) async fn execute_after(
        &self,
        host: SocketAddr,
        request: Bytes,
        hops: u8,
        wait: Duration,
    ) -> Result<Forwarded, CallError> {
        let reply = self.call(Method::POST, host, EXECUTE_PATH, request, hops, wait).await?;
        wire::decode_reply(reply).ok_or_else(|| CallError::Lost("it is no reply".to_owned()))
    }

    /// Asks another host who leads.
    pub(crate) async fn leader(&self, host: SocketAddr) -> Result<LeaderReport, CallError> {
        let reply =
            self.call(Method::GET, host, LEADER_PATH, Bytes::new(), 0, Duration::ZERO).await?;
        serde_json::from_slice(&reply).map_err(|error| CallError::Lost(error.to_string()))
    }

    async fn call(
        &self,
        method: Method,
        host: SocketAddr,
        path: &str,
        body: Bytes,
        hops: u8,
        wait: Duration,
    ) -> Result<Bytes, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"))
            .header(SYSTEM_HEADER, &self.system)
            .header(FORMAT_HEADER, FORMAT)
            .header(HOPS_HEADER, u16::from(hops))
            .header(WAIT_HEADER, u64::try_from(wait.as_millis()).unwrap_or(0))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(body))
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let response = self.http().request(request).await.map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{RoundTrip, Voter};

    #[tokio::test]
    async fn limits_follow_the_farthest_voter() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let host = |name: &str| HostName::parse(name).unwrap();
        let voters = [Voter { host: host("a1"), peer: address, api: address }];
        let (_kept, voters) = watch::channel(voters.into());
        let (outlet, round_trips) = watch::channel(RoundTrips::new());
        let client = Client::new(&SystemName::parse("shop").unwrap(), voters, round_trips, None);
        let check = |name: &str, median: u64, expected: u64| {
            let median = Duration::from_millis(median);
            let trip = RoundTrip { median, p90: median };
            outlet.send_modify(|trips| _ = trips.insert(host(name), trip));
            drop(client.http());
            let found = client.pool.lock().unwrap().round_trip;
            assert_eq!(found, Duration::from_millis(expected), "{name}: {median:?}");
        };
        check("a1", 20, 0);
        check("b1", 400, 0);
        check("a1", 200, 200);
        check("a1", 210, 200);
        check("a1", 20, 20);
    }
}
