//! Decides on which hosts the replicas of one service run.
//!
//! A hard rule first: no host gets a second replica while another one has none. Then the spread
//! of [`evenkeel_model::dealing`]: even over regions, in them over zones, in them over hosts. What runs already
//! stays where it is unless a move makes the spread better.
//!
//! What is the same for all services stands in a [`Grid`], made once for a plan: with it, placing a
//! replica looks at each zone, not at each host.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::HostName;
use evenkeel_model::place::Host;
use evenkeel_model::system::System;

use crate::tally::{Score, Tally};

/// The hosts that may run services now, in order of preference: where each stands, and how many
/// replicas of all services it has.
#[derive(Debug, Clone)]
pub struct Grid<'a> {
    hosts: Vec<&'a Host>,
    indices: BTreeMap<&'a HostName, usize>,
    /// Of each host: its region and its zone, as indices.
    pub(crate) places: Vec<(usize, usize)>,
    pub(crate) regions: usize,
    /// Hosts that moves may go to.
    pub(crate) settled: Vec<bool>,
    load: Vec<u32>,
    /// The hosts of each zone with their load, the least loaded first.
    pub(crate) zones: Vec<BTreeSet<(u32, usize)>>,
}

impl<'a> Grid<'a> {
    /// Takes hosts in order of preference. `unsettled` are those that may be given replicas only to
    /// fill a gap, not to spread better.
    #[must_use]
    pub fn new(hosts: Vec<&'a Host>, unsettled: &BTreeSet<HostName>) -> Self {
        let mut regions = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        let mut zones: Vec<BTreeSet<(u32, usize)>> = Vec::new();
        let mut places = Vec::with_capacity(hosts.len());
        for (index, host) in hosts.iter().enumerate() {
            let next = regions.len();
            let region = *regions.entry(&host.region).or_insert(next);
            let next = numbers.len();
            let zone = *numbers.entry((&host.region, &host.zone)).or_insert(next);
            if zone == zones.len() {
                zones.push(BTreeSet::new());
            }
            if let Some(members) = zones.get_mut(zone) {
                members.insert((0, index));
            }
            places.push((region, zone));
        }
        let regions = regions.len();
        Self {
            indices: hosts.iter().enumerate().map(|(index, host)| (&host.name, index)).collect(),
            settled: hosts.iter().map(|host| !unsettled.contains(&host.name)).collect(),
            load: vec![0; hosts.len()],
            hosts,
            places,
            regions,
            zones,
        }
    }

    /// The hosts, in order of preference.
    pub fn hosts(&self) -> impl Iterator<Item = &'a Host> {
        self.hosts.iter().copied()
    }

    /// Returns the place of a host in that order.
    #[must_use]
    pub fn position(&self, host: &HostName) -> Option<usize> {
        self.indices.get(host).copied()
    }

    /// Counts one more replica on a host: the less loaded host wins a tie.
    pub fn add_load(&mut self, host: &HostName) {
        self.change_load(host, |load| load.saturating_add(1));
    }

    /// Counts one replica less on a host.
    pub fn remove_load(&mut self, host: &HostName) {
        self.change_load(host, |load| load.saturating_sub(1));
    }

    fn change_load(&mut self, host: &HostName, change: impl Fn(u32) -> u32) {
        let Some(index) = self.position(host) else { return };
        let Some((_, zone)) = self.places.get(index) else { return };
        if let (Some(load), Some(zone)) = (self.load.get_mut(index), self.zones.get_mut(*zone)) {
            zone.remove(&(*load, index));
            *load = change(*load);
            zone.insert((*load, index));
        }
    }

    /// Returns the places of hosts, of those that are here.
    pub(crate) fn positions(&self, hosts: &BTreeSet<HostName>) -> BTreeSet<usize> {
        hosts.iter().filter_map(|host| self.position(host)).collect()
    }
}

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
    /// Hosts that may run the service now.
    pub grid: &'a Grid<'a>,
    /// Hosts among them that take no new replica as long as any other can.
    pub avoided: BTreeSet<HostName>,
    /// Hosts that take no new replica at all.
    pub closed: BTreeSet<HostName>,
    /// Replicas that run on these hosts; others are ignored.
    pub current: Vec<Replica>,
    /// Most moves that may be begun to spread better.
    pub moves_max: usize,
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
        if let Some(host) = request.grid.position(&replica.host) {
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
        let Some(host) = tally.best_host(false) else { break };
        tally.add(host);
        choice.add.extend(name_of(request, host));
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
    tally: &mut Tally<'_>,
    kept: &mut Vec<(usize, &Replica)>,
    choice: &mut Choice,
) {
    while choice.add.len() < request.moves_max && !tally.is_even() {
        let before = tally.score();
        let mut best: Option<(Score, usize, usize)> = None;
        for (index, (from, _)) in kept.iter().enumerate() {
            tally.remove(*from);
            if let Some(to) = tally.best_host(true).filter(|to| tally.is_settled(*to)) {
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
        choice.add.extend(name_of(request, to));
    }
}

fn name_of(request: &Request<'_>, host: usize) -> Option<HostName> {
    request.grid.hosts.get(host).map(|host| host.name.clone())
}

/// Finds the replica whose removal leaves the best spread: on a tie one that is not ready, then
/// the newest.
fn least_useful(kept: &[(usize, &Replica)], tally: &mut Tally<'_>) -> Option<usize> {
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
