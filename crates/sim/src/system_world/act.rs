//! Carries out what a host's loop wants, and what its node process does beside it.

use std::time::Duration;

use evenkeel_model::patience::patience;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::action::Action;
use evenkeel_node_core::event::Event;
use evenkeel_supervisor_core::status::ExitStatus;

use super::World;
use super::calls::{Caller, Question, Target};
use super::happening::{Happening, NodeLife};

/// Time for the answer of a leader near by to a report.
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);

/// Time for a connection to another host to open.
pub(super) const CONNECT_MAX: Duration = Duration::from_millis(300);

/// A probe's answer that took longer says nothing about the network.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn act(&mut self, at: NodeLife, action: Action) {
        let host = at.host;
        let power = self.hosts[host].power;
        match action {
            Action::SendHeartbeat { to, report } => {
                let Some(to) = self.index(&to) else { return };
                let limit = patience(HEARTBEAT_MAX, Some(self.links.farthest() * 2));
                let caller = Caller::Heartbeat { at };
                let question = Question::Heartbeat(Box::new(report));
                self.call(caller, host, to, Target::Node, question, CONNECT_MAX, limit);
            }
            Action::SendProbe { to } => {
                let Some(to) = self.index(&to) else { return };
                for wait in self.links.packet(host, to, &mut self.rng).into_iter().flatten() {
                    let asked = self.now;
                    self.after(wait, Happening::Probe { from: at, to, asked });
                }
            }
            // Nothing tells the leader who takes part, so it changes nothing.
            Action::ChangeMembers { .. } => {}
            Action::StorePlan { plan } => {
                self.check_proposal(host, &plan);
                self.store_plan(at, plan);
            }
            // People read logs; no decision depends on them.
            Action::ReadLog { .. } => {}
            Action::SavePlan { plan } => {
                if let Some(node) = self.hosts[host].node_mut(at.life) {
                    node.plan_file.write(plan);
                }
            }
            Action::WriteRoutes { routes } => {
                self.check_routes(host, &routes);
                if let Some(node) = self.hosts[host].node_mut(at.life) {
                    node.routes_file.write(routes);
                }
            }
            Action::StartProcess { spec } => {
                let wait = self.draw_millis(5, 50);
                self.after(wait, Happening::Start { host, power, spec: Box::new(spec) });
            }
            Action::TerminateProcess { id } => {
                let wait = self.draw_millis(0, 500);
                self.signal(host, &id, wait, false, ExitStatus::Code(0));
            }
            Action::KillProcess { id } => {
                self.signal(host, &id, Duration::ZERO, true, ExitStatus::Signal(9));
            }
            Action::RemoveProcess { id } => {
                let gone = self.hosts[host].processes.remove(&id);
                if gone.is_some_and(|process| process.running) {
                    self.violate(format!("{} forgets {id}, which runs", self.names[host]));
                }
            }
            Action::Check { id, number, purpose, timeout, .. } => {
                let process = self.hosts[host].processes.get(&id);
                let silent = process.is_some_and(|process| process.running && process.paused);
                let ready = process.is_some_and(|process| process.is_ready(self.now));
                let result = if ready { Ok(()) } else { Err("no answer".to_owned()) };
                let event = Event::CheckFinished { id, number, purpose, result };
                let wait = if silent { timeout } else { self.draw_millis(0, 5) };
                self.after(wait, Happening::Tell { at, event: Box::new(event) });
            }
            Action::Finish => self.violate(format!("{} ends unasked", self.names[host])),
        }
    }

    /// A node process that runs answers each probe, late if it was paused.
    pub(super) fn answer_probe(&mut self, from: NodeLife, to: usize, asked: Timestamp) {
        if self.hosts[to].node.is_none() {
            return;
        }
        for wait in self.links.packet(to, from.host, &mut self.rng).into_iter().flatten() {
            self.after(wait, Happening::ProbeAnswer { at: from, from: to, asked });
        }
    }

    pub(super) fn take_probe_answer(&mut self, at: NodeLife, from: usize, asked: Timestamp) {
        let round_trip = self.now.since(asked);
        if round_trip <= ROUND_TRIP_MAX {
            let event = Event::ProbeAnswered { from: self.names[from].clone(), round_trip };
            self.touch(at, |core, now| core.handle_event(event, now));
        }
    }
}
