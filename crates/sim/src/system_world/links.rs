//! The network between hosts: who reaches whom, how late, and how often.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;

/// One link for each direction between two hosts.
#[derive(Debug)]
pub(super) struct Links {
    /// The region of each host, as a number.
    regions: Vec<usize>,
    /// The usual time from region to region, in microseconds.
    delays: Vec<Vec<u64>>,
    cut: BTreeSet<(usize, usize)>,
    /// Of 1000 packets, how many are lost, come twice, or come very late.
    lost: u64,
    doubled: u64,
    late: u64,
    /// How much later, at most, in microseconds.
    later: u64,
    /// Since when no packet is lost or late.
    calm_since: Option<Timestamp>,
}

impl Links {
    /// Draws what kind of network it is.
    pub(super) fn draw(system: &System, rng: &mut Rng) -> Self {
        let region = |host: &evenkeel_model::place::Host| {
            system.regions.iter().position(|region| *region == host.region).unwrap_or(0)
        };
        let near = [50, 200, 500][rng.index(3)];
        // Every call here opens a connection of its own: that takes one way and back more than in the
        // product, which keeps them, so the farthest are nearer.
        let far = [300, 2000, 6000][rng.index(3)];
        let count = system.regions.len();
        let mut delays = vec![vec![near; count]; count];
        let pairs = (0..count).flat_map(|left| (left + 1..count).map(move |right| (left, right)));
        for (left, right) in pairs {
            let delay = far + rng.below(far * 2);
            delays[left][right] = delay;
            delays[right][left] = delay;
        }
        Self {
            regions: system.hosts.values().map(region).collect(),
            delays,
            cut: BTreeSet::new(),
            lost: [0, 5, 50][rng.index(3)],
            doubled: [0, 10, 50][rng.index(3)],
            late: [0, 10, 50][rng.index(3)],
            later: [30_000, 300_000][rng.index(2)],
            calm_since: None,
        }
    }

    /// Returns the usual time between the hosts that are farthest from each other.
    pub(super) fn farthest(&self) -> Duration {
        Duration::from_micros(self.delays.iter().flatten().copied().max().unwrap_or(0))
    }

    /// Returns whether packets go one way.
    pub(super) fn leads(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Returns whether packets go both ways.
    pub(super) fn linked(&self, left: usize, right: usize) -> bool {
        self.leads(left, right) && self.leads(right, left)
    }

    /// Returns how long a packet takes. Packets overtake each other.
    pub(super) fn delay(&self, from: usize, to: usize, rng: &mut Rng) -> Duration {
        if from == to {
            return Duration::from_micros(20 + rng.below(100));
        }
        let usual = self.delays[self.regions[from]][self.regions[to]];
        let mut micros = usual + rng.below(usual);
        if rng.chance(self.late, 1000) {
            micros += rng.below(self.later);
        }
        Duration::from_micros(micros)
    }

    /// Returns how long bytes of a connection take: a packet that is lost is sent again.
    pub(super) fn stream(&self, from: usize, to: usize, rng: &mut Rng) -> Duration {
        let again = from != to && rng.chance(self.lost, 1000);
        self.delay(from, to, rng) + Duration::from_millis(if again { 200 } else { 0 })
    }

    /// Returns when a packet arrives, once for each time it does.
    pub(super) fn packet(&self, from: usize, to: usize, rng: &mut Rng) -> [Option<Duration>; 2] {
        if !self.leads(from, to) || rng.chance(self.lost, 1000) {
            return [None, None];
        }
        let first = self.delay(from, to, rng);
        let again = rng.chance(self.doubled, 1000);
        [Some(first), again.then(|| self.delay(from, to, rng))]
    }

    /// Cuts links of one host, or of its whole region, in one of the ways in which networks break.
    pub(super) fn cut_off(&mut self, host: usize, rng: &mut Rng) -> &'static str {
        let region = self.regions[host];
        let count = self.regions.len();
        let others = (0..count).filter(|other| *other != host);
        match rng.below(5) {
            0 => {
                self.cut.extend(others.map(|other| (host, other)));
                "is not heard"
            }
            1 => {
                self.cut.extend(others.map(|other| (other, host)));
                "hears nobody"
            }
            2 | 3 => {
                let inside = |other: usize| self.regions[other] == region;
                let links = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
                let cut: Vec<_> = links.filter(|(from, to)| inside(*from) != inside(*to)).collect();
                self.cut.extend(cut);
                "is cut off with its region"
            }
            _ => {
                self.cut.extend(others.flat_map(|other| [(host, other), (other, host)]));
                "is cut off"
            }
        }
    }

    /// Cuts the link between two hosts, or only one way of it.
    pub(super) fn cut_link(&mut self, from: usize, to: usize, both: bool) {
        self.cut.insert((from, to));
        if both {
            self.cut.insert((to, from));
        }
    }

    pub(super) fn mend(&mut self) {
        self.cut.clear();
    }

    /// Returns whether no packet was lost or late since a moment.
    pub(super) fn is_calm(&self, since: Timestamp) -> bool {
        self.lost == 0 && self.late == 0 && self.calm_since.is_none_or(|calm| calm <= since)
    }

    /// Ends every fault for good.
    pub(super) fn heal(&mut self, now: Timestamp) {
        self.mend();
        if self.lost > 0 || self.late > 0 {
            self.calm_since = Some(now);
        }
        (self.lost, self.doubled, self.late) = (0, 0, 0);
    }
}
