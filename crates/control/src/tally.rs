//! Counts the replicas of one service at every level, and finds the best host for one more.

use std::collections::BTreeSet;

use crate::placement::{Grid, Request};

/// How far a placement is from the best, compared field by field; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Replicas beside another one that could stand on an empty host.
    doubled: u64,
    /// Sum of squares of the counts of regions: least when they are even.
    regions: u64,
    /// The same for zones.
    zones: u64,
    /// The same for hosts.
    hosts: u64,
}

/// Counts of replicas at every level, kept up to date in constant time.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    grid: &'a Grid<'a>,
    exclusive: bool,
    /// Hosts that take no new replica as long as any other can, and those that take none at all.
    avoided: BTreeSet<usize>,
    closed: BTreeSet<usize>,
    hosts: Vec<u64>,
    zones: Vec<u64>,
    regions: Vec<u64>,
    /// Hosts that could take a first replica and have none.
    empty: u64,
    extra: u64,
    squares: [u64; 3],
}

/// What makes one host better than another, the most important first; less is better.
type Rank = (bool, bool, u64, u64, u64, u32, usize);

impl<'a> Tally<'a> {
    pub(crate) fn new(request: &'a Request<'_>) -> Self {
        let grid = request.grid;
        let mut tally = Self {
            grid,
            exclusive: request.exclusive,
            avoided: grid.positions(&request.avoided),
            closed: grid.positions(&request.closed),
            hosts: vec![0; grid.places.len()],
            zones: vec![0; grid.zones.len()],
            regions: vec![0; grid.regions],
            empty: 0,
            extra: 0,
            squares: [0; 3],
        };
        tally.empty = count((0..grid.places.len()).filter(|host| tally.is_open(*host)).count());
        tally
    }

    /// Returns whether a host could take a first replica.
    fn is_open(&self, host: usize) -> bool {
        self.is_settled(host) && !self.closed.contains(&host) && !self.avoided.contains(&host)
    }

    /// Returns whether moves may go to a host. Nothing moves to another one while the best of all
    /// is not settled: it would only move again.
    pub(crate) fn is_settled(&self, host: usize) -> bool {
        self.grid.settled.get(host).is_some_and(|settled| *settled)
    }

    pub(crate) fn add(&mut self, host: usize) {
        let (region, zone) = self.grid.places[host];
        let [regions, zones, hosts] = &mut self.squares;
        for (count, squares) in [
            (&mut self.regions[region], regions),
            (&mut self.zones[zone], zones),
            (&mut self.hosts[host], hosts),
        ] {
            *squares += 2 * *count + 1;
            *count += 1;
        }
        if self.hosts[host] > 1 {
            self.extra += 1;
        } else if self.is_open(host) {
            self.empty -= 1;
        }
    }

    pub(crate) fn remove(&mut self, host: usize) {
        let (region, zone) = self.grid.places[host];
        let [regions, zones, hosts] = &mut self.squares;
        for (count, squares) in [
            (&mut self.regions[region], regions),
            (&mut self.zones[zone], zones),
            (&mut self.hosts[host], hosts),
        ] {
            *squares -= 2 * *count - 1;
            *count -= 1;
        }
        if self.hosts[host] > 0 {
            self.extra -= 1;
        } else if self.is_open(host) {
            self.empty += 1;
        }
    }

    pub(crate) fn score(&self) -> Score {
        let [regions, zones, hosts] = self.squares;
        Score { doubled: self.empty.min(self.extra), regions, zones, hosts }
    }

    /// Returns whether no move can make the spread better: at every level the counts differ by one
    /// at most.
    pub(crate) fn is_even(&self) -> bool {
        let even = |counts: &[u64]| {
            let least = counts.iter().min().copied().unwrap_or(0);
            counts.iter().all(|count| *count <= least + 1)
        };
        self.score().doubled == 0 && even(&self.regions) && even(&self.zones) && even(&self.hosts)
    }

    /// Finds the host on which one more replica leaves the best spread. A replica that is only
    /// `moving` has no need to go to a host that is avoided.
    pub(crate) fn best_host(&self, moving: bool) -> Option<usize> {
        let zones = 0..self.grid.zones.len();
        zones.filter_map(|zone| self.best_in_zone(zone, moving)).min().map(|rank| rank.6)
    }

    /// Finds the best host of a zone. The hosts stand there in order of load: one that has no
    /// replica and is not avoided is not beaten by a later one.
    fn best_in_zone(&self, zone: usize, moving: bool) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        for (load, host) in &self.grid.zones[zone] {
            let (region, _) = self.grid.places[*host];
            let (count, avoided) = (self.hosts[*host], self.avoided.contains(host));
            let refuses = (self.exclusive && count > 0) || (moving && avoided);
            if refuses || self.closed.contains(host) {
                continue;
            }
            let (regions, zones) = (self.regions[region], self.zones[zone]);
            let rank = (avoided, count > 0, regions, zones, count, *load, *host);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
            if !avoided && count == 0 {
                break;
            }
        }
        best
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
