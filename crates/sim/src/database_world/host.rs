//! A member's host: its disk, its clock, and the processes that fail by themselves.

use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::guard::{self, Guard};
use evenkeel_postgres_core::lease::{Incarnation, Message};
use evenkeel_postgres_core::member::{self, Facts, Machine, Seen};
use evenkeel_postgres_core::position::Epoch;
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::record::Record;
use evenkeel_postgres_core::settings::Defect;

use super::happening::Happening;
use super::nemesis::Habits;
use super::postgres::{Data, Postgres, Server};
use super::{TIMES, World};
use crate::clock::Clock;

/// A node process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) life: u64,
    pub(super) machine: Machine,
    /// Whether a step is being carried out.
    pub(super) is_busy: bool,
}

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) member: Member,
    pub(super) clock: Clock,
    pub(super) is_up: bool,
    /// Until when it does nothing at all, as a machine whose guest is paused.
    pub(super) stopped_until: Timestamp,
    /// Until when its disk does nothing.
    pub(super) stalled_until: Timestamp,
    /// The record on disk.
    pub(super) kept: Option<Seen>,
    /// The record that a loss of power leaves.
    pub(super) durable: Option<Seen>,
    pub(super) postgres: Postgres,
    pub(super) guard: Option<Guard>,
    /// Counts guards.
    pub(super) guards: u64,
    pub(super) node: Option<Node>,
    /// Counts nodes.
    pub(super) nodes: u64,
    /// Whether a rewind or a clone runs, which ends with its node.
    pub(super) copies: bool,
    /// What the relay was told: the epoch and run that clients may speak with.
    pub(super) open: Option<(Epoch, u64)>,
    pub(super) defect: Option<Defect>,
}

impl Host {
    pub(super) fn new(
        member: Member,
        store: &Seen,
        habits: &Habits,
        rng: &mut Rng,
        defect: Option<Defect>,
    ) -> Self {
        let mut postgres = Postgres::new(Data::Whole);
        if store.record.primary == member {
            postgres.led = Some(postgres.timeline);
        }
        Self {
            member,
            clock: Clock { origin: Timestamp::ZERO, rate: habits.clock_rate(rng) },
            is_up: false,
            stopped_until: Timestamp::ZERO,
            stalled_until: Timestamp::ZERO,
            kept: Some(store.clone()),
            durable: Some(store.clone()),
            postgres,
            guard: None,
            guards: 0,
            node: None,
            nodes: 0,
            copies: false,
            open: None,
            defect,
        }
    }

    /// Returns what its node sees.
    pub(super) fn facts(&self, now: Timestamp) -> Facts {
        let history = self.kept.as_ref().map(|kept| &kept.record.history);
        let (data, server) = self.postgres.facts(history);
        let now = self.clock.read(now);
        let guard = self.guard.as_ref().map(|guard| member::Guard {
            promised: guard.promised(),
            ready: guard.ready(now),
            leased: guard.lease(now).map(|(epoch, _)| epoch),
            goal: guard.goal(),
        });
        Facts { kept: self.kept.clone(), data, server, guard }
    }

    /// Returns whether it is what the record says that it should be.
    pub(super) fn is_in_place(&self, record: &Record) -> bool {
        match &self.postgres.server {
            Server::Primary(primary) => {
                record.primary == self.member && primary.epoch == record.epoch
            }
            Server::Standby(standby) => {
                standby.receives && standby.upstream == Some((record.primary, record.epoch))
            }
            Server::Down | Server::Busy => false,
        }
    }

    /// Returns how long the disk takes for something that takes `usual`.
    pub(super) fn disk_delay(&self, usual: Duration, now: Timestamp) -> Duration {
        self.stalled_until.since(now) + usual
    }
}

impl World {
    /// Starts a host with everything on it.
    pub(super) fn boot(&mut self, host: usize) {
        if self.hosts[host].is_up {
            return;
        }
        self.hosts[host].is_up = true;
        self.hosts[host].clock.origin = self.now;
        let member = self.hosts[host].member;
        self.say(format_args!("{member} starts"));
        self.start_guard(host);
        let delay = self.millis(5, 50);
        self.after(delay, Happening::StartNode { host });
    }

    pub(super) fn start_guard(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        if !it.is_up || it.guard.is_some() {
            return;
        }
        it.guards += 1;
        let settings = guard::Settings {
            times: TIMES,
            promised: it.kept.as_ref().map(|kept| kept.record.epoch),
            first: Incarnation(it.guards << 32),
            defect: it.defect,
        };
        it.guard = Some(Guard::new(settings, it.clock.read(now)));
    }

    pub(super) fn start_node(&mut self, host: usize) {
        if self.calm_since.is_some() {
            return;
        }
        let it = &mut self.hosts[host];
        if !it.is_up || it.node.is_some() {
            return;
        }
        it.nodes += 1;
        let life = it.nodes;
        let settings = member::Settings {
            member: it.member,
            restart_after: self.habits.restart_after(),
            defect: it.defect,
        };
        it.node = Some(Node { life, machine: Machine::new(settings), is_busy: false });
        self.after(Duration::ZERO, Happening::Look { host, life });
    }

    /// PostgreSQL ends, and perhaps more of it than its log on disk.
    pub(super) fn kill_postgres(&mut self, host: usize) {
        let unflushed = self.hosts[host].postgres.log.len() - self.hosts[host].postgres.flushed;
        let kept = self.rng.index(unflushed + 1);
        let it = &mut self.hosts[host];
        if matches!(it.postgres.server, Server::Down) {
            return;
        }
        it.postgres.lose_power(kept);
        let (member, length) = (it.member, it.postgres.log.len());
        self.say(format_args!("{member}: PostgreSQL ends at {length}"));
        self.guard_event(host, guard::Event::Ended);
    }

    pub(super) fn kill_guard(&mut self, host: usize) {
        self.hosts[host].guard = None;
        self.kill_postgres(host);
    }

    pub(super) fn kill_node(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.node = None;
        if it.copies {
            it.copies = false;
            it.postgres.run += 1;
        }
    }

    /// The host loses its power.
    pub(super) fn crash(&mut self, host: usize) {
        self.kill_node(host);
        self.hosts[host].guard = None;
        self.kill_postgres(host);
        let it = &mut self.hosts[host];
        it.kept = it.durable.clone();
        (it.is_up, it.open) = (false, None);
        (it.stopped_until, it.stalled_until) = (self.now, self.now);
    }

    /// Hands something to a guard, if there is one.
    pub(super) fn guard_event(&mut self, host: usize, event: guard::Event) {
        let now = self.hosts[host].clock.read(self.now);
        if let Some(guard) = &mut self.hosts[host].guard {
            guard.handle_event(event, now);
        }
        self.run_guard(host);
    }

    pub(super) fn tell_guard(&mut self, host: usize, from: Member, message: Message) {
        self.guard_event(host, guard::Event::Message { from, message });
    }

    pub(super) fn wake(&mut self, host: usize, life: u64) {
        let it = &mut self.hosts[host];
        if it.guards != life {
            return;
        }
        let now = it.clock.read(self.now);
        if let Some(guard) = &mut it.guard {
            guard.handle_timeout(now);
        }
        self.run_guard(host);
    }

    /// Carries out what a guard wants, and wakes it up again in time. Returns whether it agrees
    /// that PostgreSQL becomes the primary.
    pub(super) fn run_guard(&mut self, host: usize) -> bool {
        let mut agrees = false;
        while let Some(action) = self.hosts[host].guard.as_mut().and_then(Guard::poll_action) {
            match action {
                guard::Action::Send { to, message } => {
                    let to = self.index(to);
                    if let Some(delay) = self.link(host, to) {
                        self.after(delay, Happening::Say { from: host, to, message });
                    }
                }
                guard::Action::Kill => {
                    let life = self.hosts[host].guards;
                    let most = u64::try_from(TIMES.kill_max.as_millis()).unwrap_or(0);
                    let delay = self.millis(1, most * 9 / 10);
                    let member = self.hosts[host].member;
                    self.say(format_args!("{member}: the lease ends"));
                    self.after(delay, Happening::Killed { host, life });
                }
                guard::Action::Serve { .. } => agrees = true,
            }
        }
        let it = &self.hosts[host];
        if let Some(at) = it.guard.as_ref().and_then(Guard::poll_timeout) {
            let at = it.clock.reaches(at);
            let life = it.guards;
            let delay = at.since(self.now) + Duration::from_micros(50);
            self.after(delay, Happening::Wake { host, life });
        }
        agrees
    }

    /// The guard's kill takes effect, if what it was meant for has not ended by itself.
    pub(super) fn killed(&mut self, host: usize, life: u64) {
        let it = &self.hosts[host];
        if it.guards == life && it.guard.as_ref().is_some_and(Guard::is_killing) {
            self.kill_postgres(host);
        }
    }
}
