//! What can happen, and to whom.

use evenkeel_postgres_core::lease::Message;
use evenkeel_postgres_core::member::{Action, Report, Seen};
use evenkeel_postgres_core::quorum::Member;

use super::World;
use super::clients::Request;
use super::postgres::{Pull, Push};

/// Something that happens at some time.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node looks around.
    Look {
        host: usize,
        life: u64,
    },
    /// A node has carried out a step, or given it up.
    Done {
        host: usize,
        life: u64,
        action: Action,
    },
    /// A guard has something to do, or hears something.
    Wake {
        host: usize,
        life: u64,
    },
    Say {
        from: usize,
        to: usize,
        message: Message,
    },
    /// A guard's kill takes effect.
    Killed {
        host: usize,
        life: u64,
    },
    /// PostgreSQL has come to where it was going.
    Arrived {
        host: usize,
        run: u64,
        action: Action,
    },
    /// A disk is done.
    Flushed {
        host: usize,
        run: u64,
        length: usize,
    },
    /// Replication.
    Connect {
        host: usize,
        connection: u64,
        first: bool,
    },
    Pull {
        to: usize,
        pull: Pull,
    },
    Push {
        to: usize,
        push: Push,
    },
    Refused {
        to: usize,
        connection: u64,
    },
    /// The store and those who change it.
    Direct {
        director: usize,
    },
    Change {
        director: usize,
        revision: u64,
        seen: Seen,
    },
    Report {
        director: usize,
        member: Member,
        report: Report,
    },
    Hear {
        host: usize,
        seen: Seen,
    },
    /// Clients.
    Send {
        client: usize,
    },
    Request {
        to: usize,
        client: usize,
        attempt: u64,
        request: Request,
    },
    Reply {
        from: usize,
        client: usize,
        attempt: u64,
        run: u64,
        seen: Option<Vec<usize>>,
    },
    GiveUp {
        client: usize,
        attempt: u64,
    },
    /// Something breaks, or works again.
    Break,
    Ambush,
    Boot {
        host: usize,
    },
    StartGuard {
        host: usize,
    },
    StartNode {
        host: usize,
    },
}

impl Happening {
    /// Returns the host on which it happens: while the host is stopped, it waits.
    const fn host(&self) -> Option<usize> {
        match self {
            Self::Look { host, .. }
            | Self::Done { host, .. }
            | Self::Wake { host, .. }
            | Self::Killed { host, .. }
            | Self::Arrived { host, .. }
            | Self::Flushed { host, .. }
            | Self::Connect { host, .. }
            | Self::Hear { host, .. }
            | Self::StartGuard { host }
            | Self::StartNode { host }
            | Self::Say { to: host, .. }
            | Self::Pull { to: host, .. }
            | Self::Push { to: host, .. }
            | Self::Refused { to: host, .. }
            | Self::Request { to: host, .. }
            | Self::Reply { from: host, .. } => Some(*host),
            Self::Direct { .. }
            | Self::Change { .. }
            | Self::Report { .. }
            | Self::Send { .. }
            | Self::GiveUp { .. }
            | Self::Break
            | Self::Ambush
            | Self::Boot { .. } => None,
        }
    }
}

impl World {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other half is the next function's")]
    pub(super) fn happen(&mut self, happening: Happening) -> Result<(), String> {
        if let Some(host) = happening.host()
            && self.hosts[host].stopped_until > self.now
        {
            // What has waited happens in any order.
            let wait = self.hosts[host].stopped_until.since(self.now);
            let delay = wait + self.millis(0, 6);
            self.after(delay, happening);
            return Ok(());
        }
        match happening {
            Happening::Look { host, life } => self.look(host, life),
            Happening::Done { host, life, action } => self.done(host, life, action),
            Happening::Wake { host, life } => {
                self.wake(host, life);
                Ok(())
            }
            Happening::Say { from, to, message } => {
                self.tell_guard(to, self.hosts[from].member, message);
                Ok(())
            }
            Happening::Killed { host, life } => {
                self.killed(host, life);
                Ok(())
            }
            Happening::Arrived { host, run, action } => self.arrived(host, run, action),
            Happening::Flushed { host, run, length } => {
                self.flushed(host, run, length);
                Ok(())
            }
            Happening::Connect { host, connection, first } => {
                self.pull(host, connection, first);
                Ok(())
            }
            Happening::Pull { to, pull } => {
                self.serve(to, pull);
                Ok(())
            }
            Happening::Push { to, push } => {
                self.take(to, &push);
                Ok(())
            }
            Happening::Refused { to, connection } => {
                self.reconnect(to, connection);
                Ok(())
            }
            other => self.happen_outside(other),
        }
    }

    /// What does not happen within a host's database.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the first half was the caller's")]
    fn happen_outside(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Direct { director } => self.direct(director),
            Happening::Change { director, revision, seen } => {
                return self.change(director, revision, seen);
            }
            Happening::Report { director, member, report } => {
                self.directors[director].hear(member, report, self.now);
            }
            Happening::Hear { host, seen } => self.hear(host, seen),
            Happening::Send { client } => self.send(client),
            Happening::Request { to, client, attempt, request } => {
                self.request(to, client, attempt, request);
            }
            Happening::Reply { from, client, attempt, run, seen } => {
                return self.reply(from, client, attempt, run, seen);
            }
            Happening::GiveUp { client, attempt } => return self.give_up(client, attempt),
            Happening::Break => self.break_something(),
            Happening::Ambush => self.ambush(),
            Happening::Boot { host } => self.boot(host),
            Happening::StartGuard { host } => self.start_guard(host),
            Happening::StartNode { host } => self.start_node(host),
            _ => {}
        }
        Ok(())
    }
}
