//! Clients, and the relay on each host through which they speak with its PostgreSQL.

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::settings::Defect;

use super::World;
use super::happening::Happening;
use super::postgres::{Entry, Server, Waiting};

/// How long a client waits.
const ATTEMPT_MAX: Duration = Duration::from_millis(600);

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// This write.
    Write(usize),
    /// All that there is.
    Read,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy)]
struct Pending {
    attempt: u64,
    request: Request,
    since: Timestamp,
    /// How many writes were acknowledged then.
    acknowledged: usize,
}

/// A client with the gateway that it speaks to.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    /// Whom its gateway takes for the primary.
    believes: Member,
    attempt: u64,
    pending: Option<Pending>,
    /// When it was last served.
    pub(super) served_at: Option<Timestamp>,
}

impl Client {
    pub(super) const fn new(number: usize, believes: Member) -> Self {
        Self { number, believes, attempt: 0, pending: None, served_at: None }
    }
}

impl World {
    pub(super) fn send(&mut self, client: usize) {
        if self.store_until <= self.now && self.rng.chance(2, 3) {
            self.clients[client].believes = self.store.record.primary;
        }
        let request = if self.rng.chance(3, 5) {
            Request::Write(self.truth.begin_write())
        } else {
            Request::Read
        };
        let to = self.index(self.clients[client].believes);
        let acknowledged = self.truth.acknowledged();
        let it = &mut self.clients[client];
        it.attempt += 1;
        let attempt = it.attempt;
        it.pending = Some(Pending { attempt, request, since: self.now, acknowledged });
        let delay = self.between(Duration::from_micros(100), Duration::from_millis(3));
        self.after(delay, Happening::Request { to, client, attempt, request });
        self.after(ATTEMPT_MAX, Happening::GiveUp { client, attempt });
    }

    /// The relay passes a request on, if PostgreSQL is the one that it was told of.
    pub(super) fn request(&mut self, to: usize, client: usize, attempt: u64, request: Request) {
        let it = &mut self.hosts[to];
        let run = it.postgres.run;
        let open = it.is_up && it.open.is_some_and(|(_, known)| known == run);
        let Server::Primary(primary) = &mut it.postgres.server else { return };
        if !open || primary.stopping {
            return;
        }
        match request {
            Request::Write(write) => {
                it.postgres.log.push(Entry { epoch: primary.epoch, write: Some(write) });
                let end = it.postgres.log.len();
                primary.waiting.push_back(Waiting { end, client, attempt });
                self.flush(to);
            }
            Request::Read => {
                let visible = &it.postgres.log[..primary.visible];
                let seen = visible.iter().filter_map(|entry| entry.write).collect();
                let delay = self.between(Duration::from_micros(50), Duration::from_millis(2));
                let seen = Some(seen);
                self.after(delay, Happening::Reply { from: to, client, attempt, run, seen });
            }
        }
    }

    /// The relay has read a reply: it looks at the lease, and passes it on.
    pub(super) fn reply(
        &mut self,
        from: usize,
        client: usize,
        attempt: u64,
        run: u64,
        seen: Option<Vec<usize>>,
    ) -> Result<(), String> {
        let it = &self.hosts[from];
        let Some((epoch, _)) = it.open.filter(|(_, known)| it.is_up && *known == run) else {
            return Ok(());
        };
        let now = it.clock.read(self.now);
        let leased = it.guard.as_ref().and_then(|guard| guard.lease(now));
        let unchecked = self.options.defect == Some(Defect::RepliesUnchecked);
        let lax = self.options.defect == Some(Defect::ServesWithoutGrants);
        if leased.is_none_or(|(leased, _)| leased != epoch) && !unchecked && !lax {
            return Ok(());
        }
        let Some(pending) = self.clients[client].pending else { return Ok(()) };
        if pending.attempt != attempt {
            // The client has given up, but it could have heard.
            return Ok(());
        }
        match (pending.request, seen) {
            (Request::Write(write), None) => {
                self.truth.acknowledge(write, epoch, pending.since)?;
            }
            (Request::Read, Some(seen)) => {
                let fresh = self.habits.clocks_hold();
                self.truth.read(&seen, pending.acknowledged, fresh)?;
            }
            (Request::Write(_), Some(_)) | (Request::Read, None) => return Ok(()),
        }
        let it = &mut self.clients[client];
        (it.pending, it.served_at) = (None, Some(self.now));
        let delay = self.millis(20, 150);
        self.after(delay, Happening::Send { client });
        Ok(())
    }

    pub(super) fn give_up(&mut self, client: usize, attempt: u64) -> Result<(), String> {
        if let Some(pending) = self.clients[client].pending
            && pending.attempt == attempt
        {
            if self.calm_since.is_some_and(|since| pending.since >= since) {
                let request = pending.request;
                return Err(format!("{request:?} of client {client} failed, and lacked nothing"));
            }
            self.clients[client].pending = None;
            let delay = self.millis(5, 60);
            self.after(delay, Happening::Send { client });
        }
        Ok(())
    }
}
