//! Decides which other hosts are reachable from here, and how far away regions are.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::{HostName, RegionName};
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;

/// Smallest change of a region's distance that is worth new routes.
const DISTANCE_STEP: Duration = Duration::from_millis(2);

/// What probes have shown.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    window: Duration,
    probed: BTreeMap<HostName, Option<Probed>>,
    distances: BTreeMap<RegionName, Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Probed {
    answered_at: Timestamp,
    round_trip: Duration,
}

impl Reach {
    /// Starts with nobody reachable, and with the distances known earlier.
    pub(crate) fn new(
        hosts: impl Iterator<Item = HostName>,
        window: Duration,
        distances: BTreeMap<RegionName, Duration>,
    ) -> Self {
        Self { window, probed: hosts.map(|host| (host, None)).collect(), distances }
    }

    /// Follows a changed list of hosts.
    pub(crate) fn set_hosts(&mut self, hosts: impl Iterator<Item = HostName>) {
        let mut before = std::mem::take(&mut self.probed);
        self.probed = hosts
            .map(|host| {
                let probed = before.remove(&host).flatten();
                (host, probed)
            })
            .collect();
    }

    /// Takes a probe's answer in: round trips are averaged over the last eight or so.
    pub(crate) fn handle_answer(&mut self, from: &HostName, round_trip: Duration, now: Timestamp) {
        let Some(probed) = self.probed.get_mut(from) else { return };
        let round_trip = match probed {
            Some(before) if now.since(before.answered_at) < self.window => {
                (before.round_trip * 7 + round_trip) / 8
            }
            Some(_) | None => round_trip,
        };
        *probed = Some(Probed { answered_at: now, round_trip });
    }

    /// Hosts that are probed.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.probed.keys()
    }

    /// Returns the round trip to every host, `None` for one that does not answer.
    pub(crate) fn reachable(&self, now: Timestamp) -> BTreeMap<HostName, Option<Duration>> {
        let round_trip = |probed: &Option<Probed>| {
            let recent = probed.filter(|probed| now.since(probed.answered_at) < self.window);
            recent.map(|probed| probed.round_trip)
        };
        self.probed.iter().map(|(host, probed)| (host.clone(), round_trip(probed))).collect()
    }

    /// Returns the distance of every other region that ever answered: the least round trip to a
    /// host of it. A distance stays as it is until it is off by half, so that jitter makes no
    /// new routes.
    pub(crate) fn distances(
        &mut self,
        system: &System,
        own: &RegionName,
        now: Timestamp,
    ) -> &BTreeMap<RegionName, Duration> {
        let reachable = self.reachable(now);
        for region in system.regions.iter().filter(|region| *region != own) {
            let within = reachable.iter().filter(|(host, _)| {
                system.hosts.get(*host).is_some_and(|host| host.region == *region)
            });
            let Some(measured) = within.filter_map(|(_, round_trip)| *round_trip).min() else {
                continue;
            };
            let known = self.distances.entry(region.clone()).or_insert(measured);
            if measured.abs_diff(*known) > DISTANCE_STEP.max(*known / 2) {
                *known = measured;
            }
        }
        &self.distances
    }
}
