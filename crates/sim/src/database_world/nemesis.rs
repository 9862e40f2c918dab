//! What breaks, and how often: drawn anew for each seed.

use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::member::Seen;
use evenkeel_postgres_core::record::Phase;

use super::happening::Happening;
use super::postgres::{Data, Postgres, Server};
use super::{STORM, World};

/// What a seed likes to break.
#[derive(Debug)]
pub(super) struct Habits {
    /// Whether every clock is as right as the times of leases assume.
    clocks_hold: bool,
    /// How often each kind of fault comes, of all.
    weights: [u64; KINDS.len()],
    /// Longest time between two faults, in milliseconds.
    pace: u64,
    /// Whether disks are lost.
    loses_disks: bool,
    /// In how many of ten cases a change of the record is the moment at which more fails.
    ambushes: u64,
    /// How long a primary that has ended waits for another one.
    restart_after: Duration,
    /// By how much PostgreSQL and the nodes are quicker than usual: the quicker they are, the more
    /// can happen within a lease.
    haste: u64,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
enum Kind {
    KillPostgres,
    KillGuard,
    KillNode,
    Crash,
    CrashTwo,
    Stop,
    CutOff,
    CutOneWay,
    CutSite,
    StoreAway,
    OtherDirector,
    DiskStalls,
    LoseDisk,
    Handover,
    Unheard,
    Deaf,
}

const KINDS: [Kind; 16] = [
    Kind::KillPostgres,
    Kind::KillGuard,
    Kind::KillNode,
    Kind::Crash,
    Kind::CrashTwo,
    Kind::Stop,
    Kind::CutOff,
    Kind::CutOneWay,
    Kind::CutSite,
    Kind::StoreAway,
    Kind::OtherDirector,
    Kind::DiskStalls,
    Kind::LoseDisk,
    Kind::Handover,
    Kind::Unheard,
    Kind::Deaf,
];

impl Habits {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut weights = [0; KINDS.len()];
        for weight in &mut weights {
            *weight = if rng.chance(2, 3) { 1 + rng.below(4) } else { 0 };
        }
        Self {
            clocks_hold: rng.chance(4, 5),
            weights,
            pace: 200 + rng.below(1500),
            loses_disks: rng.chance(1, 4),
            ambushes: if rng.chance(1, 2) { rng.below(10) } else { 0 },
            restart_after: Duration::from_millis([0, 200, 3000][rng.index(3)]),
            haste: [1, 8][rng.index(2)],
        }
    }

    pub(super) const fn haste(&self) -> u64 {
        self.haste
    }

    pub(super) const fn restart_after(&self) -> Duration {
        self.restart_after
    }

    pub(super) const fn clocks_hold(&self) -> bool {
        self.clocks_hold
    }

    /// Draws a clock: as wrong as allowed, or far more.
    pub(super) const fn clock_rate(&self, rng: &mut Rng) -> u64 {
        if self.clocks_hold { 950 + rng.below(101) } else { 700 + rng.below(601) }
    }
}

/// Which links are cut until when.
#[derive(Debug)]
pub(super) struct Network {
    count: usize,
    cut: Vec<Timestamp>,
    /// Between hosts and directors, either way.
    cut_sites: [Vec<Timestamp>; 2],
    /// From all directors to a host.
    deaf: Vec<Timestamp>,
}

impl Network {
    pub(super) fn new(count: usize) -> Self {
        let sites = || vec![Timestamp::ZERO; count];
        Self {
            count,
            cut: vec![Timestamp::ZERO; count * count],
            cut_sites: [sites(), sites()],
            deaf: sites(),
        }
    }

    fn cut(&mut self, from: usize, to: usize, until: Timestamp) {
        self.cut[from * self.count + to] = until;
    }
}

impl World {
    /// Returns how long something takes from one host to another; `None` if it is lost.
    pub(super) fn link(&mut self, from: usize, to: usize) -> Option<Duration> {
        let lost = self.network.cut[from * self.network.count + to] > self.now
            || !self.hosts[to].is_up
            || !self.healed && self.rng.chance(1, 200);
        (!lost).then(|| self.flight())
    }

    fn flight(&mut self) -> Duration {
        if !self.healed && self.rng.chance(1, 50) {
            return self.millis(5, 60);
        }
        self.between(Duration::from_micros(100), Duration::from_millis(2))
    }

    pub(super) fn link_to_site(&mut self, host: usize, site: usize) -> Option<Duration> {
        (self.network.cut_sites[site][host] <= self.now).then(|| self.flight())
    }

    pub(super) fn link_from_site(&mut self, site: usize, host: usize) -> Option<Duration> {
        let cut = self.network.cut_sites[site][host].max(self.network.deaf[host]);
        let there = self.hosts[host].is_up && cut <= self.now;
        there.then(|| self.flight())
    }

    /// Breaks something, and plans the next.
    pub(super) fn break_something(&mut self) {
        if self.healed {
            return;
        }
        let delay = self.millis(20, self.habits.pace);
        self.after(delay, Happening::Break);
        let total: u64 = self.habits.weights.iter().sum();
        let mut drawn = self.rng.below(total);
        for (kind, weight) in KINDS.into_iter().zip(self.habits.weights) {
            if drawn < weight {
                self.strike(kind);
                return;
            }
            drawn -= weight;
        }
    }

    /// Draws a host: often the primary, about which most decisions are made.
    fn victim(&mut self) -> usize {
        if self.rng.chance(1, 2) {
            self.index(self.store.record.primary)
        } else {
            self.rng.index(self.hosts.len())
        }
    }

    fn strike(&mut self, kind: Kind) {
        let host = self.victim();
        self.faults += 1;
        let member = self.hosts[host].member;
        self.say(format_args!("{kind:?} at {member}"));
        match kind {
            Kind::KillPostgres => self.kill_postgres(host),
            Kind::KillGuard => {
                self.kill_guard(host);
                let delay = self.millis(5, 300);
                self.after(delay, Happening::StartGuard { host });
            }
            Kind::KillNode => {
                self.kill_node(host);
                let delay = self.millis(20, 1500);
                self.after(delay, Happening::StartNode { host });
            }
            Kind::Crash => self.crash_for_a_while(host),
            Kind::CrashTwo => {
                self.crash_for_a_while(host);
                let other = self.rng.index(self.hosts.len());
                self.crash_for_a_while(other);
            }
            Kind::Stop => {
                // What has waited happens when it ends, and so it ends before everything heals.
                let end = self.now + self.millis(50, 4000);
                self.hosts[host].stopped_until = end.min(Timestamp::ZERO + STORM);
            }
            Kind::CutOff => self.cut_off(host),
            Kind::CutOneWay => {
                let (other, length) = (self.rng.index(self.hosts.len()), self.millis(50, 3000));
                self.network.cut(host, other, self.now + length);
            }
            Kind::CutSite => {
                let (site, length) = (self.rng.index(2), self.millis(50, 4000));
                self.network.cut_sites[site][host] = self.now + length;
                if self.rng.chance(1, 2) {
                    self.network.cut_sites[1 - site][host] = self.now + length;
                }
            }
            Kind::StoreAway => {
                let length = self.millis(50, 3000);
                self.store_until = self.store_until.max(self.now + length);
            }
            Kind::OtherDirector => {
                let director = self.rng.index(2);
                let now = self.now;
                self.directors[director].restart(now);
            }
            Kind::DiskStalls => {
                let length = self.millis(50, 2500);
                self.hosts[host].stalled_until = self.now + length;
            }
            Kind::Unheard => {
                let until = self.now + self.millis(1000, 5000);
                let primary = self.index(self.store.record.primary);
                for site in 0..2 {
                    self.network.cut_sites[site][primary] = until;
                }
            }
            Kind::Deaf => {
                let length = self.millis(300, 5000);
                self.network.deaf[host] = self.now + length;
            }
            Kind::LoseDisk => self.lose_disk(host),
            Kind::Handover => self.hand_over(),
        }
    }

    /// The record has changed: the worst moment for something to fail.
    pub(super) fn lie_in_wait(&mut self) {
        if !self.healed && self.rng.below(10) < self.habits.ambushes {
            let most = if self.rng.chance(1, 2) { 40 } else { 400 };
            let delay = self.millis(0, most);
            self.after(delay, Happening::Ambush);
        }
    }

    /// Something happens to many at once, while a primary may live on that nobody hears.
    pub(super) fn ambush(&mut self) {
        if self.healed {
            return;
        }
        self.faults += 1;
        let (count, way) = (self.hosts.len(), self.rng.below(6));
        let led = |host: &super::host::Host| matches!(host.postgres.server, Server::Primary(_));
        let primary = self.hosts.iter().position(led);
        let others: Vec<usize> = (0..count).filter(|host| Some(*host) != primary).collect();
        self.say(format_args!("ambush {way} while {primary:?} leads"));
        match way {
            0 => self.on_some(&others, |world, host| world.crash_forgetful(host)),
            1 => self.on_some(&others, |world, host| {
                world.kill_guard(host);
                let delay = world.millis(1, 20);
                world.after(delay, Happening::StartGuard { host });
            }),
            2 => self.on_some(&others, Self::kill_postgres),
            3 => {
                let all: Vec<usize> = (0..count).collect();
                self.on_some(&all, Self::crash_for_a_while);
            }
            4 => {
                // What is decided next it does not hear.
                let length = self.millis(500, 3000);
                if let Some(primary) = primary {
                    self.network.deaf[primary] = self.now + length;
                }
            }
            _ => {
                if let Some(primary) = primary {
                    self.cut_off(primary);
                }
            }
        }
    }

    fn on_some(&mut self, hosts: &[usize], mut strike: impl FnMut(&mut Self, usize)) {
        for host in hosts {
            if self.rng.chance(2, 3) {
                strike(self, *host);
            }
        }
    }

    /// A host is soon back, and for a while hears nothing of what was decided.
    fn crash_forgetful(&mut self, host: usize) {
        self.crash(host);
        let until = self.now + self.millis(500, 3000);
        for site in 0..2 {
            self.network.cut_sites[site][host] = until;
        }
        let delay = self.millis(20, 200);
        self.after(delay, Happening::Boot { host });
    }

    fn crash_for_a_while(&mut self, host: usize) {
        self.crash(host);
        let delay = self.millis(100, 4000);
        self.after(delay, Happening::Boot { host });
    }

    /// Cuts a host off from all others, sometimes together with a second one, and sometimes from
    /// the directors as well.
    fn cut_off(&mut self, host: usize) {
        let friend = self.rng.index(self.hosts.len());
        let until = self.now + self.millis(100, 4000);
        let (one_way, sites) = (self.rng.chance(1, 4), self.rng.chance(1, 2));
        for other in 0..self.hosts.len() {
            if other == host || other == friend {
                continue;
            }
            for inner in [host, friend] {
                self.network.cut(inner, other, until);
                if !one_way {
                    self.network.cut(other, inner, until);
                }
            }
        }
        if sites {
            for site in 0..2 {
                self.network.cut_sites[site][host] = until;
            }
        }
    }

    /// A host's disk is replaced by an empty one. At most one is, and only while every voter that
    /// elections count has a copy: more is beyond what is promised.
    fn lose_disk(&mut self, host: usize) {
        let record = &self.store.record;
        let whole = self.hosts.iter().all(|host| host.is_in_place(record));
        if !self.habits.loses_disks || !whole || record.goal.set != record.counted {
            return;
        }
        self.habits.loses_disks = false;
        self.crash_for_a_while(host);
        let it = &mut self.hosts[host];
        (it.kept, it.durable) = (None, None);
        let run = it.postgres.run + 1;
        it.postgres = Postgres { run, ..Postgres::new(Data::Nothing) };
    }

    /// An operator asks for another primary.
    fn hand_over(&mut self) {
        let Seen { revision, record } = &self.store;
        if record.phase != Phase::Running || self.store_until > self.now {
            return;
        }
        let mut record = record.clone();
        let to = self.rng.index(self.hosts.len());
        record.handover = Some(self.hosts[to].member).filter(|to| *to != record.primary);
        self.store = Seen { revision: revision + 1, record };
    }

    /// Ends every fault.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        let (now, count) = (self.now, self.hosts.len());
        self.say(format_args!("everything heals"));
        self.network = Network::new(count);
        self.store_until = now;
        for host in 0..count {
            let it = &mut self.hosts[host];
            it.stalled_until = now;
            self.boot(host);
            self.start_guard(host);
            self.start_node(host);
        }
    }
}
