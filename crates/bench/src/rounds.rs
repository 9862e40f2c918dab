//! The course of a comparison: both systems in turn, each on an empty folder of its own.
#![expect(clippy::print_stdout, reason = "tells how far it is")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::client::{Manner, Operation};
use crate::cluster::Cluster;
use crate::load::{self, Load, Measured};
use crate::report::{Better, Figures, Side, Used};
use crate::system::{Programs, System, Timings};
use crate::{failover, usage};

/// The two that are compared; `Short` takes part in fail-overs alone.
const SYSTEMS: [System; 2] = [System::Evenkeel, System::Etcd(Timings::Default)];
/// Keys that requests go to.
const KEYS: u64 = 1000;
/// Members of a system, except where growth is measured.
const MEMBERS: usize = 3;
/// Kills of one system in a row, before it is another one's turn.
const KILLS_IN_A_ROW: u32 = 5;
/// Time to come to rest after a load, and over which an idle system is watched.
const REST: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(10);
/// Keys and members over which growth is measured.
const GROWN_KEYS: [u64; 3] = [1000, 10_000, 100_000];
const GROWN_MEMBERS: [usize; 2] = [5, 7];

/// The loads of a round.
const LOADS: [(Operation, usize); 4] =
    [(Operation::Put, 1), (Operation::Put, 64), (Operation::Put, 256), (Operation::Get, 64)];
/// Those that Evenkeel carries in another manner too.
const OWN_LOADS: [(Operation, usize); 2] = [(Operation::Put, 256), (Operation::Get, 64)];

/// A comparison under way.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) programs: Programs,
    /// Where the data of the running system is.
    pub(crate) folder: PathBuf,
    pub(crate) time: Duration,
    pub(crate) figures: Figures,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) used: Vec<Used>,
}

impl Course {
    /// Measures both systems once.
    pub(crate) async fn round(&mut self) -> Result<()> {
        for system in SYSTEMS {
            let cluster = self.start(system, MEMBERS).await?;
            let leader = self.lead(&cluster, KEYS).await?;
            for (operation, clients) in LOADS {
                let keys = KEYS;
                let load =
                    Load { operation, manner: Manner::Shared, clients, keys, time: self.time };
                let name = format!("{}, {}", label(operation), count(clients));
                let measured = self.run(&cluster, leader, load, &name).await?;
                self.note(side(system), &name, &measured);
            }
            let own = OWN_LOADS.iter().filter(|_| system == System::Evenkeel);
            for (operation, clients) in own.copied() {
                let load =
                    Load { operation, manner: Manner::Own, clients, keys: KEYS, time: self.time };
                let name = format!("{} by HTTP/1.1, {}", label(operation), count(clients));
                let measured = self.run(&cluster, leader, load, &name).await?;
                self.note(side(system), &name, &measured);
            }
            self.idle(&cluster).await?;
        }
        Ok(())
    }

    /// Kills each system's leader `times` times, and returns how long that took in ms.
    pub(crate) async fn failovers(&self, times: u32) -> Result<BTreeMap<String, Vec<f64>>> {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut left = times;
        while left > 0 {
            let kills = left.min(KILLS_IN_A_ROW);
            for system in
                [System::Evenkeel, System::Etcd(Timings::Default), System::Etcd(Timings::Short)]
            {
                let mut cluster = self.start(system, MEMBERS).await?;
                let took = failover::measure(&mut cluster, kills).await;
                let took = took.with_context(|| format!("measure the fail-over of {system}"))?;
                let millis: Vec<f64> =
                    took.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
                println!("  {system}: fail-overs in ms {millis:.0?}");
                found.entry(system.to_string()).or_default().extend(millis);
            }
            left -= kills;
        }
        Ok(found)
    }

    /// Measures how puts get slower with keys and with members.
    pub(crate) async fn growth(&mut self) -> Result<()> {
        for system in SYSTEMS {
            let cluster = self.start(system, MEMBERS).await?;
            let leader = cluster.leader().await?;
            let mut keys = 0;
            for more in GROWN_KEYS {
                load::fill(cluster.target(leader), keys, more).await?;
                keys = more;
                self.grown(&cluster, leader, keys, &format!("{keys} keys")).await?;
            }
        }
        for members in GROWN_MEMBERS {
            for system in SYSTEMS {
                let cluster = self.start(system, members).await?;
                let leader = self.lead(&cluster, KEYS).await?;
                self.grown(&cluster, leader, KEYS, &format!("{members} members")).await?;
            }
        }
        Ok(())
    }

    async fn grown(
        &mut self,
        cluster: &Cluster,
        leader: usize,
        keys: u64,
        what: &str,
    ) -> Result<()> {
        for clients in [1, 64] {
            let (operation, manner) = (Operation::Put, Manner::Shared);
            let load = Load { operation, manner, clients, keys, time: self.time };
            let name = format!("{what}, puts, {}", count(clients));
            let measured = self.run(cluster, leader, load, &name).await?;
            self.note(side(cluster.system), &name, &measured);
        }
        Ok(())
    }

    async fn start(&self, system: System, members: usize) -> Result<Cluster> {
        let cluster = Cluster::start(system, members, &self.programs, &self.folder).await;
        cluster.with_context(|| format!("start {members} members of {system}"))
    }

    /// Fills the store and returns who leads.
    async fn lead(&self, cluster: &Cluster, keys: u64) -> Result<usize> {
        let leader = cluster.leader().await?;
        load::fill(cluster.target(leader), 0, keys).await?;
        Ok(leader)
    }

    async fn run(
        &mut self,
        cluster: &Cluster,
        leader: usize,
        load: Load,
        name: &str,
    ) -> Result<Measured> {
        let target = cluster.target(leader);
        let measured = load::run(target, load, &cluster.processes()).await;
        let measured = measured.with_context(|| format!("{}: {name}", cluster.system))?;
        println!(
            "  {}: {name}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            cluster.system,
            measured.per_second,
            millis(measured.p50),
            millis(measured.p99)
        );
        *self.failed.entry(cluster.system.to_string()).or_default() += measured.failed;
        self.used.push(Used {
            system: cluster.system.to_string(),
            run: name.to_owned(),
            leader,
            usage: measured.usage.clone(),
        });
        Ok(measured)
    }

    fn note(&mut self, side: Side, name: &str, measured: &Measured) {
        let Measured { per_second, p50, p99, .. } = *measured;
        let mut add = |what: &str, unit, better, value| {
            self.figures.add(side, &format!("{name}{what}"), unit, better, value);
        };
        add("", "op/s", Better::Higher, per_second);
        add(": p50", "ms", Better::Lower, millis(p50));
        add(": p99", "ms", Better::Lower, millis(p99));
    }

    /// Watches what a system uses when nobody asks it anything.
    async fn idle(&mut self, cluster: &Cluster) -> Result<()> {
        sleep(REST).await;
        let members = cluster.processes();
        // A host of Evenkeel also runs a gateway and its shim, which etcd has no counterpart of.
        let others = usage::others_on(cluster.folder(), &members)?;
        let all: Vec<u32> = members.iter().chain(&others).copied().collect();
        let before = usage::snapshot(&all)?;
        sleep(IDLE).await;
        let used = usage::snapshot(&all)?.since(&before, IDLE);
        let share = 1.0 / members.len() as f64;
        let (of_members, of_others) = used.processes.split_at(members.len());
        let sum = |used: &[usage::Percent]| used.iter().map(|one| one.total).sum::<f64>() * share;
        let memory = |pids: &[u32]| -> Result<f64> {
            let bytes: u64 = pids.iter().map(|pid| usage::resident(*pid)).sum::<Result<u64>>()?;
            Ok(bytes as f64 / f64::from(1 << 20) * share)
        };
        let side = side(cluster.system);
        let (cpu, mib) = ("% of a core", "MiB");
        let mut add = |name, unit, value| {
            self.figures.add(side, name, unit, Better::Lower, value);
        };
        add("idle processor time of a member", cpu, sum(of_members));
        add("memory of a member after the load", mib, memory(&members)?);
        if side == Side::Evenkeel {
            add("idle processor time of its gateway and shim", cpu, sum(of_others));
            add("memory of its gateway and shim", mib, memory(&others)?);
        }
        Ok(())
    }
}

const fn side(system: System) -> Side {
    match system {
        System::Evenkeel => Side::Evenkeel,
        System::Etcd(_) => Side::Etcd,
    }
}

const fn label(operation: Operation) -> &'static str {
    match operation {
        Operation::Put => "puts",
        Operation::Get => "linearizable gets",
    }
}

fn count(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
