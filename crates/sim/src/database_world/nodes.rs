//! Nodes look around, decide and carry out: the shell of the member's machine.

use std::time::Duration;

use evenkeel_postgres_core::guard;
use evenkeel_postgres_core::member::{Action, Seen};
use evenkeel_postgres_core::position::Epoch;
use evenkeel_postgres_core::record::Phase;
use evenkeel_postgres_core::settings::Defect;

use super::World;
use super::happening::Happening;
use super::postgres::{Entry, Name, Server, Standby};

impl World {
    pub(super) fn hear(&mut self, host: usize, seen: Seen) {
        if let Some(node) = &mut self.hosts[host].node {
            node.machine.hear(seen);
        }
    }

    /// A node looks around, and again soon.
    pub(super) fn look(&mut self, host: usize, life: u64) -> Result<(), String> {
        if self.hosts[host].node.as_ref().is_none_or(|node| node.life != life) {
            return Ok(());
        }
        let delay = self.effort(40, 100).max(Duration::from_millis(6));
        self.after(delay, Happening::Look { host, life });
        self.look_once(host)
    }

    fn look_once(&mut self, host: usize) -> Result<(), String> {
        let (now, member) = (self.now, self.hosts[host].member);
        let facts = self.hosts[host].facts(now);
        let it = &mut self.hosts[host];
        let local = it.clock.read(now);
        let Some(node) = &mut it.node else { return Ok(()) };
        let action = if node.is_busy { None } else { node.machine.decide(&facts, local) };
        node.is_busy |= action.is_some();
        let (open, report) = (node.machine.open(&facts), node.machine.report(&facts));
        if open != it.open {
            it.open = open;
            if let Some((epoch, _)) = open {
                self.opened(host, epoch)?;
            }
        }
        if let Some(report) = report {
            for director in 0..self.directors.len() {
                if let Some(delay) = self.link_to_site(host, director) {
                    let report = report.clone();
                    self.after(delay, Happening::Report { director, member, report });
                }
            }
        }
        if let Some(action) = action {
            if let Action::Keep(seen) = &action {
                let (revision, epoch) = (seen.revision, seen.record.epoch);
                self.say(format_args!("{member} keeps revision {revision}, epoch {epoch}"));
            } else {
                self.say(format_args!("{member}: {action:?}"));
            }
            self.start(host, action);
        }
        Ok(())
    }

    fn opened(&mut self, host: usize, epoch: Epoch) -> Result<(), String> {
        let member = self.hosts[host].member;
        self.say(format_args!("{member} serves as the primary of epoch {epoch}"));
        self.truth.opened(epoch, self.now);
        self.truth.check_holds(&self.hosts[host].postgres, "the primary that begins to serve")
    }

    /// Begins a step. Its end comes always; its effect only if nothing has come between.
    fn start(&mut self, host: usize, action: Action) {
        let it = &mut self.hosts[host];
        let Some(life) = it.node.as_ref().map(|node| node.life) else { return };
        let delay = match &action {
            Action::Keep(_) => {
                let usual = self.millis(1, 5);
                self.hosts[host].disk_delay(usual, self.now)
            }
            Action::Promise(epoch) => {
                let epoch = *epoch;
                self.guard_event(host, guard::Event::Promise { epoch });
                Duration::from_millis(1)
            }
            Action::Reign(epoch, goal) => {
                let (epoch, goal) = (*epoch, goal.clone());
                self.guard_event(host, guard::Event::Reign { epoch, goal });
                Duration::from_millis(1)
            }
            Action::Follow(_) => self.begin_follow(host),
            Action::Promote(epoch, ..) => self.begin_serving(host, *epoch, (100, 250)),
            Action::Restart(epoch, ..) => self.begin_serving(host, *epoch, (200, 800)),
            Action::Acknowledge(_, goal) => {
                if let Server::Primary(primary) = &mut it.postgres.server {
                    primary.goal = goal.clone();
                    // Each sender reads the set when it starts.
                    primary.senders.clear();
                }
                self.millis(1, 30)
            }
            Action::Stop => self.begin_stop(host),
            Action::Rewind(from) | Action::Clone(from) => self.begin_copy(host, *from),
        };
        let run = self.hosts[host].postgres.run;
        self.after(delay, Happening::Arrived { host, run, action: action.clone() });
        self.after(delay, Happening::Done { host, life, action });
    }

    /// A step has ended, whatever came of it.
    pub(super) fn done(&mut self, host: usize, life: u64, action: Action) -> Result<(), String> {
        let it = &mut self.hosts[host];
        let Some(node) = it.node.as_mut().filter(|node| node.life == life) else { return Ok(()) };
        node.is_busy = false;
        if let Action::Keep(seen) = action {
            let forgets =
                it.defect == Some(Defect::PromiseNotDurable) && seen.record.phase != Phase::Running;
            if !forgets {
                it.durable = Some(seen.clone());
            }
            it.kept = Some(seen);
        }
        it.copies = false;
        self.look_once(host)
    }

    fn begin_follow(&mut self, host: usize) -> Duration {
        let postgres = &mut self.hosts[host].postgres;
        match postgres.server {
            Server::Down => {
                postgres.run += 1;
                postgres.server = Server::Busy;
                let usual = self.effort(50, 300);
                self.hosts[host].disk_delay(usual, self.now)
            }
            Server::Busy | Server::Standby(_) | Server::Primary(_) => self.millis(1, 30),
        }
    }

    /// Asks the guard, and begins to become the primary if it agrees.
    fn begin_serving(&mut self, host: usize, epoch: Epoch, (from, to): (u64, u64)) -> Duration {
        let delay = self.effort(from, to);
        let now = self.hosts[host].clock.read(self.now);
        if let Some(guard) = &mut self.hosts[host].guard {
            guard.handle_event(guard::Event::Serve { epoch }, now);
        }
        if self.run_guard(host) {
            let postgres = &mut self.hosts[host].postgres;
            postgres.run += 1;
            postgres.server = Server::Busy;
        }
        delay
    }

    /// No more writes; the last record; whoever receives gets it.
    fn begin_stop(&mut self, host: usize) -> Duration {
        let Server::Primary(primary) = &mut self.hosts[host].postgres.server else {
            return Duration::from_millis(1);
        };
        if primary.stopping {
            return Duration::from_millis(100);
        }
        primary.stopping = true;
        let entry = Entry { epoch: primary.epoch, write: None };
        self.hosts[host].postgres.log.push(entry);
        self.flush(host);
        self.effort(200, 600)
    }

    /// PostgreSQL has come to where a step wanted it.
    pub(super) fn arrived(&mut self, host: usize, run: u64, action: Action) -> Result<(), String> {
        if self.hosts[host].postgres.run != run || !self.hosts[host].is_up {
            return Ok(());
        }
        match action {
            Action::Follow(upstream) => self.followed(host, upstream),
            Action::Promote(epoch, timeline, goal) => {
                let postgres = &mut self.hosts[host].postgres;
                if matches!(postgres.server, Server::Busy) {
                    let by_itself = self.options.defect == Some(Defect::TimelineByItself);
                    let timeline = if by_itself { postgres.own_timeline() } else { timeline };
                    postgres.promote(epoch, timeline, goal);
                }
            }
            Action::Restart(epoch, goal) => {
                let postgres = &mut self.hosts[host].postgres;
                if matches!(postgres.server, Server::Busy) {
                    postgres.lead(epoch, goal);
                }
            }
            Action::Stop => {
                if matches!(self.hosts[host].postgres.server, Server::Primary(_)) {
                    self.kill_postgres(host);
                }
            }
            Action::Rewind(from) | Action::Clone(from) => self.copied(host, from),
            Action::Keep(_) | Action::Promise(_) | Action::Reign(..) | Action::Acknowledge(..) => {}
        }
        Ok(())
    }

    /// A standby runs, and follows whom it was told to.
    fn followed(&mut self, host: usize, upstream: Option<Name>) {
        self.connections += 1;
        let connection = self.connections;
        let forgets = self.options.defect == Some(Defect::OldUpstream);
        let postgres = &mut self.hosts[host].postgres;
        let starts = matches!(postgres.server, Server::Busy);
        if matches!(postgres.server, Server::Primary(_) | Server::Down) {
            return;
        }
        // A reload that is not on disk yet is forgotten with the process.
        let upstream = if forgets && starts { postgres.upstream_on_disk } else { upstream };
        if !forgets || upstream.is_some() {
            postgres.upstream_on_disk = upstream;
        }
        let standby = Standby { upstream, connection, receives: false };
        postgres.server = Server::Standby(standby);
        let delay = self.millis(1, 20);
        self.after(delay, Happening::Connect { host, connection, first: true });
    }
}
