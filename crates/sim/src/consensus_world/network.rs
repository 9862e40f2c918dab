//! The network between the hosts: who reaches whom, how late, and how often.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_model::random::Rng;

/// The links between `hosts` members, one for each direction.
#[derive(Debug)]
pub(super) struct Network {
    hosts: usize,
    cut: BTreeSet<(usize, usize)>,
    /// The usual time on a link, in microseconds.
    delay_min: u64,
    delay_spread: u64,
    /// Of 1000 messages, how many are lost, come twice, or come very late.
    lost: u64,
    doubled: u64,
    late: u64,
    /// How much later, at most, in microseconds.
    later: u64,
}

impl Network {
    /// Draws what kind of network it is.
    pub(super) fn new(hosts: usize, rng: &mut Rng) -> Self {
        let delay_min = [50, 200, 5_000][rng.index(3)];
        Self {
            hosts,
            cut: BTreeSet::new(),
            delay_min,
            delay_spread: delay_min * (1 + rng.below(4)),
            lost: [0, 10, 50][rng.index(3)],
            doubled: [0, 10, 50][rng.index(3)],
            late: [0, 10, 100, 600][rng.index(4)],
            later: [30_000, 300_000][rng.index(2)],
        }
    }

    /// Returns when a message arrives, once for each time it does.
    pub(super) fn deliveries(&self, from: usize, to: usize, rng: &mut Rng) -> Vec<Duration> {
        if self.cut.contains(&(from, to)) || rng.chance(self.lost, 1000) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.chance(self.doubled, 1000));
        (0..copies).map(|_| self.delay(rng)).collect()
    }

    /// Returns how long a message takes. Messages overtake each other.
    pub(super) fn delay(&self, rng: &mut Rng) -> Duration {
        let mut micros = self.delay_min + rng.below(self.delay_spread);
        if rng.chance(self.late, 1000) {
            micros += rng.below(self.later);
        }
        Duration::from_micros(micros)
    }

    /// Cuts some links, in one of the ways in which networks break.
    pub(super) fn cut_some(&mut self, rng: &mut Rng) -> String {
        let one = rng.index(self.hosts);
        let other = (one + 1 + rng.index(self.hosts - 1)) % self.hosts;
        let others = (0..self.hosts).filter(|host| *host != one);
        match rng.below(4) {
            0 => {
                self.cut.extend(others.flat_map(|host| [(one, host), (host, one)]));
                format!("cut m{} off", one + 1)
            }
            1 => {
                self.cut.extend(others.map(|host| (one, host)));
                format!("m{} can hear, but not be heard", one + 1)
            }
            2 => {
                self.cut.insert((one, other));
                format!("cut the way from m{} to m{}", one + 1, other + 1)
            }
            _ => {
                self.cut.extend([(one, other), (other, one)]);
                format!("cut m{} from m{}", one + 1, other + 1)
            }
        }
    }

    /// Cuts every link that does not lead to `hub` or from it.
    pub(super) fn cut_around(&mut self, hub: usize) {
        let others = || (0..self.hosts).filter(|host| *host != hub);
        let links: Vec<(usize, usize)> =
            others().flat_map(|from| others().map(move |to| (from, to))).collect();
        self.cut.extend(links);
    }

    pub(super) fn mend(&mut self) {
        self.cut.clear();
    }

    /// Ends every fault for good.
    pub(super) fn heal(&mut self) {
        self.mend();
        (self.lost, self.doubled, self.late) = (0, 0, 0);
    }
}
