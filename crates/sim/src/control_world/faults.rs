//! What breaks, how often, and how it heals.

use std::collections::BTreeSet;

use evenkeel_model::random::Rng;
use evenkeel_supervisor_core::status::ExitStatus;

use super::{Happening, World};

/// A fault that lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A host has no power.
    Power(usize),
    /// A host's node process is dead.
    Node(usize),
    /// No packet leaves or reaches some hosts.
    Cut,
    /// A host's disk is full.
    Disk(usize),
}

/// The state of the network, and the habits of a seed.
#[derive(Debug)]
pub(super) struct Weather {
    /// Most milliseconds between two faults.
    every: u64,
    /// Of 1000 messages, how many are lost.
    lost: u64,
    /// Of 1000 messages, how many arrive very late.
    late: u64,
    /// How likely each kind of fault is.
    weights: [u64; 8],
    /// Pairs of hosts that do not hear each other, the lower index first.
    cut: BTreeSet<(usize, usize)>,
    calm: bool,
}

impl Weather {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            every: [800, 2000, 5000][rng.index(3)],
            lost: [0, 5, 100][rng.index(3)],
            late: [0, 10, 50][rng.index(3)],
            weights: std::array::from_fn(|_| rng.below(4)),
            cut: BTreeSet::new(),
            calm: false,
        }
    }

    pub(super) const fn lost(&self) -> u64 {
        if self.calm { 0 } else { self.lost }
    }

    pub(super) const fn late(&self) -> u64 {
        if self.calm { 0 } else { self.late }
    }
}

impl World {
    /// Returns whether two hosts hear each other.
    pub(super) fn is_linked(&self, left: usize, right: usize) -> bool {
        let pair = (left.min(right), left.max(right));
        self.hosts[left].on && self.hosts[right].on && !self.weather.cut.contains(&pair)
    }

    /// Breaks something, and plans to do it again.
    pub(super) fn break_something(&mut self) {
        if !self.storming {
            return;
        }
        let wait = self.draw_millis(1, self.weather.every);
        self.after(wait, Happening::Break);
        self.faults += 1;
        self.disturbed_at = self.now;
        let host = self.rng.index(self.hosts.len());
        match self.draw_kind() {
            0 if self.hosts[host].on => {
                self.power_off(host);
                self.mend_later(Fault::Power(host), 12_000);
            }
            1 if self.hosts[host].core.is_some() => {
                self.kill_node(host);
                self.mend_later(Fault::Node(host), 2000);
            }
            2 => self.crash_process(host),
            3 => self.cut_off(host),
            4 => {
                self.hosts[host].disk_full = true;
                self.mend_later(Fault::Disk(host), 8000);
            }
            5 => {
                let port = 20_000 + u16::try_from(self.rng.below(100)).unwrap_or(0);
                self.hosts[host].ports_taken.insert(port);
            }
            6 => self.depose(),
            7 => self.cut_link(),
            _ => {}
        }
    }

    fn draw_kind(&mut self) -> usize {
        let total: u64 = self.weather.weights.iter().sum();
        let mut drawn = self.rng.below(total.max(1));
        for (kind, weight) in self.weather.weights.iter().enumerate() {
            if drawn < *weight {
                return kind;
            }
            drawn -= *weight;
        }
        0
    }

    fn mend_later(&mut self, fault: Fault, millis_max: u64) {
        let wait = self.draw_millis(100, millis_max);
        self.after(wait, Happening::Mend(fault));
    }

    fn crash_process(&mut self, host: usize) {
        let state = &self.hosts[host];
        let running: Vec<_> =
            state.processes.iter().filter(|(_, process)| process.running).collect();
        if running.is_empty() {
            return;
        }
        let (id, process) = running[self.rng.index(running.len())];
        let (id, pid) = (id.clone(), process.pid);
        self.end_process(host, &id, pid, ExitStatus::Signal(9));
    }

    /// Cuts a host off, or its whole region.
    fn cut_off(&mut self, host: usize) {
        let whole = self.rng.chance(1, 2);
        let region = |world: &Self, host: usize| {
            world.system.hosts.get(&world.names[host]).map(|host| host.region.clone())
        };
        let inside =
            |other: usize| other == host || (whole && region(self, other) == region(self, host));
        let count = self.hosts.len();
        let pairs = (0..count).flat_map(|left| (left + 1..count).map(move |right| (left, right)));
        let cut: Vec<_> = pairs.filter(|(left, right)| inside(*left) != inside(*right)).collect();
        let name = &self.names[host];
        let what = if whole { "the region of" } else { "host" };
        self.transcript.line(self.now, format_args!("{what} {name} is cut off"));
        self.weather.cut.extend(cut);
        self.mend_later(Fault::Cut, 10_000);
    }

    /// Cuts one pair of hosts apart.
    fn cut_link(&mut self) {
        let (left, right) = (self.rng.index(self.hosts.len()), self.rng.index(self.hosts.len()));
        if left != right {
            let (one, other) = (&self.names[left], &self.names[right]);
            self.transcript.line(self.now, format_args!("{one} and {other} are cut apart"));
            self.weather.cut.insert((left.min(right), left.max(right)));
            self.mend_later(Fault::Cut, 10_000);
        }
    }

    /// Ends a fault.
    pub(super) fn mend(&mut self, fault: Fault) {
        self.disturbed_at = self.now;
        match fault {
            Fault::Power(host) | Fault::Node(host) => self.boot(host),
            Fault::Cut => {
                self.transcript.line(self.now, format_args!("every link is whole"));
                self.weather.cut.clear();
            }
            Fault::Disk(host) => self.hosts[host].disk_full = false,
        }
    }

    /// Ends every fault for good.
    pub(super) fn heal(&mut self) {
        self.storming = false;
        self.weather.calm = true;
        self.mend(Fault::Cut);
        for host in 0..self.hosts.len() {
            self.mend(Fault::Disk(host));
            self.mend(Fault::Power(host));
        }
        self.transcript.line(self.now, format_args!("everything has healed"));
    }
}
