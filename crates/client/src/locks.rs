//! Locks, and elections, which are locks whose value others read.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::client::{Client, accept, with_json};
use crate::error::Error;
use crate::keeping::Keeping;
use crate::leases::{Granted, LeaseId};
use crate::target::Target;
use crate::transactions::{Compare, Operand, Relation};
use crate::transport::Request;
use crate::value::{self, Encoding};
use crate::watch::{Wanted, Watch};

/// How long one request waits for a lock: longer would hold up whoever must ask another host.
const PULL: Duration = Duration::from_secs(3);
/// The refusal of a lock that others hold.
const LOCK_HELD: &str = "lock-held";
/// Pause after a request that nobody answered.
const PAUSE: Duration = Duration::from_millis(200);

/// How a lock is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOptions {
    /// How long it is held when the holder is gone without a word, 1 s to 24 h.
    pub ttl: Duration,
    /// How long to wait while others are before; for as long as it takes if `None`.
    pub wait: Option<Duration>,
    /// What others read of the holder, at most 4 KiB.
    pub value: Bytes,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(10), wait: None, value: Bytes::new() }
    }
}

/// A lock that is held. A task keeps it alive; dropped without [`Lock::release`], it passes on when
/// its lease has ended.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    name: String,
    held: Held,
    keeper: Keeper,
}

/// That a lock is held no longer, or not for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub cause: Error,
    /// Until then nobody else can hold it: time to stop.
    pub until: std::time::Instant,
}

/// A lock as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockState {
    /// The revision of the store.
    pub revision: u64,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// How many wait behind.
    pub waiting: u64,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The revision at which it took its place: higher than that of every holder before.
    pub token: u64,
    /// The lease with which the place goes.
    pub lease: LeaseId,
    /// The key of the place.
    pub key: String,
    /// What it wants others to read.
    pub value: Bytes,
    /// The revision at which that was put.
    pub revision: u64,
}

/// The holders of a lock as they follow each other, see [`Client::observe`].
#[derive(Debug)]
pub struct Observation {
    client: Client,
    name: String,
    watch: Watch,
    /// The last one that was told: its token and when its value was put.
    told: Option<Option<(u64, u64)>>,
}

#[derive(Serialize)]
struct AcquireWire {
    lease: u64,
    wait_seconds: f64,
    value: String,
    encoding: Encoding,
}

#[derive(Deserialize)]
struct StateWire {
    revision: u64,
    holder: Option<HolderWire>,
    waiting: u64,
}

#[derive(Deserialize)]
struct HolderWire {
    token: u64,
    lease: u64,
    key: String,
    value: String,
    #[serde(default)]
    encoding: Encoding,
    revision: u64,
}

/// What is known of a place.
#[derive(Debug, Clone)]
struct Held {
    token: u64,
    lease: LeaseId,
    key: String,
}

impl HolderWire {
    fn read(self) -> Result<Holder, Error> {
        let Self { token, lease, key, value, encoding, revision } = self;
        let value = value::decode(value, encoding);
        let value = value.map_err(|problem| Error::malformed(format!("a value {problem}")))?;
        Ok(Holder { token, lease: LeaseId(lease), key, value, revision })
    }
}

impl Client {
    /// Waits for a lock, in the order of arrival.
    ///
    /// # Errors
    /// When it is not held. The code is `lock-held` when others were before until the wait was
    /// over.
    pub async fn lock(&self, name: &str, options: &LockOptions) -> Result<Lock, Error> {
        let held = self.lock_unless(name, options, pending()).await?;
        held.ok_or_else(|| Error::bad_request("the waiting was given up"))
    }

    /// Like [`Self::lock`], but leaves the queue and returns `None` once `given_up` is ready.
    ///
    /// # Errors
    /// When it is not held.
    pub async fn lock_unless(
        &self,
        name: &str,
        options: &LockOptions,
        given_up: impl Future<Output = ()>,
    ) -> Result<Option<Lock>, Error> {
        check(name)?;
        let sent = Instant::now();
        let Granted { lease, ttl } = self.grant(options.ttl, None).await?;
        let mut keeper = Keeper::start(self, name, lease, Keeping::new(ttl, sent));
        let until = options.wait.map(|wait| sent + wait);
        let result = tokio::select! {
            held = self.queue(name, lease, until, &options.value) => held.map(Some),
            lost = keeper.lost() => Err(lost.cause),
            () = given_up => Ok(None),
        };
        match result {
            Ok(Some(held)) => {
                keeper.token.store(held.token, Ordering::Relaxed);
                Ok(Some(Lock { client: self.clone(), name: name.to_owned(), held, keeper }))
            }
            other => {
                drop(keeper);
                // Without it the lease ends by itself.
                drop(self.revoke(lease, None).await);
                other.map(|_| None)
            }
        }
    }

    /// Asks until the lock is held: the lease keeps the place from one request to the next.
    async fn queue(
        &self,
        name: &str,
        lease: LeaseId,
        until: Option<Instant>,
        value: &[u8],
    ) -> Result<Held, Error> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = left.unwrap_or(PULL).min(PULL);
            let (value, encoding) = value::encode(value);
            let wait_seconds = wait.as_secs_f64();
            let body = AcquireWire { lease: lease.0, wait_seconds, value, encoding };
            // Asked twice, it is still one place.
            let request = Request::question(Method::POST, Target::lock(name, "").into_text());
            let asked = self.send(&with_json(request, &body)?.waits(wait)).await.and_then(accept);
            let error = match asked.and_then(|response| response.json::<HolderWire>()?.read()) {
                Ok(Holder { token, lease, key, .. }) => return Ok(Held { token, lease, key }),
                Err(error) => error,
            };
            let is_over = until.is_some_and(|until| Instant::now() >= until);
            let is_held = error.code() == LOCK_HELD;
            if is_over || !(is_held || is_passing(&error)) {
                return Err(error);
            }
            if !is_held {
                sleep(PAUSE).await;
            }
        }
    }

    /// Looks who holds a lock.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn lock_state(&self, name: &str) -> Result<LockState, Error> {
        check(name)?;
        let response = accept(self.ask(Method::GET, Target::lock(name, "")).await?)?;
        let StateWire { revision, holder, waiting } = response.json()?;
        let holder = holder.map(HolderWire::read).transpose()?;
        Ok(LockState { revision, holder, waiting })
    }

    /// Begins to observe who holds a lock.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn observe(&self, name: &str) -> Result<Observation, Error> {
        check(name)?;
        let watch = self.watch(Wanted::prefix(&format!("locks/{name}/")), None).await?;
        Ok(Observation { client: self.clone(), name: name.to_owned(), watch, told: None })
    }

    /// Keeps a lease alive, and checks that its place is there if it has one.
    async fn keep_place(
        &self,
        name: &str,
        lease: LeaseId,
        token: u64,
        patience: Duration,
    ) -> Result<(), Error> {
        let target = match token {
            0 => Target::new(&format!("/v1/leases/{lease}/keepalive")),
            token => Target::lock(name, "/keepalive").parameter("token", Some(token)),
        };
        let request = Request::question(Method::POST, target.into_text()).within(patience);
        accept(self.send(&request).await?).map(drop)
    }
}

/// Returns whether the same request may do better in a while.
const fn is_passing(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => refusal.status >= 500,
        Error::Unreachable { .. } | Error::Unknown { .. } => true,
        Error::Malformed { .. } | Error::BadRequest { .. } => false,
    }
}

/// Checks a name as far as a path must: the rest is the server's.
fn check(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains('/') {
        return Err(Error::bad_request("a lock's name is not empty and has no slash"));
    }
    Ok(())
}

impl Lock {
    /// Returns the fencing token: the revision of the store at which the place was taken, higher
    /// than that of every holder before.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.held.token
    }

    /// Returns the key of the place.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.held.key
    }

    /// Returns the lease of the place; keys set with it go when the lock does.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.held.lease
    }

    /// Returns what holds for as long as the lock is held: a transaction that compares it is made
    /// by the holder or not at all.
    #[must_use]
    pub fn guard(&self) -> Compare {
        let (key, operand) = (self.held.key.clone(), Operand::Created(self.held.token));
        Compare { key, relation: Relation::Equal, operand }
    }

    /// Waits until the lock is lost, or can't be kept: then the holder has until [`Lost::until`] to
    /// stop, and nothing keeps the lock alive any more.
    pub async fn lost(&mut self) -> Lost {
        self.keeper.lost().await
    }

    /// Lets others read another value. Returns the revision of the store since.
    ///
    /// # Errors
    /// When it was not put (the code is `not-held` when the lock is lost), or when that is not
    /// known.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<u64, Error> {
        let target = Target::lock(&self.name, "").parameter("token", Some(self.held.token));
        let request = self.client.change(Method::PUT, target, None)?.body(value.into());
        self.client.send_change(&request, crate::response::Response::revision).await
    }

    /// Gives the lock up. `false`: it was lost before.
    ///
    /// # Errors
    /// When nobody answers: then it passes on when its lease has ended.
    pub async fn release(self) -> Result<bool, Error> {
        let Self { client, held, keeper, .. } = self;
        drop(keeper);
        match client.revoke(held.lease, None).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == "no-lease" => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Observation {
    /// Returns the state of the lock: at once, and then whenever there is another holder, another
    /// value, or none. One that held it for a moment may be left out, the latest never.
    ///
    /// # Errors
    /// When no host can go on.
    pub async fn next(&mut self) -> Result<LockState, Error> {
        loop {
            let state = match self.client.lock_state(&self.name).await {
                Err(error) if is_passing(&error) => {
                    sleep(PAUSE).await;
                    continue;
                }
                state => state?,
            };
            let holder = state.holder.as_ref().map(|holder| (holder.token, holder.revision));
            if self.told != Some(holder) {
                self.told = Some(holder);
                return Ok(state);
            }
            self.watch.next().await?;
        }
    }
}

/// Keeps a lease alive while there is somebody who needs it.
#[derive(Debug)]
struct Keeper {
    task: AbortHandle,
    lost: watch::Receiver<Option<Lost>>,
    /// The token of the place, 0 before there is one.
    token: Arc<AtomicU64>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    fn start(client: &Client, name: &str, lease: LeaseId, keeping: Keeping) -> Self {
        let (outlet, lost) = watch::channel(None);
        let token = Arc::new(AtomicU64::new(0));
        let (client, name, place) = (client.clone(), name.to_owned(), Arc::clone(&token));
        let task = tokio::spawn(async move {
            let lost = keep(&client, &name, lease, keeping, &place).await;
            outlet.send_replace(Some(lost));
        });
        Self { task: task.abort_handle(), lost, token }
    }

    async fn lost(&mut self) -> Lost {
        let lost = match self.lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            Err(_) => None,
        };
        lost.unwrap_or_else(|| {
            let cause = Error::Unreachable { cause: "the lease is not kept any more".to_owned() };
            Lost { cause, until: std::time::Instant::now() }
        })
    }
}

/// Keeps a lease alive until it can't.
async fn keep(
    client: &Client,
    name: &str,
    lease: LeaseId,
    mut keeping: Keeping,
    token: &AtomicU64,
) -> Lost {
    let mut cause = Error::Unreachable { cause: "no answer came in time".to_owned() };
    loop {
        sleep_until(keeping.try_at().min(keeping.stop_at())).await;
        let sent = Instant::now();
        if sent >= keeping.stop_at() {
            return Lost { cause, until: keeping.sure_until().into_std() };
        }
        let place = token.load(Ordering::Relaxed);
        let asked = client.keep_place(name, lease, place, keeping.patience());
        match timeout_at(keeping.stop_at(), asked).await {
            Ok(Ok(())) => keeping.kept(sent),
            Ok(Err(error)) if matches!(error.code(), "no-lease" | "not-held") => {
                return Lost { cause: error, until: sent.into_std() };
            }
            Ok(Err(error)) => {
                cause = error;
                keeping.failed(Instant::now());
            }
            Err(_) => keeping.failed(Instant::now()),
        }
    }
}
