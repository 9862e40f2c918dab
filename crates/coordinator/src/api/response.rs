//! Puts answers and refusals into HTTP.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use evenkeel_consensus::answer::{Answer, Refused};
use evenkeel_consensus::command::LeaseId;
use evenkeel_consensus::locks::{LockName, Place};
use serde::Serialize;

use super::headers::{Conditions, Match};
use super::value::KeyBody;
use crate::executor::Executor;
use crate::failure::Failure;

/// The store's revision.
const REVISION: HeaderName = HeaderName::from_static("evenkeel-revision");
/// The host that answered.
const HOST: HeaderName = HeaderName::from_static("evenkeel-host");
/// That this is the first answer to an earlier request of the same idempotency key.
const REPLAYED: HeaderName = HeaderName::from_static("evenkeel-replayed");
/// Whether a change without an answer was applied: `none` or `unknown`.
const OUTCOME: HeaderName = HeaderName::from_static("evenkeel-outcome");

/// Letters of an unknown path that are said again.
const PATH_SHOWN_MAX: usize = 100;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    etag: Option<u64>,
    store_revision: Option<u64>,
    replayed: bool,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// A refusal, in words for people and a code for programs.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    help: &'static str,
    etag: Option<u64>,
    outcome: Option<&'static str>,
}

/// The body of a refusal.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorText<'a>,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    code: &'a str,
    message: &'a str,
    help: &'a str,
}

/// The body of a list.
#[derive(Serialize)]
struct ListBody {
    revision: u64,
    keys: Vec<KeyBody>,
    more: bool,
}

impl Reply {
    const fn new(status: StatusCode) -> Self {
        Self {
            status,
            etag: None,
            store_revision: None,
            replayed: false,
            content_type: None,
            body: Bytes::new(),
        }
    }

    /// Answers a change.
    pub(super) fn to_change(answer: Answer) -> Result<Self, Refusal> {
        if let Answer::Written { revision, created, replayed } = answer {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let (etag, store_revision) = (Some(revision), Some(revision));
            return Ok(Self { etag, store_revision, replayed, ..Self::new(status) });
        }
        if let Answer::Deleted { revision, replayed } | Answer::Revoked { revision, replayed } =
            answer
        {
            return Ok(Self::done(revision, replayed));
        }
        if let Answer::Forgotten { .. } = answer {
            return Ok(Self::new(StatusCode::NO_CONTENT));
        }
        Err(Refusal::from_answer(&answer))
    }

    /// Answers the question for a key.
    pub(super) fn to_read(answer: Answer, conditions: &Conditions) -> Result<Self, Refusal> {
        let Answer::Value { version, store_revision } = answer else {
            return Err(if conditions.if_match.is_some() {
                Refusal::from_answer(&Answer::Conflict { current: None })
            } else {
                Refusal::from_answer(&answer)
            });
        };
        let revision = version.revision;
        let matches = |condition| match condition {
            Match::Any => true,
            Match::Revision(wanted) => wanted == revision,
        };
        if conditions.if_match.is_some_and(|condition| !matches(condition)) {
            return Err(Refusal::from_answer(&Answer::Conflict { current: Some(revision) }));
        }
        let unchanged = conditions.if_none_match.is_some_and(matches);
        let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let body = if unchanged { Bytes::new() } else { version.value };
        Ok(Self {
            etag: Some(revision),
            store_revision: Some(store_revision),
            content_type: (!unchanged).then_some(BYTES),
            body,
            ..Self::new(status)
        })
    }

    /// Answers the question for all keys that begin alike.
    pub(super) fn to_list(answer: Answer) -> Result<Self, Refusal> {
        let Answer::Entries { entries, more, store_revision } = answer else {
            return Err(Refusal::from_answer(&answer));
        };
        let keys = entries.into_iter().map(KeyBody::from).collect();
        let body = ListBody { revision: store_revision, keys, more };
        let store_revision = Some(store_revision);
        Ok(Self { store_revision, ..Self::json(StatusCode::OK, &body) })
    }

    /// Answers whether this host can answer.
    pub(super) fn health(healthy: bool, body: &serde_json::Value) -> Self {
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Self::json(status, body)
    }

    /// Answers with a body of JSON.
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        Self { content_type: Some(JSON), body, ..Self::new(status) }
    }

    /// Answers with a document of JSON.
    pub(super) fn document(text: &'static str) -> Self {
        let body = Bytes::from_static(text.as_bytes());
        Self { content_type: Some(JSON), body, ..Self::new(StatusCode::OK) }
    }

    /// Answers a change that leaves nothing to say.
    pub(super) fn done(revision: u64, replayed: bool) -> Self {
        let store_revision = Some(revision);
        Self { store_revision, replayed, ..Self::new(StatusCode::NO_CONTENT) }
    }

    /// Says whether this is the first answer to an earlier request.
    #[must_use]
    pub(super) fn replayed(self, replayed: bool) -> Self {
        Self { replayed, ..self }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        if let Some(etag) = self.etag {
            headers.insert(header::ETAG, etag_value(etag));
        }
        if let Some(revision) = self.store_revision {
            let mut value = HeaderValue::from(revision);
            // HTTP/2 then leaves it out of its table of headers: it never comes again.
            value.set_sensitive(true);
            headers.insert(REVISION, value);
        }
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl Refusal {
    /// Refuses a request that breaks the rules of this API.
    pub(super) fn bad(code: &'static str, message: String) -> Self {
        let help = "docs: `PUT /v1/kv/KEY`, `GET /v1/kv?prefix=P&limit=N`, `GET /v1/kv?watch`, \
                    `POST /v1/txn`, `POST /v1/leases`, `POST /v1/locks/NAME`, headers `If-Match`, \
                    `If-None-Match` and `Idempotency-Key`; all of it: `GET /v1/openapi.json`";
        Self::new(StatusCode::BAD_REQUEST, code, message, help)
    }

    /// Refuses a method.
    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "this path does not take this method".to_owned(),
            "`Allow` names those that it takes; `GET /v1/openapi.json` describes this API",
        )
    }

    /// Refuses a path.
    pub(super) fn path(path: &str) -> Self {
        let shown: String = path.chars().take(PATH_SHOWN_MAX).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-path",
            format!("there is nothing at `{shown}`"),
            "`GET /v1/openapi.json` describes this API; keys stand under `/v1/kv/`",
        )
    }

    /// Refuses a lock that is held by another one.
    pub(super) fn held(name: &LockName, holder: &Place, ahead: usize) -> Self {
        let (name, token) = (name.as_str(), holder.token());
        let before = if ahead == 1 { String::new() } else { format!(", {ahead} are before") };
        Self::new(
            StatusCode::CONFLICT,
            "lock-held",
            format!("lock `{name}` is held under token {token}{before}"),
            "wait longer with `wait_seconds`; with a `lease` of one's own the place in the queue \
             stays, and the same request asks for it again",
        )
    }

    /// Refuses what only the holder of a lock may do.
    pub(super) fn not_held(name: &LockName, token: u64) -> Self {
        let name = name.as_str();
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "not-held",
            format!("lock `{name}` is not held under token {token}, nothing was changed"),
            "it was released, or its lease has ended: another one may hold it by now",
        )
    }

    const fn new(
        status: StatusCode,
        code: &'static str,
        message: String,
        help: &'static str,
    ) -> Self {
        Self { status, code, message, help, etag: None, outcome: None }
    }

    /// Refuses what `answer` is no good answer to.
    pub(super) fn from_answer(answer: &Answer) -> Self {
        match answer {
            Answer::Conflict { current } => {
                let message = current.map_or_else(
                    || "the key does not exist, nothing was changed".to_owned(),
                    |revision| format!("the key is at revision {revision}, nothing was changed"),
                );
                let help = "read the key again and repeat the change with its new `ETag`";
                let refusal = Self::new(StatusCode::PRECONDITION_FAILED, "conflict", message, help);
                Self { etag: *current, ..refusal }
            }
            Answer::NotFound | Answer::Absent { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "not-found",
                "the key does not exist".to_owned(),
                "list the keys there are with `GET /v1/kv?prefix=`",
            ),
            Answer::IdempotencyMismatch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-mismatch",
                "the idempotency key belongs to another request, nothing was changed".to_owned(),
                "give each new request a new `Idempotency-Key`",
            ),
            Answer::TooLarge => Self::from(Failure::TooLarge),
            Answer::Refused(why) => Self::from_refused(*why),
            Answer::NoLease { lease: LeaseId(lease) } => Self::new(
                StatusCode::NOT_FOUND,
                "no-lease",
                format!("there is no lease {lease} (any more), nothing was changed"),
                "make a new one with `POST /v1/leases`",
            ),
            Answer::Compacted { oldest } => Self::new(
                StatusCode::GONE,
                "compacted",
                format!("revisions before {oldest} are forgotten"),
                "read the keys as they are, and watch from the revision of that answer",
            ),
            Answer::Future { store_revision } => Self::new(
                StatusCode::BAD_REQUEST,
                "future-revision",
                format!("the store is at revision {store_revision}"),
                "give a revision that an answer of this system has named",
            ),
            // An answer to something else: all that is known is that it is not known.
            Answer::Written { .. }
            | Answer::Deleted { .. }
            | Answer::Transacted { .. }
            | Answer::Granted { .. }
            | Answer::Revoked { .. }
            | Answer::Forgotten { .. }
            | Answer::Value { .. }
            | Answer::Entries { .. }
            | Answer::Changes { .. }
            | Answer::Lease { .. }
            | Answer::NotLeader { .. }
            | Answer::Unknown
            | Answer::Overloaded => Self::from(Failure::Unknown),
        }
    }

    fn from_refused(why: Refused) -> Self {
        let bad = |code, message: &str, help| {
            let message = format!("{message}, nothing was changed");
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, help)
        };
        match why {
            Refused::KeyTwice => bad(
                "key-twice",
                "a list of operations changes a key twice",
                "let each list change a key once: all its changes have one revision",
            ),
            Refused::TooManyOperations => bad(
                "too-many-operations",
                "the transaction has more than 128 comparisons and operations",
                "split it, or keep what belongs together under one key",
            ),
            Refused::TooManyLeases => bad(
                "too-many-leases",
                "there are 10000 leases",
                "share a lease between keys, and end leases that are no longer needed",
            ),
            Refused::TooManyKeys => {
                bad("too-many-keys", "the lease has 1000 keys", "spread the keys over leases")
            }
            Refused::TimeToLive => bad(
                "bad-ttl",
                "the time to live is not between 1 s and 24 h",
                "a lease must outlast an election, and should end within a day of its owner",
            ),
            Refused::FutureRevision => bad(
                "future-revision",
                "the store has not reached that revision",
                "give a revision that an answer of this system has named",
            ),
        }
    }

    /// Returns the refusal as JSON.
    pub(super) fn text(&self) -> String {
        let error = ErrorText { code: self.code, message: &self.message, help: self.help };
        serde_json::to_string(&ErrorBody { error }).unwrap_or_default()
    }

    pub(super) fn into_response(self) -> Response {
        let Self { status, code, message, help, etag, outcome } = self;
        let text = ErrorText { code, message: &message, help };
        let reply = Reply { etag, ..Reply::json(status, &ErrorBody { error: text }) };
        let mut response = reply.into_response();
        let headers = response.headers_mut();
        if let Some(outcome) = outcome {
            headers.insert(OUTCOME, HeaderValue::from_static(outcome));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        let (status, code, help, outcome) = match failure {
            Failure::NoQuorum { .. } | Failure::NotLeader { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-quorum",
                "`evenkeel status` names the voters that are missing; `?stale` reads what is here",
                Some("none"),
            ),
            Failure::DiskFull { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "disk-full",
                "make room on that host's disk: it goes on by itself",
                Some("none"),
            ),
            Failure::Overloaded { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "send fewer requests at once, and try again after a pause",
                Some("none"),
            ),
            Failure::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "a value has at most 1 MiB, a key at most 512 bytes",
                Some("none"),
            ),
            Failure::StoreFull => (
                StatusCode::INSUFFICIENT_STORAGE,
                "store-full",
                "delete keys that are no longer needed; all keys and values may take 256 MiB",
                Some("none"),
            ),
            Failure::Unknown => (
                StatusCode::GATEWAY_TIMEOUT,
                "outcome-unknown",
                "read the key to see; with an `Idempotency-Key` a change can be sent again safely",
                Some("unknown"),
            ),
        };
        Self { outcome, ..Self::new(status, code, message, help) }
    }
}

/// Adds what every answer carries.
pub(super) fn sign(mut response: Response, executor: &Executor) -> Response {
    let headers = response.headers_mut();
    if let Ok(host) = HeaderValue::from_str(executor.host.as_str()) {
        headers.insert(HOST, host);
    }
    if !headers.contains_key(REVISION) {
        headers.insert(REVISION, executor.revision().into());
    }
    response
}

fn etag_value(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}
