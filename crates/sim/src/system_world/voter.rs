//! A voter of the coordinator: lets its machine run and carries out what that wants.

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::RequestId;
use evenkeel_consensus::replica::{Action, Event, describe};
use evenkeel_consensus::settings::MemberId;
use evenkeel_consensus::wire::carries_entries;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event as HostEvent;

use super::happening::{Happening, NodeLife};
use super::{World, host_of, member_of};

/// Time between two tries to hand leadership to a voter whose disk has space.
const HANDOVER_EVERY: Duration = Duration::from_secs(2);

impl World {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is meant for others is sent elsewhere"
    )]
    pub(super) fn happen_to_voter(&mut self, happening: Happening) {
        match happening {
            Happening::Message { to, bytes } => {
                let full = self.hosts[to].node.as_ref().is_some_and(|node| node.log_full);
                // Without space, entries would fill the reserve that votes need.
                if !(full && carries_entries(&bytes)) {
                    self.transcript.digest_bytes(&bytes);
                    self.arrive(to, Event::Message(bytes));
                }
            }
            Happening::SnapshotSent { at, to, ok } if self.lives(at) => {
                self.arrive(at.host, Event::SnapshotSent { member: to, ok });
            }
            Happening::Step { at } if self.lives(at) => self.step(at),
            Happening::MemberWake { at, due } if self.lives(at) => {
                let process = self.hosts[at.host].member_process();
                if process.is_some_and(|process| process.wake_at == Some(due)) {
                    self.step(at);
                }
            }
            Happening::Written { at } if self.lives(at) => self.written(at),
            Happening::SnapshotSaved { at } if self.lives(at) => {
                let member = self.hosts[at.host].member.as_mut();
                if let Some(index) = member.and_then(|member| member.disk.finish_save()) {
                    self.arrive(at.host, Event::SnapshotSaved { index });
                }
            }
            Happening::SnapshotEncoded { at, snapshot } if self.lives(at) => {
                self.arrive(at.host, Event::SnapshotEncoded { snapshot: *snapshot });
            }
            Happening::LogSpace { at } => self.log_space(at),
            // What a process waited for that has died since.
            _ => {}
        }
    }

    fn lives(&self, at: NodeLife) -> bool {
        self.hosts[at.host].node.is_some() && self.hosts[at.host].life == at.life
    }

    /// Plans a step soon: more may arrive until then.
    pub(super) fn plan_step(&mut self, at: NodeLife) {
        let Some(process) = self.hosts[at.host].member_process() else { return };
        if !process.step_due {
            process.step_due = true;
            let wait = Duration::from_micros(self.rng.below(100));
            self.after(wait, Happening::Step { at });
        }
    }

    /// The log looks whether it has room.
    fn log_space(&mut self, at: NodeLife) {
        let full = self.hosts[at.host].disk_full;
        if self.lives(at)
            && let Some(node) = self.hosts[at.host].node_mut(at.life)
            && node.log_full != full
        {
            node.log_full = full;
            let event = Box::new(HostEvent::LogSpace { full });
            self.after(Duration::from_millis(1), Happening::Tell { at, event });
            self.plan_step(at);
        }
    }

    /// Lets a member work, and carries out what it wants done.
    fn step(&mut self, at: NodeLife) {
        let now = self.now;
        self.hand_over_when_full(at);
        let Some(member) = &mut self.hosts[at.host].member else { return };
        let Some(process) = &mut member.process else { return };
        process.step_due = false;
        process.wake_at = None;
        let actions = match member.step(now) {
            Ok(actions) => actions,
            Err(violation) => return self.violate(format!("{}: {violation}", self.names[at.host])),
        };
        for action in actions {
            self.carry_out(at, action);
        }
        self.check_member(at.host);
        self.begin_log_write(at);
        self.plan_member_wake(at);
    }

    fn check_member(&mut self, host: usize) {
        let Some(member) = &mut self.hosts[host].member else { return };
        let name = member.settings.member;
        let Some(process) = &mut member.process else { return };
        let checked = self.invariants.check(name, &process.replica, &mut process.log);
        if let Err(violation) = checked {
            self.violate(violation);
        }
    }

    fn begin_log_write(&mut self, at: NodeLife) {
        let Some(member) = &mut self.hosts[at.host].member else { return };
        if let Some(duration) = member.disk.begin(&mut self.rng) {
            self.after(duration, Happening::Written { at });
        }
    }

    fn plan_member_wake(&mut self, at: NodeLife) {
        let now = self.now;
        let Some(member) = &mut self.hosts[at.host].member else { return };
        let Some(due) = member.deadline() else { return };
        let due: Timestamp = due.max(now + Duration::from_micros(1));
        let Some(process) = &mut member.process else { return };
        process.wake_at = Some(due);
        self.agenda.plan(due, Happening::MemberWake { at, due });
    }

    fn carry_out(&mut self, at: NodeLife, action: Action) {
        let host = at.host;
        match action {
            Action::Persist(persist) => {
                let Some(member) = &mut self.hosts[host].member else { return };
                if let Some(process) = &mut member.process {
                    process.log.persist(&persist);
                }
                member.disk.push(persist);
            }
            Action::Send { to, message, bulk } => self.transmit(at, to, message, bulk),
            Action::Answer { request, answer } => self.pass_answer(at, request, answer),
            Action::Role { leader, term, is_leader } => {
                self.transcript.digest_number(term);
                let leads = if is_leader { ", ready" } else { "" };
                let leader = leader.map(host_of);
                let named = leader.map_or("nobody", |leader| self.names[leader].as_str());
                let name = &self.names[host];
                self.transcript
                    .line(self.now, format_args!("{name}: term {term}, led by {named}{leads}"));
                self.change_view(at, leader, term, is_leader);
            }
            Action::EncodeSnapshot { state } => {
                let snapshot = Box::new(state.snapshot());
                let wait = self.draw_millis(0, 20);
                self.after(wait, Happening::SnapshotEncoded { at, snapshot });
            }
            Action::SaveSnapshot { state } => {
                let snapshot = state.snapshot();
                let Some(member) = &mut self.hosts[host].member else { return };
                let duration = member.disk.begin_save(snapshot, &mut self.rng);
                self.after(duration, Happening::SnapshotSaved { at });
            }
            Action::Compact { through } => {
                if let Some(member) = &mut self.hosts[host].member {
                    member.disk.compact(through);
                }
            }
            Action::SystemChanged { .. } => {
                self.note_plan(host);
                let wait = self.draw_millis(0, 2);
                self.after(wait, Happening::LookAtPlan { at });
            }
            Action::Rejoined | Action::Members { .. } => {}
        }
    }

    fn transmit(&mut self, at: NodeLife, to: MemberId, bytes: Vec<u8>, bulk: bool) {
        let (from, target) = (at.host, host_of(to));
        let deliveries = self.links.packet(from, target, &mut self.rng);
        let lost = deliveries.iter().flatten().next().is_none();
        if bulk {
            let wait = self.links.delay(from, target, &mut self.rng);
            self.after(wait, Happening::SnapshotSent { at, to, ok: !lost });
        } else if lost && self.rng.chance(1, 10) {
            // Now and then a shell notices that a message was lost.
            self.arrive(from, Event::Unreachable { member: to });
        }
        if self.transcript.is_in_words() {
            let (from, to, words) = (&self.names[from], &self.names[target], describe(&bytes));
            // Heartbeats and entries alone would fill the transcript.
            if !words.contains("heartbeat") && !words.contains("append") {
                self.transcript.line(self.now, format_args!("{from} -> {to}: {words}"));
            }
        }
        let [first, second] = deliveries;
        if let Some(wait) = second {
            self.after(wait, Happening::Message { to: target, bytes: bytes.clone() });
        }
        if let Some(wait) = first {
            self.after(wait, Happening::Message { to: target, bytes });
        }
    }

    fn pass_answer(&mut self, at: NodeLife, request: RequestId, answer: Answer) {
        let Some(process) = self.hosts[at.host].member_process() else { return };
        let Some((effort, attempt)) = process.requests.remove(&request) else {
            let name = member_of(at.host);
            return self.violate(format!("{name} answered {request:?} twice: {answer:?}"));
        };
        let effort = u64::try_from(effort).unwrap_or(u64::MAX);
        self.member_answered(at, effort, attempt, answer);
    }

    fn written(&mut self, at: NodeLife) {
        let Some(member) = &mut self.hosts[at.host].member else { return };
        if let Some(written) = member.disk.finish() {
            self.arrive(at.host, Event::Persisted { number: written.number });
        }
        self.begin_log_write(at);
    }

    /// A leader without space lets another voter lead: it may have some.
    fn hand_over_when_full(&mut self, at: NodeLife) {
        let now = self.now;
        let voters = self.voters.clone();
        let leads = self.hosts[at.host].replica().is_some_and(|replica| replica.is_leader());
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        if !node.log_full || !leads || node.handover_at > now {
            return;
        }
        node.handover_at = now + HANDOVER_EVERY;
        let to = voters[self.rng.index(voters.len())];
        if let Some(process) = self.hosts[at.host].member_process() {
            process.inbox.push_back(Event::TransferLeadership { to: member_of(to) });
        }
    }
}
