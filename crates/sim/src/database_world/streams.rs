//! Replication between members: who pulls from whom, and what gets lost on the way.

use std::time::Duration;

use super::World;
use super::happening::Happening;
use super::postgres::{Pull, Push, Server};

impl World {
    /// Asks the upstream for what comes next, and says how far the disk is.
    pub(super) fn pull(&mut self, host: usize, connection: u64, first: bool) {
        let it = &self.hosts[host];
        let Server::Standby(standby) = &it.postgres.server else { return };
        let Some((upstream, epoch)) = standby.upstream else { return };
        if standby.connection != connection {
            return;
        }
        let pull = Pull {
            name: (it.member, epoch),
            connection,
            first,
            flushed: it.postgres.flushed,
            length: it.postgres.log.len(),
            timeline: it.postgres.timeline,
        };
        let to = self.index(upstream);
        match self.link(host, to) {
            Some(delay) => self.after(delay, Happening::Pull { to, pull }),
            None => self.refuse(host, connection),
        }
    }

    /// A standby finds out that nothing comes any more.
    fn refuse(&mut self, host: usize, connection: u64) {
        let delay = self.millis(20, 300);
        self.after(delay, Happening::Refused { to: host, connection });
    }

    pub(super) fn serve(&mut self, host: usize, pull: Pull) {
        let push = self.hosts[host].postgres.serve(pull);
        self.answer_released(host);
        let to = self.index(pull.name.0);
        match (push, self.link(host, to)) {
            (Some(push), Some(delay)) => self.after(delay, Happening::Push { to, push }),
            _ => self.refuse(to, pull.connection),
        }
    }

    pub(super) fn take(&mut self, host: usize, push: &Push) {
        let it = &mut self.hosts[host];
        let Server::Standby(standby) = &mut it.postgres.server else { return };
        if standby.connection != push.connection {
            return;
        }
        standby.receives = true;
        let connection = standby.connection;
        if it.postgres.take(push) {
            self.flush(host);
        } else {
            let delay = self.millis(5, 20);
            self.after(delay, Happening::Connect { host, connection, first: false });
        }
    }

    /// Lets the disk write all that there is.
    pub(super) fn flush(&mut self, host: usize) {
        let usual = self.between(Duration::from_micros(200), Duration::from_millis(3));
        let it = &self.hosts[host];
        let (run, length) = (it.postgres.run, it.postgres.log.len());
        let delay = it.disk_delay(usual, self.now);
        self.after(delay, Happening::Flushed { host, run, length });
    }

    pub(super) fn flushed(&mut self, host: usize, run: u64, length: usize) {
        let postgres = &mut self.hosts[host].postgres;
        if postgres.run != run {
            return;
        }
        postgres.flushed = postgres.flushed.max(length.min(postgres.log.len()));
        let flushed = postgres.flushed;
        match &mut postgres.server {
            Server::Standby(standby) => {
                let connection = standby.connection;
                self.pull(host, connection, false);
            }
            Server::Primary(primary) => {
                primary.release(flushed);
                self.answer_released(host);
            }
            Server::Down | Server::Busy => {}
        }
    }

    /// A standby that was refused tries again.
    pub(super) fn reconnect(&mut self, host: usize, connection: u64) {
        self.connections += 1;
        let next = self.connections;
        let Server::Standby(standby) = &mut self.hosts[host].postgres.server else { return };
        if standby.connection != connection || standby.upstream.is_none() {
            return;
        }
        (standby.connection, standby.receives) = (next, false);
        let delay = self.millis(20, 120);
        self.after(delay, Happening::Connect { host, connection: next, first: true });
    }

    /// Tells the clients whose commits enough standbys have.
    pub(super) fn answer_released(&mut self, host: usize) {
        let Server::Primary(primary) = &mut self.hosts[host].postgres.server else { return };
        let released = primary.released();
        let run = self.hosts[host].postgres.run;
        for waiting in released {
            let delay = self.between(Duration::from_micros(50), Duration::from_millis(2));
            let (client, attempt) = (waiting.client, waiting.attempt);
            let reply = Happening::Reply { from: host, client, attempt, run, seen: None };
            self.after(delay, reply);
        }
    }
}
