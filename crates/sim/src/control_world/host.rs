//! A host: its node process with the real machine in it, its disk and its other processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::controller;
use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::HostReport;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::action::Action;
use evenkeel_node_core::event::{Event, ProcessChange};
use evenkeel_node_core::host_loop::HostLoop;
use evenkeel_node_core::process::{ProcessId, ProcessSpec};
use evenkeel_node_core::settings::{self, Adopted, Restored, Settings, Timings};
use evenkeel_supervisor_core::status::ExitStatus;

use super::{Defect, Happening, World};

/// One host.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Its node process, while it runs.
    pub(super) core: Option<HostLoop>,
    /// Counts its node processes.
    pub(super) life: u64,
    /// Counts the times it lost its power.
    pub(super) power: u64,
    /// Whether it has power.
    pub(super) on: bool,
    pub(super) wake_at: Option<Timestamp>,
    /// On its disk.
    pub(super) plan: Option<Plan>,
    /// On its disk.
    pub(super) routes: Option<RouteTable>,
    /// When its disk has done everything it was asked to.
    pub(super) disk_free_at: Option<Timestamp>,
    pub(super) disk_full: bool,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// Ports that other programs hold.
    pub(super) ports_taken: BTreeSet<u16>,
    /// The highest number of a plan that was ever in force.
    pub(super) plan_number_max: u64,
    /// The highest generation of routes that was ever written.
    pub(super) generation_max: u64,
    /// What it was last told about the leader.
    pub(super) told: Option<(Option<usize>, u64)>,
}

/// A process behind its shim.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) running: bool,
    pub(super) ready_at: Timestamp,
    pub(super) port: Option<u16>,
    /// Whether it ends only by SIGKILL.
    stubborn: bool,
}

impl World {
    /// Starts a host's node process, with power or without.
    pub(super) fn boot(&mut self, host: usize) {
        if self.hosts[host].core.is_some() {
            return;
        }
        let defects = self.options.defect;
        let control = controller::Settings {
            defect: (defects == Some(Defect::LeasesNotExtended))
                .then_some(controller::Defect::LeasesNotExtended),
            ..controller::Settings::STANDARD
        };
        let seed = self.rng.next_u64();
        let state = &mut self.hosts[host];
        state.on = true;
        state.life += 1;
        state.wake_at = None;
        state.told = None;
        let settings = Settings {
            host: self.names[host].clone(),
            declaration: Declaration {
                revision: 1,
                text: "".into(),
                system: std::sync::Arc::new(self.system.clone()),
            },
            boot: state.life,
            seed,
            gateway_command: vec!["gateway".to_owned()],
            timings: Timings::STANDARD,
            control,
            defect: (defects == Some(Defect::PlanNumberIgnored))
                .then_some(settings::Defect::PlanNumberIgnored),
        };
        let adopted = state.processes.iter().map(|(id, process)| Adopted {
            id: id.clone(),
            pid: process.running.then_some(process.pid),
        });
        let restored = Restored {
            plan: state.plan.clone(),
            routes: state.routes.clone(),
            processes: adopted.collect(),
        };
        state.core = Some(HostLoop::new(settings, restored, self.now));
        self.transcript.line(self.now, format_args!("{}: node starts", self.names[host]));
        self.touch(host, |_, _| ());
    }

    /// Lets a host's machine handle something, carries out what it wants, and checks what must
    /// always hold.
    pub(super) fn touch(&mut self, host: usize, handle: impl FnOnce(&mut HostLoop, Timestamp)) {
        let now = self.now;
        let Some(core) = &mut self.hosts[host].core else { return };
        handle(core, now);
        let mut actions = Vec::new();
        while let Some(action) = core.poll_action() {
            actions.push(action);
        }
        let next = core.poll_timeout();
        for action in actions {
            self.act(host, action);
        }
        self.check_host(host);
        let state = &mut self.hosts[host];
        if let Some(next) = next.map(|next| next.max(now))
            && state.wake_at.is_none_or(|at| at > next)
        {
            state.wake_at = Some(next);
            let life = state.life;
            self.after(next.since(now), Happening::Wake { host, life });
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        let (life, power) = (self.hosts[host].life, self.hosts[host].power);
        match action {
            Action::SendHeartbeat { to, report } => {
                let to = self.index(&to);
                if let Some(wait) = self.travel(host, to) {
                    self.after(wait, Happening::Heartbeat { from: host, to, life, report });
                } else if self.rng.chance(1, 2) {
                    let reason = "connection refused".to_owned();
                    self.tell_soon(host, Event::HeartbeatFailed { reason });
                }
            }
            Action::SendProbe { to } => {
                let to = self.index(&to);
                let there = self.travel(host, to);
                let back = self.travel(to, host);
                if let (Some(there), Some(back), true) =
                    (there, back, self.hosts[to].core.is_some())
                {
                    let round_trip = there + back;
                    let event = Event::ProbeAnswered { from: self.names[to].clone(), round_trip };
                    self.after(round_trip, Happening::Tell { host, life, event });
                }
            }
            Action::StorePlan { plan } => {
                let term = self.hosts[host].told.map_or(0, |(_, term)| term);
                let wait = self.draw_millis(2, 60);
                self.after(wait, Happening::Store { host, life, term, plan });
            }
            // People read logs; no decision depends on them.
            Action::ReadLog { .. } => {}
            Action::SavePlan { plan } => self.save_plan(host, plan),
            Action::WriteRoutes { routes } => self.write_routes(host, routes),
            Action::StartProcess { spec } => {
                let wait = self.draw_millis(5, 50);
                self.after(wait, Happening::Start { host, power, spec });
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
            Action::Check { id, number, purpose, .. } => {
                let process = self.hosts[host].processes.get(&id);
                let ready = process.is_some_and(|process| process.is_ready(self.now));
                let result = if ready { Ok(()) } else { Err("no answer".to_owned()) };
                self.tell_soon(host, Event::CheckFinished { id, number, purpose, result });
            }
            Action::Finish => self.violate(format!("{} ends unasked", self.names[host])),
        }
    }

    fn save_plan(&mut self, host: usize, plan: Plan) {
        let number = plan.number;
        if self.hosts[host].disk_full {
            let reason = "no space left on device".to_owned();
            self.tell_soon(host, Event::PlanSaveFailed { number, reason });
            return;
        }
        let wait = self.draw_millis(0, 20);
        let state = &mut self.hosts[host];
        // A disk writes in the order in which it was asked.
        let done = state.disk_free_at.map_or(self.now, |at| at.max(self.now)) + wait;
        state.disk_free_at = Some(done);
        let saved = Happening::Saved { host, power: state.power, life: state.life, plan };
        self.after(done.since(self.now), saved);
    }

    fn write_routes(&mut self, host: usize, routes: RouteTable) {
        let generation = routes.generation;
        self.check_routes(host, &routes);
        if self.hosts[host].disk_full {
            let reason = "no space left on device".to_owned();
            self.tell_soon(host, Event::RoutesFailed { generation, reason });
        } else {
            self.hosts[host].routes = Some(routes);
            self.hosts[host].generation_max = generation;
            self.tell_soon(host, Event::RoutesWritten { generation });
        }
    }

    pub(super) fn take_heartbeat(&mut self, from: usize, to: usize, life: u64, report: HostReport) {
        let plan_number = report.plan_number;
        self.touch(to, |core, now| core.handle_event(Event::HeartbeatReceived { report }, now));
        let Some(core) = &self.hosts[to].core else { return };
        let answer = core.answer_for(plan_number, self.now);
        if let Some(wait) = self.travel(to, from) {
            self.after(wait, Happening::Answer { to: from, life, answer });
        }
    }

    /// A shim starts its process, or cannot.
    pub(super) fn start_process(&mut self, host: usize, spec: &ProcessSpec) {
        let port = spec.binds.map(|address| address.port());
        let id = spec.id.clone();
        let taken = port.is_some_and(|port| self.hosts[host].ports_taken.contains(&port));
        if self.check_start(host, &id, port) || taken {
            self.tell_soon(host, Event::Process { id, change: ProcessChange::PortTaken });
            return;
        }
        if self.storming && self.rng.chance(1, 50) {
            let change = ProcessChange::StartFailed { reason: "out of memory".to_owned() };
            self.tell_soon(host, Event::Process { id, change });
            return;
        }
        self.pids += 1;
        let pid = self.pids;
        let slow = self.rng.chance(1, 20);
        let wait = self.draw_millis(10, if slow { 6000 } else { 1500 });
        let stubborn = self.rng.chance(1, 20);
        let process = Process { pid, running: true, ready_at: self.now + wait, port, stubborn };
        self.hosts[host].processes.insert(id.clone(), process);
        self.transcript.line(self.now, format_args!("{}: {id} runs", self.names[host]));
        self.tell_soon(host, Event::Process { id, change: ProcessChange::Started { pid } });
    }

    fn signal(
        &mut self,
        host: usize,
        id: &ProcessId,
        wait: Duration,
        kill: bool,
        status: ExitStatus,
    ) {
        let state = &self.hosts[host];
        let Some(process) = state.processes.get(id) else { return };
        if process.running && (kill || !process.stubborn) {
            let (power, pid) = (state.power, process.pid);
            self.after(wait, Happening::Exit { host, power, id: id.clone(), pid, status });
        }
    }

    /// A process ends; its shim keeps the place.
    pub(super) fn end_process(
        &mut self,
        host: usize,
        id: &ProcessId,
        pid: u32,
        status: ExitStatus,
    ) {
        let process = self.hosts[host].processes.get_mut(id);
        let Some(process) = process.filter(|process| process.running && process.pid == pid) else {
            return;
        };
        process.running = false;
        self.transcript.line(self.now, format_args!("{}: {id} {status}", self.names[host]));
        let change = ProcessChange::Exited(status);
        self.tell_soon(host, Event::Process { id: id.clone(), change });
    }

    /// The node process dies; what it started lives on.
    pub(super) fn kill_node(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        state.core = None;
        state.life += 1;
        self.transcript.line(self.now, format_args!("{}: node dies", self.names[host]));
        self.leave_office(host);
    }

    /// The host loses its power; its disk keeps what is durable.
    pub(super) fn power_off(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        state.core = None;
        state.on = false;
        state.life += 1;
        state.power += 1;
        state.processes.clear();
        state.disk_free_at = None;
        self.transcript.line(self.now, format_args!("{}: loses power", self.names[host]));
        self.leave_office(host);
    }
}

impl Process {
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        self.running && self.ready_at <= now
    }
}
