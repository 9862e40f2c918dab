//! Fail-over: the leader is killed, and the time counts until a put that was sent afterwards is
//! acknowledged.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::{Client, Operation, Target};
use crate::cluster::Cluster;

/// Time between two puts, whatever has become of those before: each survivor is sent one.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Longest wait for a new leader.
const RECOVER_MAX: Duration = Duration::from_secs(30);
/// Connections that are open before the kill, where each put needs one of its own.
const SPARE_CONNECTIONS: usize = 100;
/// Time between a member's return and the next kill.
const PAUSE: Duration = Duration::from_secs(1);

/// Kills the leader `times` times and returns how long each fail-over took.
pub(crate) async fn measure(cluster: &mut Cluster, times: u32) -> Result<Vec<Duration>> {
    let mut found = Vec::new();
    for _ in 0..times {
        let leader = cluster.leader().await?;
        let mut survivors = Vec::new();
        for index in (0..cluster.len()).filter(|index| *index != leader) {
            survivors.push(Survivor::open(cluster.target(index)).await?);
        }
        let killed = Instant::now();
        cluster.kill_member(leader)?;
        let first = timeout(RECOVER_MAX, first_acknowledged(&mut survivors)).await;
        let first = first.context("no put was acknowledged after the leader was killed")??;
        found.push(first - killed);
        drop(survivors);
        cluster.start_member(leader)?;
        cluster.wait_until_ready().await?;
        sleep(PAUSE).await;
    }
    Ok(found)
}

/// A member that lives on, with connections to it.
struct Survivor {
    target: Target,
    ready: Vec<Client>,
}

impl Survivor {
    async fn open(target: Target) -> Result<Self> {
        let mut ready = Client::open_many(target, SPARE_CONNECTIONS).await?;
        for client in &mut ready {
            client.carry_out(Operation::Put, 0).await.context("try a survivor")?;
        }
        Ok(Self { target, ready })
    }

    /// Takes a client for one put.
    fn client(&mut self) -> Option<Client> {
        if self.ready.len() > 1 {
            return self.ready.pop();
        }
        let last = self.ready.pop()?;
        if let Some(shared) = last.share() {
            self.ready.push(last);
            return Some(shared);
        }
        Some(last)
    }
}

/// Sends puts until the first is acknowledged. Those that fail are sent again by the next tick.
async fn first_acknowledged(survivors: &mut [Survivor]) -> Result<Instant> {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut puts = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = puts.join_next(), if !puts.is_empty() => match done {
                Ok(Some(acknowledged)) => return Ok(acknowledged),
                Ok(None) => {}
                Err(error) => bail!("a put broke off: {error}"),
            },
            _ = ticks.tick() => for survivor in survivors.iter_mut() {
                let (target, client) = (survivor.target, survivor.client());
                puts.spawn(put(target, client));
            },
        }
    }
}

/// Sends a put and returns when it was acknowledged.
async fn put(target: Target, client: Option<Client>) -> Option<Instant> {
    let mut client = match client {
        Some(client) => client,
        None => Client::open(target).await.ok()?,
    };
    client.carry_out(Operation::Put, 0).await.ok()?;
    Some(Instant::now())
}
