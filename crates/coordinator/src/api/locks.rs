//! Locks: waited for, looked at, observed, kept, given another value, released.
//!
//! An election is a lock whose value is public: to campaign is to acquire it, to proclaim is to put
//! its value, to observe is to watch it, to resign is to release it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use evenkeel_consensus::answer::{Answer, KeyEntry};
use evenkeel_consensus::command::{LeaseId, Query, Space};
use evenkeel_consensus::locks::acquisition::{Ending, Terms, Wish};
use evenkeel_consensus::locks::{LockName, Place, Queue};
use serde::{Deserialize, Serialize};

use super::leases::seconds;
use super::response::{Refusal, Reply};
use super::target::{self, Parameters};
use super::value::{self, Encoding};
use super::{Api, BODY_TIME, acquire, headers, observe, read_body, read_json};
use crate::failure::Failure;

/// Longest value of a place in bytes: it is read with each look at the queue.
const LOCK_VALUE_MAX: usize = 4096;
/// Longest wait of one request.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Keys asked for at once.
const PAGE: usize = 256;

/// The body of a request for a lock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireBody {
    /// How long the place lasts after it was last kept alive …
    ttl_seconds: Option<f64>,
    /// … or the lease with which it goes.
    lease: Option<u64>,
    #[serde(default)]
    wait_seconds: f64,
    #[serde(default)]
    value: String,
    #[serde(default)]
    encoding: Encoding,
}

/// A place in an answer.
#[derive(Serialize)]
struct PlaceBody {
    token: u64,
    lease: u64,
    key: String,
    value: String,
    encoding: Encoding,
    revision: u64,
}

/// A place that somebody has a token of.
#[derive(Serialize)]
struct LockBody {
    lock: String,
    #[serde(flatten)]
    place: PlaceBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_seconds: Option<f64>,
}

/// The state of a lock.
#[derive(Serialize)]
pub(super) struct StateBody {
    lock: String,
    revision: u64,
    holder: Option<PlaceBody>,
    /// How many wait behind the holder.
    waiting: usize,
}

impl PlaceBody {
    fn new(place: &Place) -> Self {
        let (value, encoding) = value::encode(&place.version.value);
        let (token, LeaseId(lease), key) = (place.token(), place.lease, place.key.clone());
        Self { token, lease, key, value, encoding, revision: place.version.revision }
    }
}

impl LockBody {
    fn new(name: &LockName, place: &Place) -> Self {
        let (lock, place) = (name.as_str().to_owned(), PlaceBody::new(place));
        Self { lock, place, ttl_seconds: None, left_seconds: None }
    }
}

impl StateBody {
    pub(super) fn new(name: &LockName, queue: &Queue, revision: u64) -> Self {
        let holder = queue.holder().map(PlaceBody::new);
        let waiting = queue.places().len().saturating_sub(1);
        Self { lock: name.as_str().to_owned(), revision, holder, waiting }
    }
}

pub(super) async fn acquire(State(api): State<Arc<Api>>, request: Request) -> Response {
    let acquire = async {
        let name = target::lock(request.uri(), "")?;
        Parameters::parse(request.uri(), &[])?;
        let (head, body) = request.into_parts();
        let idempotency = headers::idempotency_key(&head.headers)?;
        let wish = wish(name.clone(), read_json(body).await?, idempotency)?;
        match acquire::acquire(&api, wish).await? {
            Ending::Held(place) => {
                let body = LockBody::new(&name, &place);
                Ok(Reply::json(StatusCode::OK, &body).into_response())
            }
            Ending::InVain { holder, ahead } => Err(Refusal::held(&name, &holder, ahead)),
            Ending::NoLease(lease) => Err(Refusal::from_answer(&Answer::NoLease { lease })),
            Ending::Refused(answer) => Err(Refusal::from_answer(&answer)),
        }
    };
    api.respond(acquire.await)
}

fn wish(name: LockName, body: AcquireBody, idempotency: Option<String>) -> Result<Wish, Refusal> {
    let AcquireBody { ttl_seconds, lease, wait_seconds, value, encoding } = body;
    let bad = |problem: String| Refusal::bad("bad-body", problem);
    let terms = match (ttl_seconds, lease.filter(|lease| *lease != 0)) {
        (Some(ttl), None) => Terms::Ttl(seconds("ttl_seconds", ttl)?),
        (None, Some(lease)) => Terms::Lease(LeaseId(lease)),
        (Some(_), Some(_)) | (None, None) => {
            return Err(bad("a lock takes either `ttl_seconds` or a `lease`".to_owned()));
        }
    };
    let wait = seconds("wait_seconds", wait_seconds)?;
    if wait > WAIT_MAX {
        let longest = WAIT_MAX.as_secs();
        return Err(bad(format!("`wait_seconds`: {wait_seconds} is more than {longest}")));
    }
    let value = value::decode(value, encoding);
    let value = value.map_err(|problem| bad(format!("the value {problem}")))?;
    if value.len() > LOCK_VALUE_MAX {
        return Err(Refusal::from(Failure::TooLarge));
    }
    // A place with a lease of the client's is found again by that lease.
    let idempotency = idempotency.filter(|_| matches!(terms, Terms::Ttl(_)));
    Ok(Wish { name, value, terms, wait, idempotency })
}

pub(super) async fn read(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let read = async {
        let name = target::lock(&uri, "")?;
        let Parameters { stale, watch, .. } = Parameters::parse(&uri, &["stale", "watch"])?;
        if watch {
            return observe::observe(&api, name).await;
        }
        let (queue, revision) = places(&api, &name, stale).await?;
        let body = StateBody::new(&name, &queue, revision);
        Ok(Reply::json(StatusCode::OK, &body).into_response())
    };
    api.respond(read.await)
}

/// Reads the queue of a lock, and the revision of the store.
pub(super) async fn places(
    api: &Api,
    name: &LockName,
    stale: bool,
) -> Result<(Queue, u64), Refusal> {
    let mut found: Vec<KeyEntry> = Vec::new();
    loop {
        let after = found.last().map(|entry| entry.key.clone());
        let (space, prefix) = (Space::User, name.prefix());
        let query = Query::Range { space, prefix, after, limit: PAGE, at: None };
        let answer = api.ask(query, stale).await?;
        let Answer::Entries { entries, more, store_revision } = answer else {
            return Err(Refusal::from_answer(&answer));
        };
        found.extend(entries);
        if !more {
            return Ok((Queue::of(name, found), store_revision));
        }
    }
}

/// A request of somebody who has a token.
struct Claim {
    name: LockName,
    token: u64,
    place: Place,
    is_holder: bool,
}

impl Claim {
    /// Finds the place of the token that a request carries.
    async fn read(api: &Api, uri: &Uri, end: &str) -> Result<Self, Refusal> {
        let name = target::lock(uri, end)?;
        let Parameters { token, .. } = Parameters::parse(uri, &["token"])?;
        let token =
            token.ok_or_else(|| Refusal::bad("bad-parameter", "`token` is missing".to_owned()))?;
        let (queue, _) = places(api, &name, false).await?;
        let place = queue.with_token(token).ok_or_else(|| Refusal::not_held(&name, token))?;
        let is_holder = queue.holder() == Some(place);
        Ok(Self { place: place.clone(), name, token, is_holder })
    }

    fn lost(&self) -> Refusal {
        Refusal::not_held(&self.name, self.token)
    }

    fn refuse(&self, answer: &Answer) -> Refusal {
        let is_gone = matches!(answer, Answer::Transacted { .. } | Answer::NoLease { .. });
        if is_gone { self.lost() } else { Refusal::from_answer(answer) }
    }

    /// Answers a change that is made as long as the place is there.
    fn answer(&self, answer: &Answer) -> Result<Response, Refusal> {
        if let Answer::Transacted { succeeded: true, revision, replayed, .. }
        | Answer::Revoked { revision, replayed } = *answer
        {
            return Ok(Reply::done(revision, replayed).into_response());
        }
        Err(self.refuse(answer))
    }
}

pub(super) async fn keep_alive(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    let keep = async {
        let claim = Claim::read(&api, &uri, "/keepalive").await?;
        let lease = claim.place.lease;
        let answer = api.ask(Query::KeepAlive { lease }, false).await?;
        let Answer::Lease { ttl, left, .. } = answer else { return Err(claim.refuse(&answer)) };
        let body = LockBody {
            ttl_seconds: Some(ttl.as_secs_f64()),
            left_seconds: left.map(|left| left.as_secs_f64()),
            ..LockBody::new(&claim.name, &claim.place)
        };
        Ok(Reply::json(StatusCode::OK, &body).into_response())
    };
    api.respond(keep.await)
}

pub(super) async fn proclaim(State(api): State<Arc<Api>>, request: Request) -> Response {
    let proclaim = async {
        let (head, body) = request.into_parts();
        let value = read_body(body, LOCK_VALUE_MAX, BODY_TIME).await?;
        let claim = Claim::read(&api, &head.uri, "").await?;
        if !claim.is_holder {
            return Err(claim.lost());
        }
        let _permit = api.admit()?;
        claim.answer(&api.change(claim.place.proclaim(value), &head.headers).await?)
    };
    api.respond(proclaim.await)
}

pub(super) async fn release(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let release = async {
        let claim = Claim::read(&api, &uri, "").await?;
        let _permit = api.admit()?;
        claim.answer(&api.change(claim.place.release(), &headers).await?)
    };
    api.respond(release.await)
}
