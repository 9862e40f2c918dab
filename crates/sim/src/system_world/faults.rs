//! What breaks, how often, and how it heals.

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::process::ProcessId;
use evenkeel_supervisor_core::status::ExitStatus;

use super::World;
use super::happening::{Happening, ProcessLife, Unit};

/// How many kinds of fault there are.
const KINDS: usize = 13;

/// A fault that lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A host has no power.
    Power(usize),
    /// A host's node process is dead.
    Node(usize),
    /// Links are cut.
    Cut,
    /// A host's disk is full, or slow.
    Disk(usize),
}

/// How a seed likes to break things.
#[derive(Debug)]
pub(super) struct Habits {
    /// Most milliseconds between two faults.
    every: u64,
    /// How likely each kind of fault is.
    weights: [u64; KINDS],
    /// How far a clock may be off, of 1000.
    drift: u64,
    /// Of 100 faults of a host, how many strike the one that leads.
    at_leader: u64,
}

impl Habits {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            every: [500, 1200, 3000][rng.index(3)],
            weights: std::array::from_fn(|_| rng.below(4)),
            drift: [0, 100, 100, 100, 100, 300][rng.index(6)],
            at_leader: [0, 30, 70][rng.index(3)],
        }
    }

    /// Draws what a host's clocks count while 1000 pass.
    pub(super) const fn rate(&self, rng: &mut Rng) -> u64 {
        1000 - self.drift + rng.below(2 * self.drift + 1)
    }

    /// Returns whether clocks are near enough to the true time for leases to be sure.
    pub(super) const fn clocks_hold(&self) -> bool {
        self.drift <= 100
    }
}

impl World {
    /// Breaks something, and plans to do it again.
    pub(super) fn break_something(&mut self) {
        if !self.storming {
            return;
        }
        let wait = self.draw_millis(1, self.habits.every);
        self.after(wait, Happening::Break);
        self.faults += 1;
        self.disturbed_at = self.now;
        let host = self.draw_host();
        match self.draw_kind() {
            0 if self.hosts[host].on => {
                self.power_off(host);
                self.mend_later(Fault::Power(host), 8000);
            }
            1 if self.hosts[host].node.is_some() => {
                self.kill_node(host);
                self.mend_later(Fault::Node(host), 2000);
            }
            2 => self.crash_process(host),
            3 => self.kill_shim(host),
            4 => self.pause_node(host),
            5 => self.pause_process(host),
            6 => self.cut_off(host),
            7 => self.cut_link(host),
            8 => {
                self.fill_disk(host, true);
                self.mend_later(Fault::Disk(host), 8000);
            }
            9 => {
                self.slow_disk(host, 200);
                self.mend_later(Fault::Disk(host), 8000);
            }
            10 => {
                let port = 20_000 + u16::try_from(self.rng.below(100)).unwrap_or(0);
                self.hosts[host].ports_taken.insert(port);
            }
            11 => self.hand_over(),
            12 => self.crash_gateway(host),
            _ => {}
        }
    }

    fn draw_host(&mut self) -> usize {
        let host = self.rng.index(self.hosts.len());
        let at_leader = self.rng.chance(self.habits.at_leader, 100);
        self.leading_host().filter(|_| at_leader).unwrap_or(host)
    }

    fn draw_kind(&mut self) -> usize {
        let total: u64 = self.habits.weights.iter().sum();
        let mut drawn = self.rng.below(total.max(1));
        for (kind, weight) in self.habits.weights.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        0
    }

    fn mend_later(&mut self, fault: Fault, millis_max: u64) {
        let wait = self.draw_millis(100, millis_max);
        self.after(wait, Happening::Mend(fault));
    }

    fn draw_process(&mut self, host: usize) -> Option<(ProcessId, u32)> {
        let processes = self.hosts[host].processes.iter();
        let running: Vec<(ProcessId, u32)> = processes
            .filter(|(_, process)| process.running)
            .map(|(id, process)| (id.clone(), process.pid))
            .collect();
        let drawn = self.rng.index(running.len());
        running.into_iter().nth(drawn)
    }

    fn crash_process(&mut self, host: usize) {
        if let Some((_, pid)) = self.draw_process(host) {
            self.end_process(host, pid, ExitStatus::Signal(9));
        }
    }

    fn crash_gateway(&mut self, host: usize) {
        if let Some(at) = self.process_life(host, &ProcessId::Gateway) {
            self.end_process(host, at.pid, ExitStatus::Signal(9));
        }
    }

    fn kill_shim(&mut self, host: usize) {
        if let Some((id, _)) = self.draw_process(host) {
            self.lose_shim(host, &id);
        }
    }

    fn pause_node(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            let unit = Unit::Node(self.node_life(host));
            let length = self.draw_millis(50, 3000);
            let name = &self.names[host];
            self.transcript.line(self.now, format_args!("{name}: node stops for {length:?}"));
            self.pause(unit, length);
        }
    }

    fn pause_process(&mut self, host: usize) {
        let Some((id, pid)) = self.draw_process(host) else { return };
        let length = self.draw_millis(50, 4000);
        let name = &self.names[host];
        self.transcript.line(self.now, format_args!("{name}: {id} stops for {length:?}"));
        self.pause(Unit::Process(ProcessLife { host, pid }), length);
    }

    fn cut_off(&mut self, host: usize) {
        let how = self.links.cut_off(host, &mut self.rng);
        self.transcript.line(self.now, format_args!("{} {how}", self.names[host]));
        self.note_cuts();
        self.mend_later(Fault::Cut, 6000);
    }

    fn cut_link(&mut self, host: usize) {
        let other = self.rng.index(self.hosts.len());
        if other == host {
            return;
        }
        let both = self.rng.chance(1, 2);
        let (one, two) = (&self.names[host], &self.names[other]);
        let how = if both { "and" } else { "does not reach" };
        self.transcript.line(self.now, format_args!("{one} {how} {two}: cut"));
        self.links.cut_link(host, other, both);
        self.note_cuts();
        self.mend_later(Fault::Cut, 6000);
    }

    fn fill_disk(&mut self, host: usize, full: bool) {
        self.hosts[host].disk_full = full;
        let word = if full { "is full" } else { "has room" };
        self.transcript.line(self.now, format_args!("{}: its disk {word}", self.names[host]));
        let at = self.node_life(host);
        let wait = self.draw_millis(0, 200);
        self.after(wait, Happening::LogSpace { at });
    }

    fn slow_disk(&mut self, host: usize, slowness: u64) {
        self.hosts[host].slowness = slowness;
        if let Some(member) = &mut self.hosts[host].member {
            member.disk.slowness = slowness;
        }
    }

    /// Ends a fault.
    pub(super) fn mend(&mut self, fault: Fault) {
        self.disturbed_at = self.now;
        match fault {
            Fault::Power(host) | Fault::Node(host) => self.boot(host),
            Fault::Cut => {
                self.transcript.line(self.now, format_args!("every link is whole"));
                self.note_cuts();
                self.links.mend();
            }
            Fault::Disk(host) => {
                self.slow_disk(host, 1);
                if self.hosts[host].disk_full {
                    self.fill_disk(host, false);
                }
            }
        }
    }

    /// Ends every fault for good.
    pub(super) fn heal(&mut self) {
        self.storming = false;
        self.note_cuts();
        self.links.heal(self.now);
        self.mend(Fault::Cut);
        for host in 0..self.hosts.len() {
            self.mend(Fault::Disk(host));
            self.mend(Fault::Power(host));
            self.hosts[host].ports_taken.clear();
            let processes = self.hosts[host].processes.values();
            let paused: Vec<u32> = processes.map(|process| process.pid).collect();
            for pid in paused {
                self.resume(Unit::Process(ProcessLife { host, pid }));
            }
            self.resume(Unit::Node(self.node_life(host)));
        }
        self.transcript.line(self.now, format_args!("everything has healed"));
    }

    /// Notes which links do not hold now, for what must hold on links that do.
    pub(super) fn note_cuts(&mut self) {
        let (now, count) = (self.now, self.hosts.len());
        for from in 0..count {
            for to in 0..count {
                if !self.links.linked(from, to) {
                    self.hosts[from].linked_since[to] = now;
                }
            }
        }
    }

    /// Returns since when two hosts have reached each other, `None` while they do not.
    pub(super) fn linked_since(&self, from: usize, to: usize) -> Option<Timestamp> {
        self.links.linked(from, to).then(|| self.hosts[from].linked_since[to])
    }
}
