//! Decides on which hosts the replicas of one service run.
//!
//! A hard rule first: no host gets a second replica while another one has none. Then the spread
//! of [`evenkeel_model::dealing`]: even over regions, in them over zones, in them over hosts. What runs already
//! stays where it is unless a move makes the spread better.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::HostName;
use evenkeel_model::place::Host;
use evenkeel_model::system::System;

/// A replica that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub id: InstanceId,
    /// Where it runs.
    pub host: HostName,
    /// Whether it is ready.
    pub ready: bool,
}

/// Everything that decides the placement of one service.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Wanted replicas.
    pub replicas: u32,
    /// Whether a host takes at most one replica, as with a fixed port.
    pub exclusive: bool,
    /// Hosts that may run the service now, in order of preference.
    pub hosts: Vec<&'a Host>,
    /// Hosts among them that may be given replicas only to fill a gap, not to spread better.
    pub unsettled: BTreeSet<HostName>,
    /// Hosts among them that take no new replica as long as any other can.
    pub avoided: BTreeSet<HostName>,
    /// Hosts that take no new replica at all.
    pub closed: BTreeSet<HostName>,
    /// Replicas that run on `hosts`; others are ignored.
    pub current: Vec<Replica>,
    /// Most moves that may be begun to spread better.
    pub moves_max: usize,
    /// Replicas of all services on each host: the less loaded host wins a tie.
    pub load: BTreeMap<HostName, u32>,
}

/// Where the replicas are to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Replicas that stay.
    pub keep: Vec<InstanceId>,
    /// Hosts of new replicas, one entry each.
    pub add: Vec<HostName>,
    /// Replicas that are not needed once all others are ready.
    pub surplus: Vec<InstanceId>,
}

/// Lists the hosts that may run services: regions in the order of the file, hosts by name.
#[must_use]
pub fn service_hosts(system: &System) -> Vec<&Host> {
    let mut hosts: Vec<&Host> = system.service_hosts().collect();
    hosts.sort_by_key(|host| system.regions.iter().position(|region| *region == host.region));
    hosts
}

/// Places one service: the same request always gets the same choice.
#[must_use]
pub fn place(request: &Request<'_>) -> Choice {
    let mut tally = Tally::new(request);
    let mut kept: Vec<(usize, &Replica)> = Vec::new();
    for replica in &request.current {
        if let Some(host) = request.hosts.iter().position(|host| host.name == replica.host) {
            tally.add(host);
            kept.push((host, replica));
        }
    }
    let wanted = usize::try_from(request.replicas).unwrap_or(usize::MAX);
    let mut choice = Choice::default();
    while kept.len() > wanted {
        let Some(index) = least_useful(&kept, &mut tally) else { break };
        let (host, replica) = kept.remove(index);
        tally.remove(host);
        choice.surplus.push(replica.id.clone());
    }
    let whole = choice.surplus.is_empty() && kept.len() == wanted;
    while kept.len() + choice.add.len() < wanted {
        let Some(host) = tally.best_host(request, false) else { break };
        tally.add(host);
        choice.add.extend(request.hosts.get(host).map(|host| host.name.clone()));
    }
    if whole {
        spread(request, &mut tally, &mut kept, &mut choice);
    }
    choice.keep = kept.into_iter().map(|(_, replica)| replica.id.clone()).collect();
    choice
}

/// Moves replicas, one after the other, as long as each move makes the spread better.
fn spread(
    request: &Request<'_>,
    tally: &mut Tally,
    kept: &mut Vec<(usize, &Replica)>,
    choice: &mut Choice,
) {
    while choice.add.len() < request.moves_max {
        let before = tally.score();
        let mut best: Option<(Score, usize, usize)> = None;
        for (index, (from, _)) in kept.iter().enumerate() {
            tally.remove(*from);
            if let Some(to) = tally.best_host(request, true).filter(|to| tally.settled[*to]) {
                tally.add(to);
                let score = tally.score();
                tally.remove(to);
                if score < before && best.is_none_or(|(least, _, _)| score < least) {
                    best = Some((score, index, to));
                }
            }
            tally.add(*from);
        }
        let Some((_, index, to)) = best else { break };
        let (from, replica) = kept.remove(index);
        tally.remove(from);
        tally.add(to);
        choice.surplus.push(replica.id.clone());
        choice.add.extend(request.hosts.get(to).map(|host| host.name.clone()));
    }
}

/// Finds the replica whose removal leaves the best spread: on a tie one that is not ready, then
/// the newest.
fn least_useful(kept: &[(usize, &Replica)], tally: &mut Tally) -> Option<usize> {
    let mut best = None;
    for (index, (host, replica)) in kept.iter().enumerate() {
        tally.remove(*host);
        let key = (tally.score(), replica.ready, std::cmp::Reverse(replica.id.serial));
        tally.add(*host);
        if best.as_ref().is_none_or(|(least, _)| key < *least) {
            best = Some((key, index));
        }
    }
    best.map(|(_, index)| index)
}

/// How far a placement is from the best, compared field by field; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
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
struct Tally {
    /// Of each host: its region and zone as indices into the counts below.
    places: Vec<(usize, usize)>,
    hosts: Vec<u64>,
    zones: Vec<u64>,
    regions: Vec<u64>,
    /// Hosts that could take a first replica.
    open: Vec<bool>,
    /// Hosts that moves may go to. Nothing moves to another one while the best of all is not
    /// settled: it would only move again.
    settled: Vec<bool>,
    empty: u64,
    extra: u64,
    squares: [u64; 3],
}

impl Tally {
    fn new(request: &Request<'_>) -> Self {
        let mut regions = Vec::new();
        let mut zones = Vec::new();
        let mut places = Vec::new();
        for host in &request.hosts {
            places.push((
                index_of(&mut regions, &host.region),
                index_of(&mut zones, &(&host.region, &host.zone)),
            ));
        }
        let takes = |host: &&Host| {
            !request.closed.contains(&host.name)
                && !request.unsettled.contains(&host.name)
                && !request.avoided.contains(&host.name)
        };
        let open: Vec<bool> = request.hosts.iter().map(takes).collect();
        let settled = request.hosts.iter().map(|host| !request.unsettled.contains(&host.name));
        Self {
            settled: settled.collect(),
            empty: count(open.iter().filter(|open| **open).count()),
            hosts: vec![0; places.len()],
            zones: vec![0; zones.len()],
            regions: vec![0; regions.len()],
            places,
            open,
            extra: 0,
            squares: [0; 3],
        }
    }

    fn add(&mut self, host: usize) {
        let (region, zone) = self.places[host];
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
        } else if self.open[host] {
            self.empty -= 1;
        }
    }

    fn remove(&mut self, host: usize) {
        let (region, zone) = self.places[host];
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
        } else if self.open[host] {
            self.empty += 1;
        }
    }

    fn score(&self) -> Score {
        let [regions, zones, hosts] = self.squares;
        Score { doubled: self.empty.min(self.extra), regions, zones, hosts }
    }

    /// Finds the host on which one more replica leaves the best spread. A replica that is only
    /// `moving` has no need to go to a host that is avoided.
    fn best_host(&self, request: &Request<'_>, moving: bool) -> Option<usize> {
        let takes = |(index, host): &(usize, &&Host)| {
            let exclusive = request.exclusive && self.hosts[*index] > 0;
            let avoided = moving && request.avoided.contains(&host.name);
            !(exclusive || avoided || request.closed.contains(&host.name))
        };
        let candidates = request.hosts.iter().enumerate().filter(takes);
        let best = candidates.min_by_key(|(index, host)| {
            let (region, zone) = self.places[*index];
            let load = request.load.get(&host.name).copied().unwrap_or(0);
            (
                request.avoided.contains(&host.name),
                self.hosts[*index] > 0,
                self.regions[region],
                self.zones[zone],
                self.hosts[*index],
                u64::from(load),
                *index,
            )
        });
        best.map(|(index, _)| index)
    }
}

/// Returns the index of `item` in `items`, which it joins when it is new.
fn index_of<T: PartialEq + Clone>(items: &mut Vec<T>, item: &T) -> usize {
    items.iter().position(|known| known == item).unwrap_or_else(|| {
        items.push(item.clone());
        items.len() - 1
    })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
