//! What happens, one thing after the other.

use std::fmt;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::RequestId;
use evenkeel_consensus::replica::{Action, Event, describe};
use evenkeel_consensus::settings::MemberId;
use evenkeel_consensus::wire::carries_entries;
use evenkeel_model::time::Timestamp;

use super::{Happening, World};
use crate::clients::{ATTEMPT_MAX, Next, Request};
use crate::holders::{self, Holder};

/// A message, put into words only if somebody reads them.
struct InWords<'a>(&'a [u8]);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&describe(self.0))
    }
}

impl World {
    pub(super) fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            // Without space, entries would fill the reserve that votes need.
            Happening::Message { to, bytes, .. }
                if self.hosts[to].disk.full && carries_entries(&bytes) => {}
            Happening::Message { from, to, bytes } => {
                self.transcript.digest_bytes(&bytes);
                let words = InWords(&bytes);
                self.transcript
                    .line(self.now, format_args!("m{} <- m{}: {words}", to + 1, from + 1));
                self.arrive(to, Event::Message(bytes));
            }
            Happening::SnapshotSent { host, life, to, ok } if self.lives(host, life) => {
                self.arrive(host, Event::SnapshotSent { member: to, ok });
            }
            Happening::Step { host, life } if self.lives(host, life) => self.step(host)?,
            Happening::Wake { host, life, at } if self.lives(host, life) => self.wake(host, at)?,
            Happening::Written { host, life } if self.lives(host, life) => self.written(host),
            Happening::SnapshotSaved { host, life } if self.lives(host, life) => {
                if let Some(index) = self.hosts[host].disk.finish_save() {
                    self.arrive(host, Event::SnapshotSaved { index });
                }
            }
            Happening::SnapshotEncoded { host, life, snapshot } if self.lives(host, life) => {
                self.arrive(host, Event::SnapshotEncoded { snapshot });
            }
            Happening::Doom { host, life, voted } if self.lives(host, life) => {
                self.maybe_crash_after_write(host, voted);
            }
            Happening::Restart { host } => self.restart(host)?,
            Happening::Resume { host, life } => self.resume(host, life),
            Happening::Send { client } => self.send(client),
            Happening::Request { host, client, attempt, request } => {
                self.take_request(host, client, attempt, request);
            }
            Happening::Answer { client, attempt, answer } => {
                self.answer(client, attempt, answer)?;
            }
            Happening::Watch { watcher } => self.watch(watcher)?,
            Happening::Break => self.break_something(),
            Happening::ChangeMembers => self.change_members(),
            Happening::Space { host, full } => self.set_space(host, full),
            Happening::Heal => self.heal()?,
            // What a process waited for that has crashed since.
            Happening::SnapshotSent { .. }
            | Happening::Step { .. }
            | Happening::Wake { .. }
            | Happening::Written { .. }
            | Happening::Doom { .. }
            | Happening::SnapshotEncoded { .. }
            | Happening::SnapshotSaved { .. } => {}
        }
        Ok(())
    }

    /// Returns whether the host still runs the process that it ran then.
    fn lives(&self, host: usize, life: u64) -> bool {
        self.hosts[host].process.is_some() && self.hosts[host].life == life
    }

    pub(super) fn restart(&mut self, host: usize) -> Result<(), String> {
        if self.hosts[host].process.is_some() {
            return Ok(());
        }
        self.hosts[host].start(self.now)?;
        self.transcript.line(self.now, format_args!("m{} starts", host + 1));
        self.step(host)
    }

    pub(super) fn resume(&mut self, host: usize, life: u64) {
        if self.lives(host, life)
            && let Some(process) = &mut self.hosts[host].process
        {
            process.paused = false;
            self.plan_step(host);
        }
    }

    /// Puts an event into a member's inbox.
    pub(super) fn arrive(&mut self, host: usize, event: Event) {
        if let Some(process) = &mut self.hosts[host].process {
            process.inbox.push_back(event);
            self.plan_step(host);
        }
    }

    /// Plans a step soon: more may arrive until then.
    fn plan_step(&mut self, host: usize) {
        let life = self.hosts[host].life;
        if let Some(process) = &mut self.hosts[host].process
            && !process.step_due
            && !process.paused
        {
            process.step_due = true;
            let delay = Duration::from_micros(self.rng.below(100));
            self.after(delay, Happening::Step { host, life });
        }
    }

    fn wake(&mut self, host: usize, at: Timestamp) -> Result<(), String> {
        let current = self.hosts[host].process.as_ref().and_then(|process| process.wake_at);
        if current == Some(at) { self.step(host) } else { Ok(()) }
    }

    /// Lets a member work, and carries out what it wants done.
    fn step(&mut self, host: usize) -> Result<(), String> {
        let paused = |process: &mut crate::member::Process| {
            process.step_due = false;
            process.wake_at = None;
            process.paused
        };
        if self.hosts[host].process.as_mut().is_none_or(paused) {
            return Ok(());
        }
        let actions = self.hosts[host].step(self.now)?;
        for action in actions {
            self.carry_out(host, action)?;
        }
        let member = self.hosts[host].settings.member;
        if let Some(process) = &mut self.hosts[host].process {
            self.invariants.check(member, &process.replica, &mut process.log)?;
        }
        if let Some(duration) = self.hosts[host].disk.begin(&mut self.rng) {
            let life = self.hosts[host].life;
            self.after(duration, Happening::Written { host, life });
        }
        self.plan_wake(host);
        Ok(())
    }

    fn plan_wake(&mut self, host: usize) {
        let life = self.hosts[host].life;
        if let Some(at) = self.hosts[host].deadline()
            && let Some(process) = &mut self.hosts[host].process
        {
            let at = at.max(self.now + Duration::from_micros(1));
            process.wake_at = Some(at);
            self.at(at, Happening::Wake { host, life, at });
        }
    }

    fn carry_out(&mut self, host: usize, action: Action) -> Result<(), String> {
        let life = self.hosts[host].life;
        match action {
            Action::Persist(persist) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.log.persist(&persist);
                }
                self.hosts[host].disk.push(persist);
            }
            Action::Send { to, message, bulk } => self.transmit(host, to, message, bulk),
            Action::Answer { request, answer } => self.send_answer(host, request, answer)?,
            Action::Role { leader, term, is_leader } => {
                self.transcript.digest_number(term);
                let leads = if is_leader { ", ready" } else { "" };
                let leader = leader.map_or(0, |leader| leader.0);
                self.transcript.line(
                    self.now,
                    format_args!("m{}: term {term}, leader m{leader}{leads}", host + 1),
                );
            }
            Action::Rejoined => {
                self.hosts[host].disk.rejoined();
                self.transcript.line(self.now, format_args!("m{} holds all again", host + 1));
            }
            Action::Members { members } => {
                self.transcript.line(self.now, format_args!("m{}: {members:?}", host + 1));
            }
            Action::EncodeSnapshot { state } => {
                self.invariants.check_members(&state)?;
                let snapshot = state.snapshot();
                let delay = Duration::from_micros(self.rng.below(20_000));
                self.after(delay, Happening::SnapshotEncoded { host, life, snapshot });
            }
            Action::SaveSnapshot { state } => {
                self.invariants.check_members(&state)?;
                let snapshot = state.snapshot();
                let duration = self.hosts[host].disk.begin_save(snapshot, &mut self.rng);
                self.after(duration, Happening::SnapshotSaved { host, life });
            }
            // Whole segments are dropped: often later than they could be.
            Action::Compact { through } if self.rng.chance(1, 2) => {
                self.hosts[host].disk.compact(through);
            }
            Action::Compact { .. } | Action::SystemChanged { .. } => {}
        }
        Ok(())
    }

    fn transmit(&mut self, from: usize, to: MemberId, bytes: Vec<u8>, bulk: bool) {
        let target = usize::try_from(to.0).unwrap_or(usize::MAX).saturating_sub(1);
        let deliveries = self.network.deliveries(from, target, &mut self.rng);
        if bulk {
            self.snapshots += 1;
            let (life, ok) = (self.hosts[from].life, !deliveries.is_empty());
            let delay = self.network.delay(&mut self.rng);
            self.after(delay, Happening::SnapshotSent { host: from, life, to, ok });
        } else if deliveries.is_empty() && self.rng.chance(1, 10) {
            // Now and then a shell notices that a message was lost.
            self.arrive(from, Event::Unreachable { member: to });
        }
        for delay in deliveries {
            let bytes = bytes.clone();
            self.after(delay, Happening::Message { from, to: target, bytes });
        }
    }

    fn written(&mut self, host: usize) {
        if let Some(written) = self.hosts[host].disk.finish() {
            self.arrive(host, Event::Persisted { number: written.number });
            if let Some(duration) = self.hosts[host].disk.begin(&mut self.rng) {
                let life = self.hosts[host].life;
                self.after(duration, Happening::Written { host, life });
            }
            // The messages that waited for the write leave first, or do not.
            if self.rng.chance(1, 2) {
                self.maybe_crash_after_write(host, written.voted);
            } else {
                self.crash_after_step(host, written.voted);
            }
        }
    }

    fn crash_after_step(&mut self, host: usize, voted: bool) {
        let life = self.hosts[host].life;
        self.after(Duration::from_micros(150), Happening::Doom { host, life, voted });
    }

    /// Lets a client send its request, or a new one.
    fn send(&mut self, client: usize) {
        let now = self.now;
        let (host, request, attempt) = if let Some(holder) = self.holder(client) {
            let (host, request) = holder.send(now);
            (host, request, holder.attempt)
        } else {
            let asker = &mut self.clients[client];
            if self.closed && asker.is_idle() {
                return;
            }
            let (host, request) = asker.send(now, &mut self.rng);
            (host, request, asker.attempt)
        };
        self.after(ATTEMPT_MAX, Happening::Answer { client, attempt, answer: None });
        let delay = self.network.delay(&mut self.rng);
        if !self.loses_request() {
            self.after(delay, Happening::Request { host, client, attempt, request });
        }
    }

    /// Returns the holder behind a client's number.
    fn holder(&mut self, client: usize) -> Option<&mut Holder> {
        let number = client.checked_sub(self.clients.len())?;
        self.holders.get_mut(number)
    }

    /// Lets somebody who watches ask a member that is up.
    fn watch(&mut self, watcher: usize) -> Result<(), String> {
        let wait = Duration::from_millis(5 + self.rng.below(60));
        if !self.closed {
            self.after(wait, Happening::Watch { watcher });
        }
        let (host, limit) = (self.rng.index(self.hosts.len()), 1 + self.rng.index(20));
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        self.watchers[watcher].ask(process.replica.keys(), limit)
    }

    fn loses_request(&mut self) -> bool {
        !self.healed && self.rng.chance(1, 100)
    }

    fn take_request(&mut self, host: usize, client: usize, attempt: u64, request: Request) {
        let full = self.hosts[host].disk.full && matches!(request, Request::Change(_));
        let Some(process) = self.hosts[host].process.as_mut().filter(|_| !full) else {
            // Nobody listens, or there is no room: surely not applied.
            let answer = Some(Answer::NotLeader { leader: None });
            let delay = self.network.delay(&mut self.rng);
            return self.after(delay, Happening::Answer { client, attempt, answer });
        };
        self.transcript.line(self.now, format_args!("c{client} asks m{}: {request:?}", host + 1));
        let name = process.take_request(client, attempt);
        let event = match request {
            Request::Change(command) => Event::Propose { request: name, command },
            Request::Question(query) => Event::Read { request: name, query },
        };
        self.arrive(host, event);
    }

    fn send_answer(
        &mut self,
        host: usize,
        request: RequestId,
        answer: Answer,
    ) -> Result<(), String> {
        self.transcript.line(self.now, format_args!("m{} answers: {answer:?}", host + 1));
        let asked =
            self.hosts[host].process.as_mut().and_then(|process| process.requests.remove(&request));
        let Some((client, attempt)) = asked else {
            return Err(format!("m{} answered {request:?} twice: {answer:?}", host + 1));
        };
        let delay = self.network.delay(&mut self.rng);
        if !self.loses_request() {
            let answer = Some(answer);
            self.after(delay, Happening::Answer { client, attempt, answer });
        }
        Ok(())
    }

    fn answer(
        &mut self,
        client: usize,
        attempt: u64,
        answer: Option<Answer>,
    ) -> Result<(), String> {
        let next = if let Some(number) = client.checked_sub(self.clients.len()) {
            let tokens = |world: &Self| world.holders.get(number)?.hold.map(|hold| hold.token);
            let before = tokens(self);
            let holder = &mut self.holders[number];
            let next = holder.answered(attempt, answer, self.now, &mut self.rng);
            self.holds += usize::from(tokens(self) != before);
            if self.habits.clocks_hold() {
                holders::check(&self.holders)?;
            }
            next
        } else {
            self.clients[client].answered(attempt, answer, self.now, &mut self.rng)
        };
        match next {
            // Nobody begins anything new.
            Next::Wait(_) if self.closed && client >= self.clients.len() => {}
            Next::Wait(delay) => self.after(delay, Happening::Send { client }),
            Next::Ignore => {}
            Next::Complain(_) if client >= self.clients.len() && !self.habits.clocks_hold() => {
                // On clocks that are far off nobody can be sure of a lease.
                self.after(Duration::from_secs(1), Happening::Send { client });
            }
            Next::Complain(complaint) => return Err(complaint),
        }
        Ok(())
    }
}
