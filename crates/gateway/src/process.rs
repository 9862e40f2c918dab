//! The gateway as a process: starts from the snapshot, follows it, ends gracefully.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::Balancer;
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::HostName;
use evenkeel_model::random::Rng;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{JoinError, LocalSet};
use tokio::time::MissedTickBehavior;

use crate::access_log::AccessLog;
use crate::checks;
use crate::connections::Connections;
use crate::inherited;
use crate::listeners::Listeners;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::protection::Protection;
use crate::shared::{Clock, Shared};
use crate::snapshot;

/// Time between two looks at the snapshot file.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks between two rounds of opening missing sockets and closing idle connections.
const TIDY_EVERY: u32 = 10;
/// Time for which answers under way may take to end after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of [`crate::snapshot`]. It may appear later.
    pub snapshot: PathBuf,
    /// The host whose tables are taken.
    pub host: HostName,
    /// The folder of this host's certificate; without it everything is plain.
    pub trust: Option<PathBuf>,
    /// Begins the sequence of random choices; different on every host and at every start.
    pub seed: u64,
}

/// Reports why a gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The thread of the access log could not be started.
    #[error("cannot start the access log")]
    AccessLog(#[source] io::Error),
    /// The host's name cannot stand in a header.
    #[error("the host's name cannot stand in a header")]
    HostName(#[source] InvalidHeaderValue),
    /// The task that asks endpoints for their health ended, by a defect. Without it the gateway
    /// would go on blindly, so it ends and is started again.
    #[error("the health checks ended unexpectedly")]
    Checks(#[source] JoinError),
}

/// Runs the gateway of a host until SIGTERM or SIGINT. Takes sockets from `LISTEN_FDS`, writes the
/// access log to standard output.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    let inherited = inherited::take();
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    let served = LocalSet::new().block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(options, inherited, Box::new(io::stdout()), stop).await.map_err(io::Error::other)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&error),
    }
}

fn give_up(error: &io::Error) -> ExitCode {
    tracing::error!("the gateway ends: {}", chain(error));
    ExitCode::FAILURE
}

/// Writes an error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Takes as many descriptors as the system allows. With the default of 1024 the gateway works,
/// for fewer clients.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of file descriptors stays");
    }
}

/// Runs a gateway on the current [`LocalSet`] until `stop` completes and answers under way have
/// ended. `inherited` are sockets that listen already, found by port; `access_log` gets one JSON
/// object a line.
///
/// # Errors
/// What was missing to begin. A missing or damaged snapshot is waited for.
pub async fn serve(
    options: Options,
    inherited: Vec<TcpListener>,
    access_log: Box<dyn Write + Send>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::pin!(stop);
    let access_log = AccessLog::start(access_log).map_err(ServeError::AccessLog)?;
    let clock = Clock::start();
    let mut follower = Follower::new(options.snapshot.clone(), options.host.clone());
    let balancer = tokio::select! {
        balancer = first_balancer(&mut follower, clock, options.seed) => balancer,
        () = &mut stop => return Ok(()),
    };
    let metrics = Metrics::new();
    let live = Live::new(Arc::clone(balancer.table()), &metrics);
    let protection =
        Protection::new(options.trust, balancer.table().system.clone(), options.host.clone());
    protection.follow(balancer.table());
    let shared = Rc::new(Shared {
        host: HeaderValue::from_str(options.host.as_str()).map_err(ServeError::HostName)?,
        clock,
        balancer: RefCell::new(balancer),
        live: RefCell::new(Rc::new(live)),
        open: RefCell::new(BTreeSet::new()),
        connections: Connections::default(),
        sessions: Rc::default(),
        protection: Rc::new(protection),
        metrics,
        access_log,
        changed: Notify::new(),
        wake: Notify::new(),
    });
    let mut checking = tokio::task::spawn_local(checks::run(Rc::clone(&shared)));
    let mut listeners = Listeners::new(Rc::clone(&shared), inherited);
    tokio::select! {
        never = follow(&shared, &mut follower, &mut listeners) => match never {},
        ended = &mut checking => return ended.map(|never| match never {}).map_err(ServeError::Checks),
        () = &mut stop => {}
    }
    tracing::info!("ending: no new connections");
    listeners.end(DRAIN_MAX).await;
    checking.abort();
    shared.access_log.flush().await;
    Ok(())
}

/// Waits for a first table that can be used.
async fn first_balancer(follower: &mut Follower, clock: Clock, seed: u64) -> Balancer {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(table) = follower.first() else { continue };
        let (table, rng) = (Arc::new(table), Rng::from_seed(seed));
        match Balancer::new(Policy::STANDARD, table, rng, clock.now()) {
            Ok(balancer) => return balancer,
            Err(error) => tracing::error!("the snapshot cannot be used: {}", chain(&error)),
        }
    }
}

/// Puts every newer table in force, and tidies up. Never ends.
async fn follow(
    shared: &Rc<Shared>,
    follower: &mut Follower,
    listeners: &mut Listeners,
) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in (0..TIDY_EVERY).cycle() {
        ticks.tick().await;
        let newer = follower.look().is_some_and(|table| put_in_force(shared, table));
        if newer || round == 0 {
            let table = Arc::clone(shared.balancer.borrow().table());
            listeners.reconcile(&table);
            let balancer = shared.balancer.borrow();
            shared.protection.refresh();
            shared.connections.close_old(|endpoint| balancer.endpoint(endpoint).is_some());
            shared.sessions.close_old(|(host, address)| balancer.table().leads_to(host, *address));
        }
    }
    std::future::pending().await
}

/// Returns whether the table was taken.
fn put_in_force(shared: &Rc<Shared>, table: RouteTable) -> bool {
    let table = Arc::new(table);
    let now = shared.clock.now();
    if let Err(error) = shared.balancer.borrow_mut().apply_table(Arc::clone(&table), now) {
        shared.metrics.tables_refused.inc();
        tracing::warn!("the table in force stays: {}", chain(&error));
        return false;
    }
    tracing::info!(generation = table.generation, "new route table");
    shared.protection.follow(&table);
    shared.live.replace(Rc::new(Live::new(table, &shared.metrics)));
    shared.wake.notify_one();
    shared.changed.notify_waiters();
    true
}

/// Reads the snapshot when it changes. A table that changed while its file was being read is
/// found at the next look: what is compared was noted before reading.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    host: HostName,
    seen: Option<Mark>,
    /// What was said last, so that it is said once.
    said: String,
}

/// What changes when a file is replaced: inode, length and times.
type Mark = (u64, u64, i64, i64);

impl Follower {
    const fn new(path: PathBuf, host: HostName) -> Self {
        Self { path, host, seen: None, said: String::new() }
    }

    /// Returns the newest table, or the previous one if the newest is damaged.
    fn first(&mut self) -> Option<RouteTable> {
        self.seen = mark(&self.path);
        match snapshot::read(&self.path) {
            Ok(loaded) if loaded.table.host != self.host => {
                self.say(format!("the snapshot is for host `{}`", loaded.table.host));
                None
            }
            Ok(loaded) => {
                if let Some(damage) = loaded.damage {
                    self.say(format!("{}; starting from the previous snapshot", chain(&damage)));
                }
                Some(loaded.table)
            }
            Err(error) => {
                self.say(format!("{}; waiting for a snapshot", chain(&error)));
                None
            }
        }
    }

    /// Returns a table that was not returned before.
    fn look(&mut self) -> Option<RouteTable> {
        let mark = mark(&self.path);
        if mark == self.seen || mark.is_none() {
            return None;
        }
        self.seen = mark;
        match snapshot::read_one(&self.path) {
            Ok(table) => Some(table),
            Err(error) => {
                self.say(format!("{}; the table in force stays", chain(&error)));
                None
            }
        }
    }

    fn say(&mut self, text: String) {
        if self.said != text {
            tracing::warn!("{text}");
            self.said = text;
        }
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}
