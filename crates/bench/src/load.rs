//! Closed-loop load: each client sends its next request when the last one is acknowledged.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_model::random::Rng;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, Manner, Operation, Target};
use crate::usage::{self, Usage};

/// Time before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time after the end in which the last answers must arrive.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Clients that fill the store.
const FILLERS: u64 = 64;
/// Failed requests of one client after which it gives up.
const FAILURES_MAX: u64 = 100;

/// What is asked of a system, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) manner: Manner,
    pub(crate) clients: usize,
    /// Requests go to keys below this, at random.
    pub(crate) keys: u64,
    pub(crate) time: Duration,
}

/// What a load has shown.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Requests that were refused or lost.
    pub(crate) failed: u64,
    /// Processor time while it ran.
    pub(crate) usage: Usage,
}

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    latencies: Vec<Duration>,
    failed: u64,
}

/// Runs a load against one member.
pub(crate) async fn run(target: Target, load: Load, processes: &[u32]) -> Result<Measured> {
    let target = Target { manner: load.manner, ..target };
    let clients = Client::open_many(target, load.clients).await?;
    let from = Instant::now() + WARM_UP;
    let until = from + load.time;
    let mut tasks = JoinSet::new();
    for (number, client) in (0_u64..).zip(clients) {
        tasks.spawn(drive(client, load, number, from, until));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = usage::snapshot(processes)?;
    tokio::time::sleep_until(until.into()).await;
    let usage = usage::snapshot(processes)?.since(&before, load.time);
    let mut all = Seen::default();
    let gather = async {
        while let Some(seen) = tasks.join_next().await {
            let seen = seen.context("a client broke off")??;
            all.latencies.extend(seen.latencies);
            all.failed += seen.failed;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(LAST_ANSWERS, gather).await.context("the last requests were not answered")??;
    let mut latencies = all.latencies;
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no request was answered");
    Ok(Measured {
        per_second: latencies.len() as f64 / load.time.as_secs_f64(),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        failed: all.failed,
        usage,
    })
}

async fn drive(
    mut client: Client,
    load: Load,
    number: u64,
    from: Instant,
    until: Instant,
) -> Result<Seen> {
    let mut rng = Rng::from_seed(number);
    let mut seen = Seen::default();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(seen);
        }
        let result = client.carry_out(load.operation, rng.below(load.keys)).await;
        let ended = Instant::now();
        if let Err(error) = result {
            seen.failed += 1;
            if seen.failed > FAILURES_MAX {
                return Err(error.context("too many requests failed"));
            }
        } else if ended >= from && ended < until {
            seen.latencies.push(ended - begun);
        }
    }
}

/// Writes every key from `from` up to `to` once.
pub(crate) async fn fill(target: Target, from: u64, to: u64) -> Result<()> {
    let clients = Client::open_many(target, usize::try_from(FILLERS)?).await?;
    let mut tasks = JoinSet::new();
    for (number, mut client) in (0..FILLERS).zip(clients) {
        tasks.spawn(async move {
            let mut key = from + number;
            while key < to {
                client.carry_out(Operation::Put, key).await.context("fill the store")?;
                key += FILLERS;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(result) => result?,
            Err(error) => bail!("a client broke off: {error}"),
        }
    }
    Ok(())
}

/// Returns the value that `percent` of all sorted values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let check = |count: u64, percent: usize, expected: u64| {
            let sorted: Vec<Duration> = (1..=count).map(Duration::from_millis).collect();
            assert_eq!(percentile(&sorted, percent), Duration::from_millis(expected));
        };
        check(100, 50, 50);
        check(100, 99, 99);
        check(1, 99, 1);
        check(10, 99, 10);
        check(0, 50, 0);
    }
}
