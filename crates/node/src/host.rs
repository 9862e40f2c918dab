//! The host's loop: every fact goes to node-core as an event, every action is carried out.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::declaration::{Declaration, Wanted};
use evenkeel_control::plan::Plan;
use evenkeel_coordinator::log::Space;
use evenkeel_coordinator::options::RoundTrips;
use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_node_core::action::Action;
use evenkeel_node_core::event::{Event, ProcessChange};
use evenkeel_node_core::host_loop::HostLoop;
use evenkeel_node_core::process::ProcessId;
use evenkeel_supervisor::shims::{ShimEvent, Shims};
use evenkeel_trust::renewal;
use evenkeel_trust::tls::Trust;
use tokio::sync::{mpsc, oneshot, watch};

use crate::act::Hands;
use crate::api::Question;
use crate::clock;
use crate::events::EventLog;
use crate::probe::Probes;
use crate::protection;
use crate::round_trips::Window;
use crate::status::StatusWire;
use crate::store::{Leadership, Store};
use crate::survival;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything on this host was stopped, as asked.
    Down,
    /// The node alone ends; what it started goes on, for the next node to adopt.
    Leave,
    /// The system file in force differs from the one that this process was started with in what a
    /// running process can't change: the node is to start again with it.
    Restart,
    /// The system goes on from the log of another host. This host's own is set aside, and the node
    /// is to start again.
    Superseded,
}

/// The system file that a node was started with.
#[derive(Debug, Clone)]
pub struct Given {
    /// Where it was read.
    pub path: PathBuf,
    /// Its text then.
    pub text: String,
}

impl Given {
    /// Says when another file is in force.
    fn warning(&self, in_force: &Declaration) -> Option<String> {
        (self.text != *in_force.text).then(|| {
            format!(
                "`{}` differs from the system file in force, revision {}",
                self.path.display(),
                in_force.revision
            )
        })
    }
}

/// The ways into the loop.
#[derive(Debug)]
pub struct Inlets {
    /// Outcomes of actions.
    pub outcomes: mpsc::Receiver<Outcome>,
    /// Questions of the API.
    pub questions: mpsc::Receiver<Question>,
    /// News of the shims.
    pub shims: mpsc::Receiver<ShimEvent>,
    /// Signals to leave.
    pub leave: watch::Receiver<bool>,
}

/// What an action in the background led to.
#[derive(Debug)]
pub enum Outcome {
    /// A fact for node-core.
    Event(Box<Event>),
    /// This host leads, and the store holds this plan and wants this.
    Office(Leadership, Option<Plan>, Box<Wanted>),
}

/// Everything that the loop holds.
#[derive(Debug)]
pub struct Host {
    /// The decisions.
    pub core: HostLoop,
    /// Where the system in force is told.
    pub system: watch::Sender<Arc<System>>,
    /// This host.
    pub name: HostName,
    /// What carries actions out.
    pub hands: Hands,
    /// The replicated store.
    pub store: Store,
    /// Probes of other hosts.
    pub probes: Probes,
    /// The processes.
    pub shims: Shims,
    /// Where measured round trips go.
    pub round_trips: watch::Sender<RoundTrips>,
    /// The round trips measured lately.
    pub measured: Window,
    /// The system file that this node was given, to warn when another one is in force.
    pub given: Given,
    /// What this host proves itself with, where traffic is protected.
    pub trust: Option<Trust>,
}

impl Host {
    /// Runs until told to end.
    pub async fn run(mut self, mut inlets: Inlets) -> Ending {
        let mut leaders = self.store.leader_changes();
        let mut changes = self.store.changes();
        let mut space = self.store.space();
        let mut superseded = self.store.superseded();
        let mut events = EventLog::default();
        let mut down: Vec<oneshot::Sender<()>> = Vec::new();
        leaders.mark_changed();
        space.mark_changed();
        loop {
            if self.follow_system() {
                return Ending::Restart;
            }
            if self.act() {
                clear(&self.shims).await;
                for reply in down {
                    // Who asked may have gone; everything has stopped all the same.
                    let _gone = reply.send(());
                }
                return Ending::Down;
            }
            events.observe(self.core.status(clock::now()), clock::now());
            tokio::select! {
                () = sleep_until(&self.core) => self.core.handle_timeout(clock::now()),
                Some(outcome) = inlets.outcomes.recv() => {
                    self.handle_outcome(outcome);
                }
                Some(event) = inlets.shims.recv() => self.handle_shim(event),
                Some(question) = inlets.questions.recv() => {
                    self.answer(question, &events, &mut down);
                }
                answer = self.probes.receive() => {
                    self.measured.note(answer.from.clone(), answer.round_trip);
                    self.round_trips.send_replace(self.measured.summary());
                    let event = Event::ProbeAnswered { from: answer.from, round_trip: answer.round_trip };
                    self.core.handle_event(event, clock::now());
                }
                Ok(()) = leaders.changed() => {
                    leaders.mark_unchanged();
                    self.announce(self.store.leadership());
                }
                Ok(()) = space.changed() => {
                    let full = *space.borrow_and_update() == Space::Full;
                    self.core.handle_event(Event::LogSpace { full }, clock::now());
                }
                Ok(()) = changes.changed() => {
                    changes.mark_unchanged();
                    self.hands.look_at_store(&self.store);
                }
                Ok(()) = superseded.changed() => return Ending::Superseded,
                Ok(()) = inlets.leave.changed() => return Ending::Leave,
            }
        }
    }

    /// Carries out what the core wants; returns whether all has ended.
    fn act(&mut self) -> bool {
        while let Some(action) = self.core.poll_action() {
            if let Action::SendProbe { to } = action {
                let system = &self.core.declaration().system;
                if let Some(host) = system.hosts.get(&to) {
                    let address = SocketAddr::new(host.address, system.ports.peer);
                    self.probes.send(to, address);
                }
            } else if action == Action::Finish {
                return true;
            } else {
                self.hands.carry_out(action, &self.store, &self.shims);
            }
        }
        false
    }

    /// Tells the core who leads. On the leader itself the stored plan is read first.
    fn announce(&mut self, leadership: Leadership) {
        tracing::debug!(leader = ?leadership.leader, term = leadership.term, "leadership");
        if leadership.leader.as_ref() == Some(&self.name) {
            self.hands.take_office(&self.store, leadership);
            return;
        }
        let Leadership { leader, term } = leadership;
        let event = Event::Role { leader, term, plan: None, wanted: None };
        self.core.handle_event(event, clock::now());
    }

    /// Tells everybody in this process when another system file is in force. Returns whether the
    /// process can't go on with it.
    fn follow_system(&mut self) -> bool {
        let declaration = self.core.declaration();
        let before = Arc::clone(&self.system.borrow());
        let system = &declaration.system;
        if Arc::ptr_eq(system, &before) {
            return false;
        }
        tracing::info!(revision = declaration.revision, "another system file is in force");
        self.hands.system_file.write(Arc::clone(&declaration.text));
        self.system.send_replace(Arc::clone(system));
        if let Some(trust) = &self.trust {
            trust.set_members(protection::members(system));
        }
        let address = |system: &System| system.hosts.get(&self.name).map(|host| host.address);
        let moved = address(system).is_some_and(|now| address(&before) != Some(now));
        // Whoever takes part follows its log, everybody else is told whom to ask.
        self.store.set_voters(crate::start::voters(system));
        let joins_or_leaves = system.takes_part(&self.name) != before.takes_part(&self.name);
        moved || joins_or_leaves || system.ports != before.ports
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Event(event) => self.core.handle_event(*event, clock::now()),
            Outcome::Office(leadership, plan, wanted) => {
                // It may have been lost while the plan was read.
                if self.store.leadership() == leadership {
                    let Leadership { leader, term } = leadership;
                    let role = Event::Role { leader, term, plan, wanted: Some(*wanted) };
                    self.core.handle_event(role, clock::now());
                }
            }
        }
    }

    fn handle_shim(&mut self, event: ShimEvent) {
        let Some((id, change)) = change_of(event) else { return };
        let Ok(id) = ProcessId::parse(&id) else {
            tracing::warn!(id, "a shim of this host has a name that no process has");
            return;
        };
        self.core.handle_event(Event::Process { id, change }, clock::now());
    }

    fn answer(
        &mut self,
        question: Question,
        events: &EventLog,
        down: &mut Vec<oneshot::Sender<()>>,
    ) {
        let now = clock::now();
        match question {
            Question::Heartbeat(report, reply) => {
                let plan_number = report.plan_number;
                self.core.handle_event(Event::HeartbeatReceived { report: *report }, now);
                // A host that no longer waits will report again.
                drop(reply.send(self.core.answer_for(plan_number, now)));
            }
            Question::Status(reply) => drop(reply.send(self.status(events))),
            Question::Preview(wanted, reply) => {
                let current = self.core.planned().cloned().unwrap_or_else(Plan::empty);
                drop(reply.send((current, self.core.preview(&wanted, now))));
            }
            Question::Down(reply) => {
                down.push(reply);
                self.core.handle_event(Event::Stop, now);
            }
        }
    }

    fn status(&self, events: &EventLog) -> StatusWire {
        let now = clock::now();
        let status = self.core.status(now);
        let declaration = self.core.declaration();
        let system = &declaration.system;
        let survival = survival::judge(system, &status);
        let mut warnings: Vec<String> = self.given.warning(declaration).into_iter().collect();
        warnings.extend(status.disk_error.clone());
        let trust = self.trust.as_ref();
        warnings.extend(trust.and_then(|trust| protection::warning(trust, renewal::now())));
        StatusWire::new(&status, system, &survival, events.events(), warnings, now)
    }
}

/// Returns what happened to a process. Starts come this way too, not as the answer of who started
/// it: an exit that overtook that answer would leave the core with a process that is no more.
fn change_of(event: ShimEvent) -> Option<(String, ProcessChange)> {
    match event {
        ShimEvent::Started { id, pid } | ShimEvent::Adopted { id, pid, running: true } => {
            Some((id, ProcessChange::Started { pid }))
        }
        ShimEvent::Adopted { running: false, .. } => None,
        ShimEvent::Exited { id, status } => Some((id, ProcessChange::Exited(status))),
        ShimEvent::ShimLost { id } => Some((id, ProcessChange::Lost)),
    }
}

/// Waits until the last shims are gone, whose removal was begun in the background, and ends what
/// else carries their mark.
async fn clear(shims: &Shims) {
    for shim in shims.list() {
        // One that is being removed already is waited for, and is unknown then.
        drop(shims.quit(&shim.id).await);
        if let Err(error) = shims.remove(&shim.id).await {
            tracing::warn!(id = shim.id, %error, "a shim was not removed");
        }
    }
    if let Err(error) = shims.stop_all(Duration::ZERO).await {
        tracing::error!(%error, "not all has stopped");
    }
}

/// Sleeps until the core's next deadline, forever without one.
async fn sleep_until(core: &HostLoop) {
    match core.poll_timeout() {
        Some(at) => tokio::time::sleep(at.since(clock::now())).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_supervisor_core::status::ExitStatus;

    use super::*;

    #[test]
    fn shims_tell_of_starts_and_ends() {
        let id = || "web-1".to_owned();
        let started = Some((id(), ProcessChange::Started { pid: 7 }));
        assert_eq!(change_of(ShimEvent::Started { id: id(), pid: 7 }), started);
        // A shim that was paused when it was to be adopted is found later.
        assert_eq!(change_of(ShimEvent::Adopted { id: id(), pid: 7, running: true }), started);
        assert_eq!(change_of(ShimEvent::Adopted { id: id(), pid: 7, running: false }), None);
        let status = ExitStatus::Code(1);
        let exited = Some((id(), ProcessChange::Exited(status)));
        assert_eq!(change_of(ShimEvent::Exited { id: id(), status }), exited);
        let lost = Some((id(), ProcessChange::Lost));
        assert_eq!(change_of(ShimEvent::ShimLost { id: id() }), lost);
    }
}
