//! An HTTP client that knows several addresses of one system and moves on when one fails it.
//!
//! Decides when a request is sent again, and remembers what a lost answer means: once a write may
//! have reached the system, only an answer about that very write can take the doubt away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_trust::http::Connector;
use evenkeel_trust::tls::Trust;
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
/// Requests of one client that may have given an address up at any time, beyond a fifth of those
/// under way. A client without such a bound multiplies the load of a slow system until it is a dead
/// one, and keeps it dead: "Metastable Failures in Distributed Systems", HotOS 2021.
const RETRIES_MIN: u32 = 5;
const RETRIES_SHARE: u32 = 5;
/// Time between two questions whether a silent address may be given up.
const GIVE_UP_EVERY: Duration = Duration::from_millis(25);
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

/// Bounds how many requests under way are asked twice.
#[derive(Debug, Default)]
struct RetryBudget {
    requests: AtomicU32,
    retries: AtomicU32,
}

impl RetryBudget {
    /// Takes room for one more request that is asked twice, if there is any.
    fn take(&self) -> bool {
        let limit = RETRIES_MIN + self.requests.load(Ordering::Relaxed) / RETRIES_SHARE;
        let more = |retries| (retries < limit).then_some(retries + 1);
        self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Room that one request takes; given back when it ends, however it ends.
#[derive(Debug)]
struct Room<'a> {
    budget: &'a RetryBudget,
    /// Whether it is asked twice.
    retries: bool,
}

impl<'a> Room<'a> {
    fn new(budget: &'a RetryBudget) -> Self {
        budget.requests.fetch_add(1, Ordering::Relaxed);
        Self { budget, retries: false }
    }

    /// Returns whether a silent address may be given up.
    fn may_retry(&mut self) -> bool {
        self.retries = self.retries || self.budget.take();
        self.retries
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.budget.requests.fetch_sub(1, Ordering::Relaxed);
        if self.retries {
            self.budget.retries.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One client of the system. Shared by all of its requests that are under way.
#[derive(Debug)]
pub(crate) struct Client {
    http: HttpClient<Connector, Full<Bytes>>,
    addresses: Vec<SocketAddr>,
    /// Index of the address that is asked first.
    preferred: AtomicUsize,
    budget: RetryBudget,
}

impl Client {
    /// Takes addresses in the order of preference; there must be at least one. Gateways are asked
    /// without `trust`, hosts with it.
    pub(crate) fn new(addresses: Vec<SocketAddr>, trust: Option<Trust>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        let http =
            HttpClient::builder(TokioExecutor::new()).build(Connector::new(connector, trust));
        Self { http, addresses, preferred: AtomicUsize::new(0), budget: RetryBudget::default() }
    }

    /// Sends a question until an address answers it or [`REQUEST_MAX`] has passed. Writes must
    /// carry an `Idempotency-Key`: they are sent again like reads.
    pub(crate) async fn send(&self, question: &Question) -> Ending {
        let deadline = Instant::now() + REQUEST_MAX;
        let mut ending = Ending { answer: None, in_doubt: false };
        let mut patience = ATTEMPT_MAX;
        let mut room = Room::new(&self.budget);
        for attempt in 0.. {
            let first = self.preferred.load(Ordering::Relaxed);
            let Some(address) = self.addresses.get(first % self.addresses.len().max(1)) else {
                return ending;
            };
            let until = deadline.min(Instant::now() + patience);
            let sending = self.send_once(*address, question, deadline);
            let answered = give_up_when(sending, until, || room.may_retry()).await;
            match answered {
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

/// Waits for an answer; from `until` on, only for as long as it may not be given up.
async fn give_up_when(
    sending: impl Future<Output = Result<Answer, Missed>>,
    until: Instant,
    mut may_give_up: impl FnMut() -> bool,
) -> Result<Answer, Missed> {
    tokio::pin!(sending);
    let mut next = until;
    loop {
        match timeout_at(next, &mut sending).await {
            Ok(answered) => return answered,
            Err(_) if may_give_up() => return Err(Missed::InDoubt),
            Err(_) => next = Instant::now() + GIVE_UP_EVERY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_requests_are_asked_twice_at_a_time() {
        let budget = RetryBudget::default();
        let mut rooms: Vec<Room<'_>> = (0..100).map(|_| Room::new(&budget)).collect();
        let retried = rooms.iter_mut().filter_map(|room| room.may_retry().then_some(())).count();
        assert_eq!(retried, 25);
        // One that is asked twice may be asked a third time; its room comes back at its end.
        assert!(rooms[0].may_retry() && !rooms[99].may_retry());
        rooms.drain(..2);
        assert!(rooms.last_mut().unwrap().may_retry());
        drop(rooms);
        assert_eq!(budget.retries.load(Ordering::Relaxed), 0);
    }
}
