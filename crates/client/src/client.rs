//! What can be asked: one method a request, with typed answers.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::keys::{
    DeleteOptions, Deleted, Expect, Found, ListOptions, Page, PageWire, PutOptions, ReadOptions,
    Written,
};
use crate::leases::{GrantWire, Granted, Lease, LeaseId, LeaseWire};
use crate::pages::Pages;
use crate::response::Response;
use crate::target::Target;
use crate::transactions::{Transacted, TransactedWire, Transaction};
use crate::transport::{Options, Request, Transport};
use crate::watch::{Wanted, Watch};

/// A client of one system. Clones share its connections.
///
/// Its methods must be called within a Tokio runtime with time and IO.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
    names: Arc<Names>,
}

/// Names for changes, which nobody else gives.
#[derive(Debug)]
struct Names {
    prefix: String,
    count: AtomicU64,
}

impl Names {
    fn new() -> Self {
        // The standard library seeds its hashes from the operating system's randomness.
        let state = RandomState::new();
        let random = |number: u64| {
            let mut hasher = state.build_hasher();
            hasher.write_u64(number);
            hasher.finish()
        };
        Self { prefix: format!("{:016x}{:016x}", random(0), random(1)), count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("{}-{}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is read of a node's status.
#[derive(Deserialize)]
struct Status {
    system: String,
}

#[derive(Serialize)]
struct Compact {
    through: u64,
}

impl Client {
    /// Makes a client that asks these hosts (`http://HOST:PORT`), the first one first. Connects to
    /// none of them yet.
    ///
    /// # Errors
    /// When there is no URL, or one makes no sense.
    pub fn new<U: Into<String>>(
        urls: impl IntoIterator<Item = U>,
        options: Options,
    ) -> Result<Self, Error> {
        let urls: Vec<String> = urls.into_iter().map(Into::into).collect();
        let transport = Arc::new(Transport::new(&urls, options)?);
        Ok(Self { transport, names: Arc::new(Names::new()) })
    }

    /// Reads a key; `None` if it is not there.
    ///
    /// # Errors
    /// When nobody answers, or a revision is not known (any more).
    pub async fn get(&self, key: &str, options: &ReadOptions) -> Result<Option<Found>, Error> {
        let target =
            key_target(key)?.flag("stale", options.stale).parameter("revision", options.revision);
        let response = self.ask(Method::GET, target).await?;
        if response.status == 404 && response.refusal().code == "not-found" {
            return Ok(None);
        }
        let response = accept(response)?;
        let (revision, store_revision) = (response.etag()?, response.revision()?);
        Ok(Some(Found { value: response.body, revision, store_revision }))
    }

    /// Lists some keys in order, see [`Self::pages`] for all of them.
    ///
    /// # Errors
    /// When nobody answers, or a revision is not known (any more).
    pub async fn list(&self, options: &ListOptions) -> Result<Page, Error> {
        let prefix = Some(&options.prefix).filter(|prefix| !prefix.is_empty());
        let target = Target::new("/v1/kv")
            .flag("stale", options.stale)
            .parameter("prefix", prefix)
            .parameter("limit", options.limit)
            .parameter("after", options.after.as_ref())
            .parameter("revision", options.revision);
        let response = accept(self.ask(Method::GET, target).await?)?;
        response.json::<PageWire>()?.read()
    }

    /// Begins to list keys page by page, all as they stood at one revision. `limit` bounds a page.
    #[must_use]
    pub fn pages(&self, options: &ListOptions) -> Pages {
        Pages::new(self.clone(), options.clone())
    }

    /// Lists all keys as they stood at one revision; they must fit into memory.
    ///
    /// # Errors
    /// When nobody answers, or a revision is not known (any more).
    pub async fn list_all(&self, options: &ListOptions) -> Result<Page, Error> {
        let mut pages = self.pages(options);
        let mut all = Page { revision: 0, keys: Vec::new(), more: false };
        while let Some(page) = pages.next().await? {
            all.revision = page.revision;
            all.keys.extend(page.keys);
        }
        Ok(all)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When it was not set (the code is `conflict` when it is not as expected), or when that is
    /// not known.
    pub async fn put(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<Written, Error> {
        let target = key_target(key)?.parameter("lease", options.lease);
        let request = self.change(Method::PUT, target, options.idempotency_key.as_deref())?;
        let request = expect(request, options.expect)?.body(value.into());
        self.send_change(&request, |response| {
            let created = response.status == 201;
            Ok(Written { revision: response.etag()?, created, replayed: response.replayed })
        })
        .await
    }

    /// Removes a key; `None` if it was not there.
    ///
    /// # Errors
    /// When it was not removed (the code is `conflict` when it is not as expected), or when that
    /// is not known.
    pub async fn delete(
        &self,
        key: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Error> {
        let target = key_target(key)?;
        let request = self.change(Method::DELETE, target, options.idempotency_key.as_deref())?;
        let request = expect(request, options.expect)?;
        let deleted = self.send_change(&request, |response| {
            Ok(Deleted { revision: response.revision()?, replayed: response.replayed })
        });
        match deleted.await {
            Err(Error::Refused(refusal)) if refusal.code == "not-found" => Ok(None),
            result => result.map(Some),
        }
    }

    /// Makes a transaction, under this idempotency key or a random one. One that changes nothing
    /// needs none, and so always has results.
    ///
    /// # Errors
    /// When it was not made, or when that is not known. That its comparisons do not hold is none.
    pub async fn transact(
        &self,
        transaction: &Transaction,
        idempotency_key: Option<&str>,
    ) -> Result<Transacted, Error> {
        let target = Target::new("/v1/txn");
        let wire = transaction.to_wire();
        if transaction.only_reads() && idempotency_key.is_none() {
            let request = with_json(Request::question(Method::POST, target.into_text()), &wire)?;
            let response = accept(self.transport.send(&request).await?)?;
            return response.json::<TransactedWire>()?.read(response.replayed);
        }
        let request = self.change_with(target, &wire, idempotency_key)?;
        self.send_change(&request, |response| {
            response.json::<TransactedWire>()?.read(response.replayed)
        })
        .await
    }

    /// Makes a lease that lasts for `ttl` after it was last kept alive, 1 s to 24 h.
    ///
    /// # Errors
    /// When it was not made, or when that is not known.
    pub async fn grant(
        &self,
        ttl: Duration,
        idempotency_key: Option<&str>,
    ) -> Result<Granted, Error> {
        let body = GrantWire { ttl_seconds: ttl.as_secs_f64() };
        let request = self.change_with(Target::new("/v1/leases"), &body, idempotency_key)?;
        self.send_change(&request, |response| {
            let Lease { lease, ttl, .. } = response.json::<LeaseWire>()?.read()?;
            Ok(Granted { lease, ttl })
        })
        .await
    }

    /// Begins a lease's time anew.
    ///
    /// # Errors
    /// When nobody answers; the code is `no-lease` when it has ended.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error> {
        // It can be done twice without harm, as if it were a question.
        let target = Target::new(&format!("/v1/leases/{lease}/keepalive"));
        let response = accept(self.ask(Method::POST, target).await?)?;
        response.json::<LeaseWire>()?.read()
    }

    /// Looks at a lease.
    ///
    /// # Errors
    /// When nobody answers; the code is `no-lease` when it has ended.
    pub async fn lease(&self, lease: LeaseId) -> Result<Lease, Error> {
        let target = Target::new(&format!("/v1/leases/{lease}"));
        let response = accept(self.ask(Method::GET, target).await?)?;
        response.json::<LeaseWire>()?.read()
    }

    /// Ends a lease and removes its keys; returns the revision of the store since.
    ///
    /// # Errors
    /// When it has not ended (the code is `no-lease` when it had before), or when that is not
    /// known.
    pub async fn revoke(
        &self,
        lease: LeaseId,
        idempotency_key: Option<&str>,
    ) -> Result<u64, Error> {
        let target = Target::new(&format!("/v1/leases/{lease}"));
        let request = self.change(Method::DELETE, target, idempotency_key)?;
        self.send_change(&request, Response::revision).await
    }

    /// Forgets what was before a revision: it can be neither read nor watched from any more.
    ///
    /// # Errors
    /// When it was not forgotten, or when that is not known.
    pub async fn compact(&self, through: u64) -> Result<(), Error> {
        let request = self.change_with(Target::new("/v1/compact"), &Compact { through }, None)?;
        self.send_change(&request, |_| Ok(())).await
    }

    /// Returns the name of the system, if a whole node answers.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn system(&self) -> Result<Option<String>, Error> {
        let target = Target::new("/v1/status").flag("local", true);
        let response = self.ask(Method::GET, target).await?;
        if response.status == 404 {
            return Ok(None);
        }
        let Status { system } = accept(response)?.json()?;
        Ok(Some(system))
    }

    /// Begins to watch what changes after a revision, or from now on. Once this returns, no
    /// change is missed.
    ///
    /// # Errors
    /// When nobody answers, or the revision is not known (any more).
    pub async fn watch(&self, wanted: Wanted, since: Option<u64>) -> Result<Watch, Error> {
        Watch::begin(Arc::clone(&self.transport), wanted, since).await
    }

    pub(crate) async fn ask(&self, method: Method, target: Target) -> Result<Response, Error> {
        self.send(&Request::question(method, target.into_text())).await
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Error> {
        self.transport.send(request).await
    }

    pub(crate) fn change(
        &self,
        method: Method,
        target: Target,
        name: Option<&str>,
    ) -> Result<Request, Error> {
        let name = name.map_or_else(|| self.names.next(), str::to_owned);
        Request::change(method, target.into_text(), &name)
    }

    fn change_with(
        &self,
        target: Target,
        body: &impl Serialize,
        name: Option<&str>,
    ) -> Result<Request, Error> {
        with_json(self.change(Method::POST, target, name)?, body)
    }

    pub(crate) async fn send_change<T>(
        &self,
        request: &Request,
        read: impl FnOnce(&Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let response = accept(self.transport.send(request).await?)?;
        // Something that looks like success but does not read like it promises nothing.
        read(&response).map_err(|error| Error::Unknown { cause: error.to_string() })
    }
}

/// Checks a key as far as a path must: the rest is the server's.
fn key_target(key: &str) -> Result<Target, Error> {
    if key.is_empty() {
        return Err(Error::bad_request("the key is empty"));
    }
    Ok(Target::key(key))
}

pub(crate) fn with_json(request: Request, body: &impl Serialize) -> Result<Request, Error> {
    let body = serde_json::to_vec(body).map_err(|error| Error::bad_request(error.to_string()))?;
    Ok(request.header(CONTENT_TYPE, "application/json")?.body(body.into()))
}

fn expect(request: Request, expect: Expect) -> Result<Request, Error> {
    match expect {
        Expect::Any => Ok(request),
        Expect::Absent => request.header(IF_NONE_MATCH, "*"),
        Expect::Present => request.header(IF_MATCH, "*"),
        Expect::Revision(revision) => request.header(IF_MATCH, &format!("\"{revision}\"")),
    }
}

pub(crate) fn accept(response: Response) -> Result<Response, Error> {
    if response.is_success() { Ok(response) } else { Err(Error::Refused(response.refusal())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let names = [Names::new(), Names::new()];
        let mut given: Vec<String> =
            names.iter().flat_map(|names| (0..3).map(|_| names.next())).collect();
        assert!(given.iter().all(|name| (33..128).contains(&name.len())));
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 6);
    }

    #[test]
    fn a_client_needs_a_host() {
        let client = |urls: &[&str]| Client::new(urls.iter().copied(), Options::STANDARD);
        assert!(client(&["http://127.0.0.1:1", "http://[::1]:1"]).is_ok());
        for bad in [&[][..], &["127.0.0.1:1"], &["http://h:1"; 65]] {
            assert!(matches!(client(bad), Err(Error::BadRequest { .. })), "{bad:?}");
        }
    }
}
