//! Carries requests to hosts over HTTP, and moves on from one that fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, Request as HttpRequest};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep, timeout_at};

use crate::effort::{Effort, Next, Tried};
use crate::error::Error;
use crate::response::Response;
use crate::target;

/// Longest answer in bytes: a list of 4 MiB, escaped.
const BODY_MAX: usize = 32 << 20;
/// Time after which an unused connection is closed; hosts keep theirs longer.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// Unused connections kept for a host.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// Most hosts.
const URLS_MAX: usize = 64;

/// How long a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Longest wait for a connection to one host.
    pub connect_max: Duration,
    /// Longest wait for one host to answer a question, before another one is asked. It grows with
    /// each host that stays silent.
    pub question_max: Duration,
    /// The same for a change. A host itself waits up to 3 s for a leader, and then says that
    /// nothing was changed: whoever does not hear that out is left in doubt.
    pub change_max: Duration,
    /// Longest wait for a request, over all hosts.
    pub request_max: Duration,
}

impl Options {
    /// Limits that outlast an election.
    pub const STANDARD: Self = Self {
        connect_max: Duration::from_millis(500),
        question_max: Duration::from_millis(1500),
        change_max: Duration::from_millis(3500),
        request_max: Duration::from_secs(8),
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::STANDARD
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Whether it changes anything.
    changes: bool,
    /// How long a host may wait for something before it answers.
    wait: Duration,
    /// How long one host may take, if not as long as usual.
    patience: Option<Duration>,
}

impl Request {
    /// Makes a question, which changes nothing.
    pub(crate) const fn question(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: Bytes::new(),
            changes: false,
            wait: Duration::ZERO,
            patience: None,
        }
    }

    /// Makes a change, which the store does once under `name`.
    pub(crate) fn change(method: Method, path: String, name: &str) -> Result<Self, Error> {
        let request = Self { changes: true, ..Self::question(method, path) };
        request.header(HeaderName::from_static("idempotency-key"), name)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, Error> {
        let bad = || Error::bad_request(format!("`{value}` can't be sent as `{name}`"));
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        self.headers.push((name, value));
        Ok(self)
    }

    pub(crate) fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// Lets a host wait for something before it answers.
    pub(crate) fn waits(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Bounds how long one host may take.
    pub(crate) fn within(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    fn to_http(&self, authority: &str) -> Result<HttpRequest<Full<Bytes>>, String> {
        let uri = format!("http://{authority}{}", self.path);
        let mut request = HttpRequest::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.parse().map_err(|_| format!("`{uri}` is no URL"))?;
        request.headers_mut().extend(self.headers.iter().cloned());
        Ok(request)
    }
}

/// Connections to the hosts.
#[derive(Debug)]
pub(crate) struct Transport {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    authorities: Vec<String>,
    /// Which of them is asked first.
    preferred: AtomicUsize,
    pub(crate) options: Options,
}

impl Transport {
    pub(crate) fn new(urls: &[String], options: Options) -> Result<Self, Error> {
        if urls.is_empty() || urls.len() > URLS_MAX {
            let count = urls.len();
            return Err(Error::bad_request(format!("{count} URLs are given, not 1–{URLS_MAX}")));
        }
        let authorities = urls.iter().map(|url| target::parse_url(url));
        let authorities = authorities.collect::<Result<_, _>>()?;
        // A connection that can't be made is known to carry nothing, unless the time runs out on it.
        let connect_max = options.connect_max.min(options.request_max / 2);
        let options = Options { connect_max, ..options };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(options.connect_max));
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { http, authorities, preferred: AtomicUsize::new(0), options })
    }

    pub(crate) const fn hosts(&self) -> usize {
        self.authorities.len()
    }

    /// Returns the place of the host that is asked first.
    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.hosts()
    }

    /// Prefers the host after `failed`, unless another request has moved on already.
    pub(crate) fn move_on(&self, failed: usize) -> usize {
        let next = (failed + 1) % self.hosts();
        // Whoever came first has done it.
        self.preferred.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        next
    }

    /// Asks host after host until one answers, or time is up.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Error> {
        let deadline = Instant::now() + self.options.request_max + request.wait;
        let Options { question_max, change_max, .. } = self.options;
        let usual = if request.changes { change_max } else { question_max };
        let first = request.patience.unwrap_or(usual).min(usual) + request.wait;
        let mut effort = Effort::new(request.changes, self.hosts());
        loop {
            let place = self.preferred();
            let patience = effort.patience(first);
            let tried = self.send_once(place, request, deadline.min(Instant::now() + patience));
            let pause = match effort.judge(tried.await) {
                Next::Done(response) => return Ok(response),
                Next::Fail(error) => return Err(error),
                Next::Again(pause) => pause,
            };
            self.move_on(place);
            if Instant::now() + pause + self.options.connect_max >= deadline {
                return Err(effort.give_up());
            }
            sleep(pause).await;
        }
    }

    async fn send_once(&self, place: usize, request: &Request, until: Instant) -> Tried {
        let (head, body) = match self.open(place, request, until).await {
            Ok(opened) => opened,
            Err(tried) => return tried,
        };
        self.read(place, &head, body, until).await
    }

    /// Reads an answer to its end.
    pub(crate) async fn read(
        &self,
        place: usize,
        head: &Parts,
        body: Incoming,
        until: Instant,
    ) -> Tried {
        match timeout_at(until, Limited::new(body, BODY_MAX).collect()).await {
            Ok(Ok(body)) => {
                let response = Response::new(head.status.as_u16(), &head.headers, body.to_bytes());
                Tried::Answered(response)
            }
            Ok(Err(error)) => Tried::Lost(self.at(place, &error.to_string())),
            Err(_) => Tried::Lost(self.at(place, "the answer did not arrive in time")),
        }
    }

    /// Sends a request to one host, and returns the head of its answer.
    pub(crate) async fn open(
        &self,
        place: usize,
        request: &Request,
        until: Instant,
    ) -> Result<(Parts, Incoming), Tried> {
        let authority = self.authorities.get(place).map_or("", String::as_str);
        let request = request.to_http(authority).map_err(Tried::NotSent)?;
        match timeout_at(until, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response.into_parts()),
            Ok(Err(error)) if error.is_connect() => {
                Err(Tried::NotSent(self.at(place, &innermost(&error))))
            }
            Ok(Err(error)) => Err(Tried::Lost(self.at(place, &innermost(&error)))),
            Err(_) => Err(Tried::Lost(self.at(place, "no answer came in time"))),
        }
    }

    pub(crate) fn at(&self, place: usize, what: &str) -> String {
        format!("{}: {what}", self.authorities.get(place).map_or("", String::as_str))
    }
}

/// Returns what an error comes from: the outer ones say no more than that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    text.to_lowercase()
}
