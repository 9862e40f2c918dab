//! The open-loop load: clients in every region that keep to their schedule whatever the system
//! does.
//!
//! Every operation has an intended start, fixed before the load begins. A client never waits for an
//! answer before the next start, so a hanging system meets as many requests as a healthy one, and
//! the time that a request could not even be sent counts as its latency.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use evenkeel_checker::history::{Operation, Outcome};
use evenkeel_model::name::RegionName;
use evenkeel_model::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::client::{Client, Ending};
use crate::clock::now;
use crate::history::HistoryFile;
pub use crate::workload::{Page, Traffic};
use crate::workload::{Times, Workload};

/// Operations of one client that may be under way at once. One more counts as failed.
const OUTSTANDING_MAX: usize = 512;
/// Time between two looks at the first address after a client has left it.
const RETURN_EVERY: Duration = Duration::from_secs(1);
/// Time between the creation of the clients and their first intended start.
const WARM_UP: Duration = Duration::from_millis(150);

/// Moves the calling thread into a network, for the rest of its life.
pub type EnterNetwork = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Where clients stand.
#[derive(Clone)]
pub struct Station {
    /// The region, which is also the first part of its clients' names.
    pub region: RegionName,
    /// The network of its clients, outside every host.
    pub enter: EnterNetwork,
    /// Gateways of the same region.
    pub near: Vec<SocketAddr>,
    /// Gateways of other regions, the next first.
    pub far: Vec<SocketAddr>,
}

impl fmt::Debug for Station {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Station");
        text.field("region", &self.region).field("near", &self.near).field("far", &self.far);
        text.finish_non_exhaustive()
    }
}

impl Station {
    /// Returns the addresses of the station's client number `index`: one gateway of its region, a
    /// second one in another region, then all others.
    fn addresses(&self, index: usize) -> Vec<SocketAddr> {
        let turned = |list: &[SocketAddr]| {
            let mut list = list.to_vec();
            let middle = index % list.len().max(1);
            list.rotate_left(middle);
            list
        };
        let (near, far) = (turned(&self.near), self.far.clone());
        let mut near = near.into_iter();
        let mut addresses: Vec<SocketAddr> = near.next().into_iter().collect();
        let mut far = far.into_iter();
        addresses.extend(far.next());
        addresses.extend(near);
        addresses.extend(far);
        addresses
    }
}

/// How much load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// What clients ask for.
    pub traffic: Traffic,
    /// First part of every key. A key must be new to the system.
    pub prefix: String,
    /// Clients at each station.
    pub clients_per_station: usize,
    /// Operations per second of all clients together.
    pub rate: u32,
    /// Seed of every choice.
    pub seed: u64,
    /// Whether operations are kept for [`Load::stop`]; without, only [`Live`] sees them.
    pub keep: bool,
}

/// What has happened lately, for the live line.
#[derive(Debug, Default)]
pub struct Live(Mutex<Vec<(Timestamp, Duration, Outcome)>>);

/// The last second or so of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Operations acknowledged per second.
    pub rate: u64,
    /// Operations failed or in doubt.
    pub errors: u64,
    /// Latency that 99 of 100 acknowledged operations did not exceed.
    pub p99: Option<Duration>,
}

impl Live {
    fn add(&self, operation: &Operation) {
        let latency = operation.returned.since(operation.intended);
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push((operation.returned, latency, operation.outcome));
    }

    /// Sums up the last second.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let horizon = now() - Duration::from_secs(1);
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(returned, ..)| *returned >= horizon);
        let ok = recent.iter().filter(|(_, _, outcome)| *outcome == Outcome::Ok);
        let mut latencies: Vec<Duration> = ok.map(|(_, latency, _)| *latency).collect();
        latencies.sort_unstable();
        let rank = (latencies.len() * 99).div_ceil(100).max(1);
        Pulse {
            rate: latencies.len() as u64,
            errors: (recent.len() - latencies.len()) as u64,
            p99: latencies.get(rank - 1).copied(),
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    stations: Vec<JoinHandle<io::Result<()>>>,
    collector: JoinHandle<(Vec<Operation>, Option<HistoryFile>, io::Result<()>)>,
    live: Arc<Live>,
    /// First intended start.
    started: Timestamp,
}

/// What a load leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// Every operation, in the order in which they ended.
    pub operations: Vec<Operation>,
    /// The history file that was given to [`Load::start`].
    pub history: Option<HistoryFile>,
    /// First intended start.
    pub started: Timestamp,
}

/// What all clients of a station share.
struct Shared {
    operations: mpsc::Sender<Operation>,
    stop: Arc<AtomicBool>,
    start: Instant,
    started: Timestamp,
    period: Duration,
}

impl Load {
    /// Starts the clients of every station.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        stations: &[Station],
        options: &LoadOptions,
        history: Option<HistoryFile>,
    ) -> io::Result<Self> {
        let names: Vec<String> = stations
            .iter()
            .flat_map(|station| {
                (1..=options.clients_per_station).map(|index| format!("{}-{index}", station.region))
            })
            .collect();
        let (sender, receiver) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let live = Arc::new(Live::default());
        let (start, started) = (Instant::now() + WARM_UP, now() + WARM_UP);
        let clients = u32::try_from(names.len().max(1)).unwrap_or(u32::MAX);
        let period = Duration::from_secs(1) * clients / options.rate.max(1);
        let mut threads = Vec::new();
        for (place, station) in stations.iter().enumerate() {
            let (station, options, names) = (station.clone(), options.clone(), names.clone());
            let shared = Shared {
                operations: sender.clone(),
                stop: Arc::clone(&stop),
                start,
                started,
                period,
            };
            let thread = thread::Builder::new().name(format!("clients-{}", station.region));
            let first = place * options.clients_per_station;
            threads.push(
                thread.spawn(move || run_station(&station, &options, &names, first, shared))?,
            );
        }
        drop(sender);
        let (seen, keep) = (Arc::clone(&live), options.keep);
        let collector = thread::Builder::new()
            .name("clients-history".to_owned())
            .spawn(move || collect(&receiver, &seen, keep, history))?;
        Ok(Self { stop, stations: threads, collector, live, started })
    }

    /// Returns what happens, for the live line.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Stops the schedule, waits for every operation under way and hands over all of them.
    ///
    /// # Errors
    /// A station could not enter its network, or the history could not be written.
    pub fn stop(self) -> io::Result<Finished> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = || io::Error::other("a client thread panicked");
        for station in self.stations {
            station.join().map_err(|_| panicked())??;
        }
        let (operations, history, written) = self.collector.join().map_err(|_| panicked())?;
        written?;
        Ok(Finished { operations, history, started: self.started })
    }
}

/// Returns how late operations were sent: the lateness that 999 of 1000 did not exceed.
#[must_use]
pub fn lateness<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Duration {
    let late = |operation: &Operation| operation.invoked.since(operation.intended);
    let mut lateness: Vec<Duration> = operations.into_iter().map(late).collect();
    lateness.sort_unstable();
    let rank = (lateness.len() * 999).div_ceil(1000).max(1);
    lateness.get(rank - 1).copied().unwrap_or_default()
}

/// Gathers what the clients report until the last of them has ended.
fn collect(
    receiver: &mpsc::Receiver<Operation>,
    live: &Live,
    keep: bool,
    mut history: Option<HistoryFile>,
) -> (Vec<Operation>, Option<HistoryFile>, io::Result<()>) {
    let mut operations = Vec::new();
    let mut written = Ok(());
    for operation in receiver {
        live.add(&operation);
        if let (Some(file), Ok(())) = (&mut history, &written) {
            written = file.append(&operation);
        }
        if keep {
            operations.push(operation);
        }
    }
    if let (Some(file), Ok(())) = (&mut history, &written) {
        written = file.flush();
    }
    (operations, history, written)
}

/// Runs the clients of one station on the calling thread.
fn run_station(
    station: &Station,
    options: &LoadOptions,
    names: &[String],
    first: usize,
    shared: Shared,
) -> io::Result<()> {
    (station.enter)()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Arc::new(shared);
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for index in 0..options.clients_per_station {
            let number = first + index;
            let Some(name) = names.get(number).cloned() else { continue };
            let seed = options.seed.wrapping_add(number as u64).wrapping_mul(0x9e37_79b9);
            let workload =
                Workload::new(options.traffic.clone(), &options.prefix, &name, names, seed);
            let client = Arc::new(Client::new(station.addresses(index), None));
            // Clients start one after the other within a period, so that the load is even.
            let offset = shared.period * u32::try_from(number).unwrap_or(0)
                / u32::try_from(names.len()).unwrap_or(1);
            clients.spawn(run_client(name, client, workload, offset, Arc::clone(&shared)));
        }
        while clients.join_next().await.is_some() {}
    });
    Ok(())
}

/// Keeps one client to its schedule, then waits for what is under way.
async fn run_client(
    name: String,
    client: Arc<Client>,
    workload: Workload,
    offset: Duration,
    shared: Arc<Shared>,
) {
    let returning = tokio::spawn(return_to_first(Arc::clone(&client)));
    let workload = Arc::new(Mutex::new(workload));
    let outstanding = Arc::new(AtomicUsize::new(0));
    let mut under_way = JoinSet::new();
    let mut after = offset;
    while !shared.stop.load(Ordering::Relaxed) {
        sleep_until(shared.start + after).await;
        let intended = shared.started + after;
        after += shared.period;
        // Reaps what has ended, so that the set stays small.
        while under_way.try_join_next().is_some() {}
        let intent = workload.lock().unwrap_or_else(PoisonError::into_inner).choose();
        let (client, workload) = (Arc::clone(&client), Arc::clone(&workload));
        let (outstanding, operations) = (Arc::clone(&outstanding), shared.operations.clone());
        let name = name.clone();
        under_way.spawn(async move {
            let invoked = now();
            let ending = if outstanding.fetch_add(1, Ordering::Relaxed) < OUTSTANDING_MAX {
                client.send(&intent.question()).await
            } else {
                Ending { answer: None, in_doubt: false }
            };
            outstanding.fetch_sub(1, Ordering::Relaxed);
            let times = Times { intended, invoked, returned: now() };
            let operation = intent.operation(&name, times, &ending);
            workload.lock().unwrap_or_else(PoisonError::into_inner).learn(&intent, &operation);
            // The collector lives as long as any client.
            operations.send(operation).ok();
        });
    }
    while under_way.join_next().await.is_some() {}
    returning.abort();
}

async fn return_to_first(client: Arc<Client>) {
    let mut every = interval(RETURN_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        client.try_first_again().await;
    }
}
