//! Decides what is done about the processes of this host, from the plan in force here.
//!
//! ```text
//!   in the plan            not in the plan       drain over          ended
//!  ────────────▶ Wanted ──────────────────▶ Leaving ───────▶ Stopping ────▶ removed
//! ```
//! A crashed process is started again without asking anybody: see `supervisor-core`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::plan::Plan;
use evenkeel_control::report::{InstanceReport, InstanceState};
use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::place::Host;
use evenkeel_model::random::Rng;
use evenkeel_model::service::{HealthCheck, Probe, Service};
use evenkeel_model::system::System;
use evenkeel_model::time::Timestamp;
use evenkeel_supervisor_core::supervision::{self, Policy, Purpose, State, Supervision};

use crate::action::Action;
use crate::event::ProcessChange;
use crate::process::{
    ProcessId, ProcessSpec, gateway_spec, private_address, replica_address, replica_spec,
};
use crate::settings::{Adopted, Settings};
use crate::status::ProcessStatus;

/// Time for which a port that was found taken is not given to a replica again.
const PORT_TAKEN_FOR: Duration = Duration::from_secs(600);

/// Time between SIGTERM and SIGKILL for processes that no plan knows any more.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The processes of this host.
#[derive(Debug)]
pub(crate) struct Agent {
    processes: BTreeMap<ProcessId, Process>,
    /// What an earlier node process left on a host that has lost its plan: left alone until a
    /// plan says which of them are wanted.
    unplanned: Vec<Adopted>,
    /// Ports that other programs hold, and until when that is believed.
    ports_taken: BTreeMap<u16, Timestamp>,
    rng: Rng,
    stopping: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Process {
    /// Absent for a process that no plan knows: it is only stopped.
    spec: Option<ProcessSpec>,
    check: Option<(HealthCheck, SocketAddr)>,
    supervision: Supervision,
    /// When it is to be told to stop.
    leave_at: Option<Timestamp>,
    draining: bool,
    /// What its log said when it last ended or failed its check.
    last_lines: Vec<String>,
    /// Time for which it may end old requests when it leaves without having been drained.
    drain: Duration,
}

impl Agent {
    /// Starts with no process.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            processes: BTreeMap::new(),
            unplanned: Vec::new(),
            ports_taken: BTreeMap::new(),
            rng: Rng::from_seed(seed),
            stopping: false,
            actions: VecDeque::new(),
        }
    }

    /// Takes over the processes that an earlier node process left: those of the plan are kept,
    /// the others stopped; without a plan all go on. Called once, before the first
    /// [`Self::reconcile`].
    pub(crate) fn adopt(
        &mut self,
        settings: &Settings,
        plan: Option<&Plan>,
        adopted: Vec<Adopted>,
        now: Timestamp,
    ) {
        // First everything is wanted, then it is found to run already: nothing starts twice.
        self.want(settings, plan, now);
        let planned = |adopted: &Adopted| plan.is_some() || adopted.id == ProcessId::Gateway;
        let (planned, unplanned) = adopted.into_iter().partition(planned);
        self.take_over(planned, now);
        self.unplanned = unplanned;
    }

    fn take_over(&mut self, adopted: Vec<Adopted>, now: Timestamp) {
        for Adopted { id, pid } in adopted {
            let rng = self.next_rng();
            let process = self.processes.entry(id).or_insert_with(|| Process::unknown(rng));
            if let Some(pid) = pid {
                process.supervision.handle_event(supervision::Event::Adopted { pid }, now);
            }
        }
    }

    /// Stops everything for good.
    pub(crate) fn stop(&mut self, now: Timestamp) {
        self.stopping = true;
        let unplanned = std::mem::take(&mut self.unplanned);
        self.take_over(unplanned, now);
    }

    /// Makes the processes follow the plan and collects what is to be done about them.
    pub(crate) fn reconcile(&mut self, settings: &Settings, plan: Option<&Plan>, now: Timestamp) {
        if !self.stopping {
            self.want(settings, plan, now);
        }
        if plan.is_some() {
            let unplanned = std::mem::take(&mut self.unplanned);
            self.take_over(unplanned, now);
        }
        loop {
            self.leave(now);
            for (id, process) in &mut self.processes {
                process.supervision.handle_timeout(now);
                while let Some(action) = process.supervision.poll_action() {
                    self.actions.extend(process.translate(id, action));
                }
            }
            let before = self.processes.len();
            let removed = self.processes.extract_if(.., |_, process| process.is_gone());
            self.actions.extend(removed.map(|(id, _)| Action::RemoveProcess { id }));
            // The end of the last replica lets the gateway stop.
            if self.processes.len() == before {
                break;
            }
        }
        self.ports_taken.retain(|_, until| now < *until);
    }

    /// Makes every process of the plan wanted, and everything else leave.
    fn want(&mut self, settings: &Settings, plan: Option<&Plan>, now: Timestamp) {
        let system = settings.system();
        let Some(host) = system.hosts.get(&settings.host) else {
            return self.leave_all(now);
        };
        if !self.processes.contains_key(&ProcessId::Gateway) {
            let process = gateway(settings, host, self.next_rng());
            self.add(ProcessId::Gateway, process, now);
        }
        let instances = plan.into_iter().flat_map(|plan| plan.on_host(&host.name));
        let wanted: BTreeMap<ProcessId, &Instance> =
            instances.map(|instance| (ProcessId::Replica(instance.id.clone()), instance)).collect();
        for (id, instance) in &wanted {
            if let Some(process) = self.processes.get_mut(id) {
                process.draining = instance.phase == InstancePhase::Draining;
                process.leave_at = None;
                continue;
            }
            let rng = self.next_rng();
            let definition = plan.and_then(|plan| plan.definition(instance));
            if let Some(service) = definition {
                let process = replica(system, host, service, instance, settings.protected, rng);
                self.add(id.clone(), process, now);
            }
        }
        for (id, process) in &mut self.processes {
            let is_replica = *id != ProcessId::Gateway;
            if is_replica && !wanted.contains_key(id) && process.leave_at.is_none() {
                let drain = if process.draining { Duration::ZERO } else { process.drain };
                process.leave_at = Some(now + drain);
            }
        }
    }

    /// Makes everything leave: this host is no longer part of the system.
    fn leave_all(&mut self, now: Timestamp) {
        for process in self.processes.values_mut() {
            process.leave_at.get_or_insert(now + process.drain);
        }
    }

    fn add(&mut self, id: ProcessId, mut process: Process, now: Timestamp) {
        process.supervision.handle_event(supervision::Event::Wanted(true), now);
        self.processes.insert(id, process);
    }

    /// Tells processes to stop whose time has come; the gateway last, so that replicas can reach
    /// the key-value API until they have ended.
    fn leave(&mut self, now: Timestamp) {
        let stopping = self.stopping;
        let alone = self.processes.keys().all(|id| *id == ProcessId::Gateway);
        for (id, process) in &mut self.processes {
            // What does not run has nothing to drain.
            let due = process.leave_at.is_some_and(|at| at <= now || !process.is_running())
                || (stopping && (alone || *id != ProcessId::Gateway));
            if due && process.supervision.is_wanted() {
                process.supervision.handle_event(supervision::Event::Wanted(false), now);
            }
        }
    }

    /// Takes in what happened to a process.
    pub(crate) fn handle_change(&mut self, id: &ProcessId, change: ProcessChange, now: Timestamp) {
        let Some(process) = self.processes.get_mut(id) else {
            self.note_unplanned(id, &change);
            return;
        };
        let event = match change {
            ProcessChange::Started { pid } => {
                if let Some(port) = process.port() {
                    self.ports_taken.remove(&port);
                }
                supervision::Event::Started { pid }
            }
            ProcessChange::StartFailed { reason } => supervision::Event::StartFailed { reason },
            ProcessChange::PortTaken => {
                let port = process.port().unwrap_or(0);
                self.ports_taken.insert(port, now + PORT_TAKEN_FOR);
                let reason = format!("port {port} is taken by another program");
                supervision::Event::StartFailed { reason }
            }
            ProcessChange::Exited(status) => {
                self.actions.push_back(Action::ReadLog { id: id.clone() });
                supervision::Event::Exited(status)
            }
            ProcessChange::Lost => supervision::Event::Lost,
        };
        process.supervision.handle_event(event, now);
    }

    fn note_unplanned(&mut self, id: &ProcessId, change: &ProcessChange) {
        if let Some(adopted) = self.unplanned.iter_mut().find(|adopted| adopted.id == *id) {
            adopted.pid = match change {
                ProcessChange::Started { pid } => Some(*pid),
                ProcessChange::Exited(_) | ProcessChange::Lost => None,
                ProcessChange::StartFailed { .. } | ProcessChange::PortTaken => adopted.pid,
            };
        }
    }

    /// Takes in the answer to a health question.
    pub(crate) fn handle_check(
        &mut self,
        id: &ProcessId,
        number: u64,
        purpose: Purpose,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let was_ill = process.supervision.unready().is_some();
        let event = supervision::Event::CheckFinished { number, purpose, result };
        process.supervision.handle_event(event, now);
        if !was_ill && process.supervision.unready().is_some() {
            self.actions.push_back(Action::ReadLog { id: id.clone() });
        }
    }

    /// Takes in what the log of a process said last.
    pub(crate) fn handle_log(&mut self, id: &ProcessId, lines: Vec<String>) {
        if let Some(process) = self.processes.get_mut(id) {
            process.last_lines = lines;
        }
    }

    /// Returns when [`Self::reconcile`] must next be called.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let leaving = self.processes.values().filter(|process| process.supervision.is_wanted());
        let leaving = leaving.filter_map(|process| process.leave_at);
        let supervisions = self.processes.values();
        leaving.chain(supervisions.filter_map(|process| process.supervision.poll_timeout())).min()
    }

    /// Returns the next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns whether nothing is left to be stopped.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.processes.is_empty()
    }

    /// Returns whether the gateway runs and answers.
    pub(crate) fn is_gateway_up(&self) -> bool {
        self.processes
            .get(&ProcessId::Gateway)
            .is_some_and(|gateway| gateway.state() == InstanceState::Ready)
    }

    /// Returns ports that other programs hold.
    pub(crate) fn ports_taken(&self) -> BTreeSet<u16> {
        self.ports_taken.keys().copied().collect()
    }

    /// Returns what is reported of each replica.
    pub(crate) fn reports(&self) -> Vec<InstanceReport> {
        let report = |(id, process): (&ProcessId, &Process)| match id {
            ProcessId::Gateway => None,
            ProcessId::Replica(id) => Some(InstanceReport {
                id: id.clone(),
                state: process.state(),
                restarts: process.supervision.crashes(),
                crash_looping: process.supervision.is_crash_looping(),
                last_error: process.last_error(),
                last_lines: match process.state() {
                    InstanceState::Ready => Vec::new(),
                    InstanceState::Starting
                    | InstanceState::NotReady
                    | InstanceState::BackingOff
                    | InstanceState::Failed
                    | InstanceState::Stopping => process.last_lines.clone(),
                },
            }),
        };
        self.processes.iter().filter_map(report).collect()
    }

    /// Returns what people see of each process.
    pub(crate) fn statuses(&self) -> Vec<ProcessStatus> {
        let status = |(id, process): (&ProcessId, &Process)| ProcessStatus {
            id: id.clone(),
            state: process.state(),
            pid: process.supervision.pid(),
            restarts: process.supervision.crashes(),
            last_error: process.last_error(),
        };
        self.processes.iter().map(status).collect()
    }

    fn next_rng(&mut self) -> Rng {
        Rng::from_seed(self.rng.next_u64())
    }
}

impl Process {
    /// A process that no plan knows.
    fn unknown(rng: Rng) -> Self {
        let policy = Policy { check: None, start_grace: STOP_GRACE, stop_grace: STOP_GRACE };
        Self {
            spec: None,
            check: None,
            supervision: Supervision::new(policy, rng),
            leave_at: None,
            draining: true,
            last_lines: Vec::new(),
            drain: Duration::ZERO,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.supervision.state(), State::Starting | State::Running { .. })
    }

    fn is_gone(&self) -> bool {
        self.supervision.state() == State::Stopped && !self.supervision.is_wanted()
    }

    fn port(&self) -> Option<u16> {
        self.spec.as_ref()?.binds.map(|address| address.port())
    }

    fn last_error(&self) -> Option<String> {
        let unready =
            self.supervision.unready().map(|why| format!("fails its health check: {why}"));
        unready.or_else(|| self.supervision.last_failure().map(ToString::to_string))
    }

    fn state(&self) -> InstanceState {
        match self.supervision.state() {
            State::Starting => InstanceState::Starting,
            State::Running { ready: true } => InstanceState::Ready,
            State::Running { ready: false } => {
                let ill = self.supervision.has_been_ready() || self.supervision.unready().is_some();
                if ill { InstanceState::NotReady } else { InstanceState::Starting }
            }
            State::BackingOff => InstanceState::BackingOff,
            State::Stopping | State::Stopped => InstanceState::Stopping,
        }
    }

    /// Says what an action of the supervision means for this process.
    fn translate(&self, id: &ProcessId, action: supervision::Action) -> Option<Action> {
        let id = id.clone();
        Some(match action {
            supervision::Action::Start => Action::StartProcess { spec: self.spec.clone()? },
            supervision::Action::Terminate => Action::TerminateProcess { id },
            supervision::Action::Kill => Action::KillProcess { id },
            supervision::Action::Check { number, purpose } => {
                let (check, address) = self.check.clone()?;
                let probe = match (purpose, check.alive) {
                    (Purpose::Alive, Some(path)) => Probe::Http(path),
                    (Purpose::Alive, None) | (Purpose::Ready, _) => check.probe,
                };
                Action::Check { id, number, purpose, probe, address, timeout: check.timeout }
            }
        })
    }
}

/// Makes the gateway's process. It is asked whether it answers, but never ended for being slow:
/// an overloaded gateway that is killed makes the overload worse.
fn gateway(settings: &Settings, host: &Host, rng: Rng) -> Process {
    let spec = gateway_spec(settings.system(), host, &settings.gateway_command, settings.protected);
    let check = HealthCheck {
        probe: Probe::Http("/state".to_owned()),
        every: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        unhealthy_after: 3,
        healthy_after: 1,
        alive: None,
    };
    let policy = Policy {
        check: Some(check.clone()),
        start_grace: Duration::from_secs(10),
        stop_grace: STOP_GRACE,
    };
    let address = private_address(host, settings.system().ports.gateway_admin);
    Process::wanted(spec, policy, check, address, rng)
}

/// Makes the process of a replica that runs `service`.
fn replica(
    system: &System,
    host: &Host,
    service: &Service,
    instance: &Instance,
    protected: bool,
    rng: Rng,
) -> Process {
    let policy = Policy {
        check: Some(service.health.clone()),
        start_grace: service.start_grace,
        stop_grace: service.stop_grace,
    };
    let spec = replica_spec(system, host, service, instance, protected);
    let address = replica_address(host, instance.port, protected);
    let mut process = Process::wanted(spec, policy, service.health.clone(), address, rng);
    process.draining = instance.phase == InstancePhase::Draining;
    process.drain = service.drain;
    process
}

impl Process {
    fn wanted(
        spec: ProcessSpec,
        policy: Policy,
        check: HealthCheck,
        address: SocketAddr,
        rng: Rng,
    ) -> Self {
        Self {
            spec: Some(spec),
            check: Some((check, address)),
            supervision: Supervision::new(policy, rng),
            leave_at: None,
            draining: false,
            last_lines: Vec::new(),
            drain: Duration::ZERO,
        }
    }
}
