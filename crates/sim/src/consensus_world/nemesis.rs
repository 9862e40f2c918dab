//! What breaks, and how often. Each seed has its own habits.

use std::time::Duration;

use evenkeel_consensus::replica::Event;
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::random::Rng;

use super::{Happening, World};
use crate::member::Member;

/// The shortest time in which a lost disk is replaced: longer than any message is under way.
const DISK_REPLACED_MIN: Duration = Duration::from_millis(500);

/// How a seed likes to break things.
#[derive(Debug)]
pub(super) struct Habits {
    /// The longest time between two faults, in ms.
    every: u64,
    /// Of 1000 votes that have just become durable, how many are followed by a crash.
    crash_after_vote: u64,
    /// Of 1000 other writes.
    crash_after_write: u64,
    /// The longest time a host is down, in ms.
    down: u64,
    /// How likely each kind of fault is.
    weights: [u64; 8],
    /// Of 100 faults, how many are followed by the loss of a disk.
    lost_disks: u64,
    /// Draws disks, so that the rest of a seed's storm is the same with and without their loss.
    disk_rng: Rng,
    /// Of 100 faults, how many are followed by a disk that is full for a while.
    full_disks: u64,
    /// Whether clocks are near enough to the true time for leases to be sure.
    clocks_hold: bool,
    /// Draws both.
    space_rng: Rng,
}

impl Habits {
    pub(super) fn new(seed: u64, rng: &mut Rng) -> Self {
        let mut disk_rng = Rng::from_seed(!seed);
        let mut space_rng = Rng::from_seed(seed.rotate_left(32) ^ 0x5eed);
        Self {
            every: [150, 400, 1000][rng.index(3)],
            crash_after_vote: [0, 300, 600][rng.index(3)],
            crash_after_write: [0, 2, 10][rng.index(3)],
            down: [5, 40, 600][rng.index(3)],
            weights: std::array::from_fn(|_| rng.below(4)),
            lost_disks: [0, 0, 10, 40][disk_rng.index(4)],
            disk_rng,
            full_disks: [0, 0, 0, 20][space_rng.index(4)],
            clocks_hold: !space_rng.chance(1, 8),
            space_rng,
        }
    }

    /// Returns whether clocks are off by a tenth at most. Leases are made for that; all else must
    /// hold on clocks that are farther off, too.
    pub(super) const fn clocks_hold(&self) -> bool {
        self.clocks_hold
    }
}

impl World {
    /// Breaks something, and plans to do it again.
    pub(super) fn break_something(&mut self) {
        if self.healed {
            return;
        }
        let wait = Duration::from_millis(1 + self.rng.below(self.habits.every));
        self.after(wait, Happening::Break);
        self.maybe_lose_disk();
        self.maybe_fill_disk();
        let host = self.rng.index(self.hosts.len());
        match self.draw_fault() {
            0 => self.crash(host, self.habits.down),
            6 => self.crash_leader(self.habits.down),
            7 => {
                // Who led is all that the others reach, and is soon asked for its vote by each.
                if let Some(leader) = self.leader() {
                    self.network.cut_around(leader);
                    self.transcript
                        .line(self.now, format_args!("nemesis: all reach only m{}", leader + 1));
                    self.crash_leader(10);
                }
            }
            1 => self.pause(host),
            2 => {
                let cut = self.network.cut_some(&mut self.rng);
                self.transcript.line(self.now, format_args!("nemesis: {cut}"));
            }
            3 => self.network.mend(),
            4 => {
                let slowness = [1, 30, 300][self.rng.index(3)];
                self.hosts[host].disk.slowness = slowness;
            }
            _ => self.hand_over(host),
        }
    }

    fn draw_fault(&mut self) -> usize {
        let weights = self.habits.weights;
        let mut left = self.rng.below(weights.iter().sum::<u64>().max(1));
        for (fault, weight) in weights.into_iter().enumerate() {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return fault,
            }
        }
        0
    }

    /// Crashes a host that has just written something, now and then: what it wrote is durable, and
    /// what it says next is about to leave.
    pub(super) fn maybe_crash_after_write(&mut self, host: usize, voted: bool) {
        // Whoever is back before the election is over may be asked for its vote again.
        let (chance, down) = if voted {
            (self.habits.crash_after_vote, 5)
        } else {
            (self.habits.crash_after_write, self.habits.down)
        };
        if !self.healed && self.rng.chance(chance, 1000) {
            self.crash(host, down);
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |host: &Member| {
            host.process.as_ref().is_some_and(|process| process.replica.is_leader())
        };
        self.hosts.iter().position(leads)
    }

    fn crash_leader(&mut self, down: u64) {
        if let Some(host) = self.leader() {
            self.crash(host, down);
        }
    }

    /// Crashes a host that comes back within `down` ms.
    fn crash(&mut self, host: usize, down: u64) {
        if self.hosts[host].process.is_none() {
            return;
        }
        self.transcript.line(self.now, format_args!("nemesis: m{} crashes", host + 1));
        self.crashes += 1;
        self.hosts[host].crash(&mut self.rng);
        let down = Duration::from_micros(500 + self.rng.below(down * 1000));
        self.after(down, Happening::Restart { host });
    }

    /// Loses a host's disk, now and then, unless another one is still being filled: the operator
    /// who replaces a disk sees to that.
    fn maybe_lose_disk(&mut self) {
        let rng = &mut self.habits.disk_rng;
        let host = rng.index(self.hosts.len());
        let filling = self.hosts.iter().any(|host| host.disk.is_rejoining());
        if !rng.chance(self.habits.lost_disks, 100) || filling || self.hosts[host].process.is_none()
        {
            return;
        }
        self.transcript.line(self.now, format_args!("nemesis: m{} loses its disk", host + 1));
        self.crashes += 1;
        self.lost_disks += 1;
        self.hosts[host].lose_disk();
        // Nothing that the old process has sent is still under way when the new one begins.
        let down = DISK_REPLACED_MIN + Duration::from_millis(self.habits.disk_rng.below(300));
        self.after(down, Happening::Restart { host });
    }

    /// Fills a disk, now and then. A leader whose disk is full lets another voter lead.
    fn maybe_fill_disk(&mut self) {
        let rng = &mut self.habits.space_rng;
        let (host, next) = (rng.index(self.hosts.len()), rng.index(self.hosts.len()));
        if !rng.chance(self.habits.full_disks, 100) {
            return;
        }
        let length = Duration::from_millis(100 + rng.below(1500));
        self.set_space(host, true);
        self.hand_over(next);
        self.after(length, Happening::Space { host, full: false });
    }

    pub(super) fn set_space(&mut self, host: usize, full: bool) {
        self.hosts[host].disk.full = full;
        let word = if full { "is full" } else { "has room" };
        self.transcript.line(self.now, format_args!("nemesis: the disk of m{} {word}", host + 1));
    }

    fn pause(&mut self, host: usize) {
        let life = self.hosts[host].life;
        let Some(process) = &mut self.hosts[host].process else { return };
        process.paused = true;
        let pause = Duration::from_millis(10 + self.rng.below(700));
        self.transcript.line(self.now, format_args!("nemesis: m{} stops for {pause:?}", host + 1));
        self.after(pause, Happening::Resume { host, life });
    }

    /// Asks whoever leads to hand over.
    fn hand_over(&mut self, to: usize) {
        let to = MemberId(to as u64 + 1);
        for host in 0..self.hosts.len() {
            self.arrive(host, Event::TransferLeadership { to });
        }
    }

    /// Ends every fault.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.transcript.line(self.now, format_args!("nemesis: everything heals"));
        self.healed = true;
        self.network.heal();
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.slowness = 1;
            self.hosts[host].disk.full = false;
            let life = self.hosts[host].life;
            self.resume(host, life);
            // A disk that is being replaced takes its time.
            if !self.hosts[host].disk.is_rejoining() {
                self.restart(host)?;
            }
        }
        Ok(())
    }
}
