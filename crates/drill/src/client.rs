//! An HTTP client that knows several addresses of one system and moves on when one fails it.
//!
//! Decides when a request is sent again, and remembers what a lost answer means: once a write may
//! have reached the system, only an answer about that very write can take the doubt away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout_at};

/// Time to connect to one address.
const CONNECT_MAX: Duration = Duration::from_millis(300);
/// Time for the first address to answer: longer than any healthy answer, shorter than patience.
/// Each further address gets as much more, so that retries never become the load.
const ATTEMPT_MAX: Duration = Duration::from_millis(750);
/// Time for a whole request. Longer than the system itself holds one (about 2 s for an election),
/// so that an outcome reported as unknown really is.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(4);
/// Pause after every address has failed once, growing by itself each round.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Longest answer in bytes.
const BODY_MAX: usize = 16 << 20;

/// Set by the system when a request surely had no effect.
const OUTCOME: &str = "evenkeel-outcome";

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Question {
    /// A read of `path`.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns a header as text.
    pub(crate) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// The last answer, if any came.
    pub(crate) answer: Option<Answer>,
    /// Whether an earlier try may have taken effect without saying so.
    pub(crate) in_doubt: bool,
}

/// Why one try brought no answer.
enum Missed {
    /// No connection: nothing was sent.
    NotSent,
    /// Sent, and then silence or a broken connection.
    InDoubt,
}

/// One client of the system. Shared by all of its requests that are under way.
#[derive(Debug)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    addresses: Vec<SocketAddr>,
    /// Index of the address that is asked first.
    preferred: AtomicUsize,
}

impl Client {
    /// Takes addresses in the order of preference; there must be at least one.
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        Self { http, addresses, preferred: AtomicUsize::new(0) }
    }

    /// Sends a question until an address answers it or [`REQUEST_MAX`] has passed. Writes must
    /// carry an `Idempotency-Key`: they are sent again like reads.
    pub(crate) async fn send(&self, question: &Question) -> Ending {
        let deadline = Instant::now() + REQUEST_MAX;
        let mut ending = Ending { answer: None, in_doubt: false };
        let mut patience = ATTEMPT_MAX;
        for attempt in 0.. {
            let first = self.preferred.load(Ordering::Relaxed);
            let Some(address) = self.addresses.get(first % self.addresses.len().max(1)) else {
                return ending;
            };
            let until = deadline.min(Instant::now() + patience);
            match self.send_once(*address, question, until).await {
                Ok(answer) if answer.status.is_server_error() => {
                    ending.in_doubt |= answer.header(OUTCOME) != Some("none");
                    ending.answer = Some(answer);
                }
                Ok(answer) => return Ending { answer: Some(answer), ..ending },
                Err(Missed::NotSent) => {}
                Err(Missed::InDoubt) => {
                    ending.in_doubt = true;
                    patience += ATTEMPT_MAX;
                }
            }
            self.move_on(first);
            let rounds = attempt / self.addresses.len().max(1);
            let full_round = (attempt + 1) % self.addresses.len().max(1) == 0;
            if full_round {
                sleep(ROUND_PAUSE.saturating_mul(u32::try_from(rounds + 1).unwrap_or(u32::MAX)))
                    .await;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        ending
    }

    /// Prefers the address after `failed`, unless another request has moved on already.
    fn move_on(&self, failed: usize) {
        let next = (failed + 1) % self.addresses.len().max(1);
        // Whoever came first has done it.
        self.preferred.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Returns to the first address if it serves again. Asks for something that does not exist:
    /// only a working system knows that.
    pub(crate) async fn try_first_again(&self) {
        let Some(first) = self.addresses.first() else { return };
        if self.preferred.load(Ordering::Relaxed) == 0 {
            return;
        }
        let until = Instant::now() + ATTEMPT_MAX;
        let answer = self.send_once(*first, &Question::get("/profiles/nobody"), until).await;
        if answer.is_ok_and(|answer| !answer.status.is_server_error()) {
            self.preferred.store(0, Ordering::Relaxed);
        }
    }

    /// Asks one address once, `None` without an answer in time.
    pub(crate) async fn ask(
        &self,
        address: SocketAddr,
        path: impl Into<String>,
        within: Duration,
    ) -> Option<Answer> {
        self.send_once(address, &Question::get(path), Instant::now() + within).await.ok()
    }

    async fn send_once(
        &self,
        address: SocketAddr,
        question: &Question,
        until: Instant,
    ) -> Result<Answer, Missed> {
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        let uri = format!("http://{address}{}", question.path);
        *request.uri_mut() = uri.parse().map_err(|_| Missed::NotSent)?;
        *request.headers_mut() = question.headers.clone();
        if !question.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
        }
        let answered = timeout_at(until, async {
            let response = self.http.request(request).await.map_err(|error| {
                if error.is_connect() { Missed::NotSent } else { Missed::InDoubt }
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await;
            let body = body.map_err(|_| Missed::InDoubt)?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        });
        answered.await.unwrap_or(Err(Missed::InDoubt))
    }
}
