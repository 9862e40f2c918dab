//! Puts a coordinator together.

use std::io;
use std::sync::Arc;

use evenkeel_consensus::replica::Replica;
use evenkeel_consensus::restore::RestoreError;
use evenkeel_consensus::settings::{Limits, Settings};
use tokio::sync::{mpsc, watch};

use crate::client::Client;
use crate::driver::{self, Clock, Driver, Inlets, Member, Timings};
use crate::executor::Executor;
use crate::leader::{LeaderView, Watcher, look_around};
use crate::log::{Log, OpenError, Recovered, Space};
use crate::options::{self, Options, Places, RoundTrips, Voter};
use crate::peers::{Identity, Peers, Succession};
use crate::thread::DriverThread;
use crate::{Background, Coordinator, digest};

/// Reports why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A voter was given nothing to listen on.
    #[error("this host is a voter, but has no listener for the other voters")]
    NoListener,
    /// The log cannot be used.
    #[error("cannot open the coordinator's log")]
    Log(#[source] OpenError),
    /// The log was read, but a member cannot go on from it.
    #[error("cannot go on from the coordinator's log in `{folder}`, nothing was changed")]
    Restore {
        /// The folder of the log.
        folder: String,
        /// Why.
        #[source]
        source: RestoreError,
    },
    /// The operating system refused something.
    #[error("cannot {step}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoListener => "bind the peer port before the coordinator starts".to_owned(),
            Self::Log(error) => error.help(),
            Self::Restore { folder, .. } => format!(
                "while every other voter is up (`evenkeel status`), move the folder `{folder}` \
                 away and start once with `--rejoin-empty`: this host begins with an empty log \
                 and is sent everything"
            ),
            Self::System { .. } => {
                "check the limits on threads and open files of this process".to_owned()
            }
        }
    }
}

/// Begins the log of a voter, or leaves it as it is if there is one.
pub(crate) async fn begin_log(options: &Options) -> Result<(), StartError> {
    let (log, _) = open_log(options, |_| ()).await?;
    let closing = tokio::task::spawn_blocking(move || log.close());
    closing.await.map_err(|error| StartError::System {
        step: "close the coordinator's log",
        source: io::Error::other(error),
    })
}

pub(crate) async fn start(
    options: Options,
    round_trips: watch::Receiver<RoundTrips>,
) -> Result<Coordinator, StartError> {
    if options.joins || options.voters.iter().any(|voter| voter.host == options.host) {
        start_member(options, round_trips).await
    } else {
        Ok(start_client(options, round_trips))
    }
}

fn start_client(options: Options, round_trips: watch::Receiver<RoundTrips>) -> Coordinator {
    let Options { system, host, voters, hosts, trust, .. } = options;
    let (known, voters) = watch::channel(voters.into());
    let client = Client::new(&system, voters.clone(), round_trips.clone(), trust);
    let (watcher, leader) = Watcher::start(client.clone(), voters.clone());
    let revision = Arc::new(watch::Sender::new(0));
    let executor = Executor::new(
        host,
        Places { voters, hosts },
        client,
        None,
        leader.clone(),
        revision,
        round_trips,
    );
    Coordinator {
        executor: Arc::new(executor),
        leader,
        system_changes: watch::channel(0).1,
        space: watch::channel(Space::Free).1,
        superseded: watch::channel(None).1,
        background: Arc::new(Background::Client(watcher, known)),
    }
}

async fn start_member(
    options: Options,
    round_trips: watch::Receiver<RoundTrips>,
) -> Result<Coordinator, StartError> {
    let listener = options.peer_listener.as_ref().ok_or(StartError::NoListener)?;
    let system = |step| move |source| StartError::System { step, source };
    let listener = listener.try_clone().map_err(system("share the peer listener"))?;
    listener.set_nonblocking(true).map_err(system("make the peer listener non-blocking"))?;
    let clock = Clock::start();
    let (log, replica, log_events) = open(&options, clock).await?;

    let (asks, ask_inlet) = driver::ask_channel();
    let (own_outlet, own) = watch::channel(LeaderView::unknown());
    let (leader_outlet, leader) = watch::channel(LeaderView::unknown());
    let (changes_outlet, system_changes) = watch::channel(replica.keys().revision());
    let (space_outlet, space) = watch::channel(Space::Free);
    let revision = Arc::new(watch::Sender::new(replica.keys().revision()));
    let (answers, answer_inlet) = mpsc::unbounded_channel();
    tokio::spawn(driver::deliver(answer_inlet));
    let (voters_outlet, voters) = watch::channel(options.voters.clone().into());
    let lineage = (replica.applied() > 0).then(|| replica.keys().lineage());
    let succession = Succession::new(lineage);
    let later = succession.later();
    let outlets = driver::Outlets {
        answers,
        succession: Arc::clone(&succession),
        voters: voters_outlet,
        round_trips: round_trips.clone(),
        leader: own_outlet,
        system_changes: changes_outlet,
        revision: Arc::clone(&revision),
        space: space_outlet,
    };
    let Options { system: name, host, hosts, store_bytes_max, trust, .. } = options;
    let client = Client::new(&name, voters.clone(), round_trips.clone(), trust.clone());
    tokio::spawn(look_around(client.clone(), host.clone(), voters.clone(), own, leader_outlet));
    let identity = Identity::new(&name, &host, trust, succession);
    let others: Vec<Voter> = hosts.iter().filter(|other| other.host != host).cloned().collect();
    let member = Member { host: host.clone(), hosts: hosts.clone(), store_bytes_max };
    let (measured, told_later) = (round_trips.clone(), later.clone());
    let drive = move || async move {
        let (inbox_outlet, inbox) = driver::inbox_channel();
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot listen for other voters");
                return log.close();
            }
        };
        let peers = Peers::start(&identity, &others, listener, &inbox_outlet);
        let inlets =
            Inlets { asks: ask_inlet, inbox, log_events, round_trips: measured, later: told_later };
        Driver::new(replica, clock, log, peers, member, outlets).run(inlets).await;
    };
    let thread = DriverThread::spawn(asks.clone(), drive)
        .map_err(system("start the coordinator's thread"))?;
    let executor = Executor::new(
        host,
        Places { voters, hosts },
        client,
        Some(asks),
        leader.clone(),
        revision,
        round_trips,
    );
    Ok(Coordinator {
        executor: Arc::new(executor),
        leader,
        system_changes,
        space,
        superseded: later,
        background: Arc::new(Background::Member(thread)),
    })
}

/// Opens the log and restores the member from it.
async fn open(
    options: &Options,
    clock: Clock,
) -> Result<(Log, Replica, mpsc::UnboundedReceiver<crate::log::Event>), StartError> {
    let (events, log_events) = mpsc::unbounded_channel();
    // Nobody listens any more once the driver has ended.
    let (log, recovered) = open_log(options, move |event| _ = events.send(event)).await?;
    let first = options.voters.iter().filter(|_| !options.joins).map(Voter::member);
    let settings = Settings {
        member: options::member(&options.host),
        voters: first.collect(),
        heartbeat: Timings::FIRST.heartbeat,
        election_min: Timings::FIRST.election_min,
        seed: options.seed,
        limits: Limits::STANDARD,
        defect: None,
    };
    match Replica::new(settings, recovered.restored, clock.now()) {
        Ok(replica) => Ok((log, replica, log_events)),
        Err(source) => {
            log.close();
            let folder = options.log_folder.display().to_string();
            Err(StartError::Restore { folder, source })
        }
    }
}

async fn open_log(
    options: &Options,
    events: impl Fn(crate::log::Event) + Send + Sync + 'static,
) -> Result<(Log, Recovered), StartError> {
    let log_options = crate::log::Options {
        folder: options.log_folder.clone(),
        owner: digest::owner(&options.system, &options.host),
        segment_bytes: options.log_segment_bytes.max(crate::log::SEGMENT_MIN),
        folder_bytes_max: options.log_bytes_max,
    };
    let opening = tokio::task::spawn_blocking(move || Log::open(&log_options, events));
    let opened = opening.await.map_err(|error| StartError::System {
        step: "open the coordinator's log",
        source: io::Error::other(error),
    })?;
    opened.map_err(StartError::Log)
}
