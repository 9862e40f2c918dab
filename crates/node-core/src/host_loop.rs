//! The machine of one host.
//!
//! After every event the whole state is looked at again, in this order: the leader's duties, the
//! plan to follow, the processes, the routes, what is due to be sent. Nothing depends on which
//! event woke it. With no leader in reach a host keeps its plan, its routes and its processes.
//!
//! ```text
//!  plan offered (leader's answer, store) ─▶ higher number? ─▶ SavePlan ─▶ saved ─▶ in force
//!                                              │ no                                   │
//!                                              ▼                                      ▼
//!                                           refused                        processes, WriteRoutes
//! ```

mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_control::controller::{self, Controller};
use evenkeel_control::declaration::Wanted;
use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, InstanceReport, LeaderAnswer};
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::{HostName, RegionName};
use evenkeel_model::patience::patience;
use evenkeel_model::time::Timestamp;

use crate::action::Action;
use crate::agent::Agent;
use crate::event::Event;
use crate::reach::Reach;
use crate::routes::build_routes;
use crate::settings::{Defect, Restored, Settings};

/// One host's control loop.
#[derive(Debug)]
pub struct HostLoop {
    settings: Settings,
    leader: Leader,
    /// The leader's duties, while this host leads.
    controller: Option<Controller>,
    /// The plan in force.
    plan: Option<Plan>,
    /// A newer plan that is being saved.
    saving: Option<Saving>,
    agent: Agent,
    reach: Reach,
    routes: Option<RouteTable>,
    /// What the routes were last derived from.
    routed: Option<(u64, BTreeMap<RegionName, Duration>)>,
    routes_retry_at: Option<Timestamp>,
    heartbeat: Heartbeat,
    probe_at: Timestamp,
    /// When this machine last ran.
    awake_at: Timestamp,
    plan_error: Option<String>,
    routes_error: Option<String>,
    log_full: bool,
    stopping: bool,
    finished: bool,
    actions: VecDeque<Action>,
}

/// Who leads, and what it last said.
#[derive(Debug, Default)]
struct Leader {
    host: Option<HostName>,
    term: u64,
    contact_at: Option<Timestamp>,
    hosts: BTreeMap<HostName, HostState>,
    missing: Option<Vec<String>>,
}

#[derive(Debug)]
struct Saving {
    plan: Plan,
    /// When the write is tried again; `None` while it is under way.
    retry_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Heartbeat {
    sequence: u64,
    due_at: Timestamp,
    /// When the report under way counts as lost.
    lost_at: Option<Timestamp>,
    sent_at: Timestamp,
    /// What the last report said, to notice changes.
    said: (u64, Vec<InstanceReport>, bool, bool),
}

impl HostLoop {
    /// Starts a host from its own disk: what the last plan wants is started at once, whether or
    /// not anybody else is in reach.
    #[must_use]
    pub fn new(settings: Settings, restored: Restored, now: Timestamp) -> Self {
        let mut settings = settings;
        follow_declaration(&mut settings, restored.plan.as_ref());
        let distances =
            restored.routes.as_ref().map(|routes| routes.distances.clone()).unwrap_or_default();
        let reach = Reach::new(others(&settings), settings.timings.reachable, distances);
        let mut host_loop = Self {
            agent: Agent::new(settings.seed),
            settings,
            leader: Leader::default(),
            controller: None,
            plan: restored.plan,
            saving: None,
            reach,
            routes: restored.routes,
            routed: None,
            routes_retry_at: None,
            heartbeat: Heartbeat {
                sequence: 0,
                due_at: now,
                lost_at: None,
                sent_at: now,
                said: (0, Vec::new(), false, true),
            },
            probe_at: now,
            awake_at: now,
            plan_error: None,
            routes_error: None,
            log_full: false,
            stopping: false,
            finished: false,
            actions: VecDeque::new(),
        };
        let Self { agent, settings, plan, .. } = &mut host_loop;
        let mut processes = restored.processes;
        if settings.defect == Some(Defect::AdoptsNothing) {
            processes.clear();
        }
        agent.adopt(settings, plan.as_ref(), processes, now);
        host_loop.reconcile(now);
        host_loop
    }

    /// Takes a fact in.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        self.wake_up(now);
        match event {
            Event::Role { leader, term, plan, wanted } => {
                self.handle_role(leader, term, plan, wanted, now);
            }
            Event::WantedSeen { wanted } => {
                self.control(controller::Event::WantedSeen(wanted), now);
            }
            Event::MembersSeen { membership } => {
                self.control(controller::Event::MembersSeen(membership), now);
            }
            Event::PlanStored { number } => {
                self.control(controller::Event::PlanStored(number), now);
            }
            Event::PlanRefused { number } => {
                self.control(controller::Event::PlanRefused(number), now);
            }
            Event::PlanSeen { plan } => {
                self.offer(&plan);
                self.control(controller::Event::PlanSeen(plan), now);
            }
            Event::PlanSaved { number } => {
                if let Some(saving) = self.saving.take_if(|saving| saving.plan.number == number) {
                    self.plan = Some(saving.plan);
                    self.plan_error = None;
                    if follow_declaration(&mut self.settings, self.plan.as_ref()) {
                        self.reach.set_hosts(others(&self.settings));
                        self.routed = None;
                    }
                }
            }
            Event::PlanSaveFailed { number, reason } => {
                self.plan_error = Some(format!("save plan {number}: {reason}"));
                let retry_at = now + self.settings.timings.save_retry;
                if let Some(saving) = &mut self.saving {
                    saving.retry_at = Some(retry_at);
                }
            }
            Event::RoutesWritten { generation: _ } => self.routes_error = None,
            Event::RoutesFailed { generation, reason } => {
                self.routes_error = Some(format!("write routes {generation}: {reason}"));
                self.routes_retry_at = Some(now + self.settings.timings.save_retry);
            }
            Event::LogSpace { full } => self.log_full = full,
            Event::HeartbeatReceived { report } => {
                self.control(controller::Event::Heartbeat(report), now);
            }
            Event::HeartbeatAnswered { answer } => self.handle_answer(answer, now),
            Event::HeartbeatFailed { reason: _ } => self.heartbeat.lost_at = None,
            Event::ProbeAnswered { from, round_trip } => {
                self.reach.handle_answer(&from, round_trip, now);
            }
            Event::Process { id, change } => self.agent.handle_change(&id, change, now),
            Event::CheckFinished { id, number, purpose, result } => {
                self.agent.handle_check(&id, number, purpose, result, now);
            }
            Event::LogRead { id, lines } => self.agent.handle_log(&id, lines),
            Event::Stop => {
                self.stopping = true;
                self.controller = None;
                self.agent.stop(now);
            }
        }
        self.reconcile(now);
    }

    /// Does what time alone makes due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.wake_up(now);
        self.reconcile(now);
    }

    /// Returns when [`Self::handle_timeout`] must next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let speaking = [self.heartbeat.due_at, self.probe_at];
        let speaking = speaking.into_iter().filter(|_| !self.stopping);
        let retries = self.saving.as_ref().and_then(|saving| saving.retry_at);
        self.agent
            .poll_timeout()
            .into_iter()
            .chain(speaking)
            .chain(retries)
            .chain(self.routes_retry_at)
            .chain(self.controller.as_ref().and_then(Controller::poll_timeout))
            .min()
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn handle_role(
        &mut self,
        leader: Option<HostName>,
        term: u64,
        plan: Option<Plan>,
        wanted: Option<Wanted>,
        now: Timestamp,
    ) {
        if term < self.leader.term {
            return;
        }
        let leads = leader.as_ref() == Some(&self.settings.host) && !self.stopping;
        let news = term > self.leader.term || leader != self.leader.host;
        self.leader.term = term;
        self.leader.host = leader;
        if !leads {
            if let Some(plan) = &plan {
                self.offer(plan);
            }
            if let Some(controller) = self.controller.take() {
                // What a leader knew is as old as its office.
                self.leader.contact_at = Some(now);
                self.leader.hosts = controller.hosts().states(now);
                self.leader.missing = Some(controller.redundancy(now).missing);
            }
            if news {
                // A new leader hears of this host at once.
                self.heartbeat.lost_at = None;
                self.heartbeat.due_at = now;
            }
        } else if self.controller.is_none() || news {
            let Settings { control, declaration, .. } = &self.settings;
            let wanted = wanted.unwrap_or_else(|| Wanted {
                declaration: declaration.clone(),
                drained: BTreeSet::new(),
                drained_revision: 0,
            });
            // Hosts far away hear of a new leader, and are heard by it, later than those near by.
            let farthest = self.reach.reachable(now).into_values().flatten().max();
            let ttl = patience(control.ttl, farthest);
            let control = controller::Settings { ttl, ..*control };
            self.controller = Some(Controller::new(wanted, control, term, plan, now));
            self.heartbeat.due_at = now;
        }
    }

    fn handle_answer(&mut self, answer: LeaderAnswer, now: Timestamp) {
        self.heartbeat.lost_at = None;
        if let Some(plan) = &answer.plan {
            self.offer(plan);
        }
        if answer.term >= self.leader.term {
            self.leader.contact_at = Some(now);
            self.leader.hosts = answer.hosts;
            self.leader.missing = Some(answer.missing);
        }
    }

    /// Notices that this machine did not run when it was due, by at least one heartbeat. A leader
    /// that was paused must not take its own silence for the loss of every other host.
    fn wake_up(&mut self, now: Timestamp) {
        let awake_at = std::mem::replace(&mut self.awake_at, now);
        if now.since(awake_at) > self.settings.timings.heartbeat * 2 {
            self.control(controller::Event::Held(awake_at), now);
        }
    }

    fn control(&mut self, event: controller::Event, now: Timestamp) {
        if let Some(controller) = &mut self.controller {
            controller.handle_event(event, now);
        }
    }

    /// Takes up a plan unless one with the same or a higher number is known already.
    fn offer(&mut self, plan: &Plan) {
        let known = [self.plan.as_ref(), self.saving.as_ref().map(|saving| &saving.plan)];
        let number = known.into_iter().flatten().map(|plan| plan.number).max().unwrap_or(0);
        let accepted = if self.settings.defect == Some(Defect::PlanNumberIgnored) {
            plan.number != number
        } else {
            plan.number > number
        };
        if accepted && !self.stopping {
            self.saving = Some(Saving { plan: plan.clone(), retry_at: None });
            self.actions.push_back(Action::SavePlan { plan: plan.clone() });
        }
    }

    /// Looks at everything and does what is to be done now.
    fn reconcile(&mut self, now: Timestamp) {
        self.lead(now);
        self.retry_save(now);
        self.agent.reconcile(&self.settings, self.plan.as_ref(), now);
        // Routes go first: a gateway stops sending before a process is told to stop.
        self.route(now);
        while let Some(action) = self.agent.poll_action() {
            self.actions.push_back(action);
        }
        if self.stopping {
            if self.agent.is_finished() && !self.finished {
                self.finished = true;
                self.actions.push_back(Action::Finish);
            }
            return;
        }
        self.speak(now);
    }

    fn lead(&mut self, now: Timestamp) {
        let Some(controller) = &mut self.controller else { return };
        controller.handle_timeout(now);
        while let Some(action) = controller.poll_action() {
            self.actions.push_back(match action {
                controller::Action::StorePlan(plan) => Action::StorePlan { plan },
                controller::Action::ChangeMembers(step) => Action::ChangeMembers { step },
            });
        }
        let plan = controller.plan();
        if plan.number > self.plan.as_ref().map_or(0, |plan| plan.number) {
            let plan = plan.clone();
            self.offer(&plan);
        }
    }

    fn retry_save(&mut self, now: Timestamp) {
        if let Some(saving) = &mut self.saving
            && saving.retry_at.take_if(|at| *at <= now).is_some()
        {
            self.actions.push_back(Action::SavePlan { plan: saving.plan.clone() });
        }
    }

    /// Writes routes when they are not what plan and place make of them.
    fn route(&mut self, now: Timestamp) {
        let Settings { declaration, host, .. } = &self.settings;
        let system = &declaration.system;
        let Some(host) = system.hosts.get(host) else { return };
        let retry = self.routes_retry_at.take_if(|at| *at <= now).is_some();
        let empty = Plan::empty();
        let early = self.saving.as_ref().map(|saving| &saving.plan);
        let early = early.filter(|_| self.settings.defect == Some(Defect::RoutesBeforePlan));
        let plan = match (early.or(self.plan.as_ref()), &self.routes) {
            (Some(plan), _) => plan,
            // A host whose plan is lost keeps the routes it has.
            (None, Some(routes)) if !retry && !self.system_changed(routes) => return,
            (None, _) => &empty,
        };
        let distances = self.reach.distances(system, &host.region, now);
        let source = (plan.number, distances.clone());
        let same = self.routed.as_ref() == Some(&source)
            && self.settings.defect != Some(Defect::RoutesFromOpinion);
        if !retry && same {
            return;
        }
        let known = self.routes.as_ref().map_or(0, |routes| routes.generation);
        let mut routes =
            build_routes(system, plan, host, self.settings.protected, distances, known);
        if self.settings.defect == Some(Defect::RoutesFromOpinion) {
            let lost = |host: &HostName| {
                self.leader.hosts.get(host).is_some_and(|it| *it != HostState::Up)
            };
            for upstream in routes.upstreams.values_mut() {
                upstream.endpoints.retain(|endpoint| !lost(&endpoint.host));
            }
        }
        self.routed = Some(source);
        if retry || self.routes.as_ref() != Some(&routes) {
            let generation = (known + 1).max(plan.number);
            let routes = RouteTable { generation, ..routes };
            self.routes = Some(routes.clone());
            self.actions.push_back(Action::WriteRoutes { routes });
        }
    }

    /// Returns whether routes belong to another system or host than this one.
    fn system_changed(&self, routes: &RouteTable) -> bool {
        routes.system != self.settings.system().name || routes.host != self.settings.host
    }

    /// Sends what is due to other hosts.
    fn speak(&mut self, now: Timestamp) {
        if self.probe_at <= now {
            self.probe_at = now + self.settings.timings.probe;
            let probes = self.reach.hosts().map(|host| Action::SendProbe { to: host.clone() });
            self.actions.extend(probes);
        }
        let timings = self.settings.timings;
        self.heartbeat.lost_at.take_if(|at| *at <= now);
        let (gateway_up, disk_ok) = (self.agent.is_gateway_up(), self.disk_error().is_none());
        let said = (self.plan_number(), self.agent.reports(), gateway_up, disk_ok);
        if said != self.heartbeat.said {
            let soon = self.heartbeat.sent_at + timings.heartbeat_min;
            self.heartbeat.due_at = self.heartbeat.due_at.min(soon);
        }
        if now < self.heartbeat.due_at {
            return;
        }
        self.heartbeat.due_at = now + timings.heartbeat;
        if self.heartbeat.lost_at.is_some() {
            return;
        }
        self.heartbeat.sequence += 1;
        self.heartbeat.sent_at = now;
        self.heartbeat.said = said;
        let report = self.report(now);
        if self.controller.is_some() {
            self.control(controller::Event::Heartbeat(report), now);
            self.lead(now);
        } else if let Some(to) = self.leader.host.clone() {
            self.heartbeat.lost_at = Some(now + timings.heartbeat_timeout);
            self.actions.push_back(Action::SendHeartbeat { to, report });
        }
    }

    fn plan_number(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.number)
    }

    fn report(&self, now: Timestamp) -> HostReport {
        HostReport {
            host: self.settings.host.clone(),
            boot: self.settings.boot,
            sequence: self.heartbeat.sequence,
            plan_number: self.plan_number(),
            instances: self.agent.reports(),
            reachable: self.reach.reachable(now),
            ports_taken: self.agent.ports_taken(),
            gateway_up: self.agent.is_gateway_up(),
            disk_ok: self.disk_error().is_none(),
        }
    }
}

/// Lets the host follow the system file that its plan names. Returns whether that is another one.
fn follow_declaration(settings: &mut Settings, plan: Option<&Plan>) -> bool {
    let Some(declaration) = plan.and_then(|plan| plan.declaration_for(&settings.host)) else {
        return false;
    };
    let changed = settings.declaration != *declaration;
    if changed {
        settings.declaration = declaration.clone();
    }
    changed
}

/// Every host but this one.
fn others(settings: &Settings) -> impl Iterator<Item = HostName> {
    settings.system().hosts.keys().filter(|host| **host != settings.host).cloned()
}
