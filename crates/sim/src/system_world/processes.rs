//! The processes of a host behind their shims: starts, ends, pauses, adoption.

use std::time::Duration;

use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::{Event, ProcessChange};
use evenkeel_node_core::process::{ProcessId, ProcessSpec};
use evenkeel_supervisor_core::status::ExitStatus;

use super::World;
use super::gate::Gate;
use super::happening::{Happening, ProcessLife, Unit};

/// A process behind its shim.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) running: bool,
    pub(super) ready_at: Timestamp,
    pub(super) port: Option<u16>,
    /// Whether it ends only by SIGKILL.
    stubborn: bool,
    /// The machine in it, if it is the gateway.
    pub(super) gate: Option<Box<Gate>>,
    pub(super) paused: bool,
    pub(super) held: Vec<Happening>,
    /// Since when it has answered without a break.
    pub(super) fit_since: Timestamp,
}

impl Process {
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        let has_table = self.gate.as_ref().is_none_or(|gate| gate.balancer.is_some());
        self.running && !self.paused && has_table && self.ready_at <= now
    }

    /// Notes that it did not run until now.
    pub(super) fn noticed_pause(&mut self, now: Timestamp) {
        self.fit_since = now;
        if let Some(gate) = &mut self.gate {
            gate.awake_since = now;
        }
    }

    /// Returns whether its port is open.
    pub(super) fn listens(&self, now: Timestamp) -> bool {
        self.running && self.ready_at <= now
    }
}

impl World {
    /// A shim starts its process, or cannot.
    pub(super) fn start_process(&mut self, host: usize, spec: &ProcessSpec) {
        let port = spec.binds.map(|address| address.port());
        let id = spec.id.clone();
        let taken = port.is_some_and(|port| self.hosts[host].ports_taken.contains(&port));
        if self.check_start(host, &id, port) || taken {
            return self.tell_soon(host, Event::Process { id, change: ProcessChange::PortTaken });
        }
        if self.storming && self.rng.chance(1, 50) {
            let change = ProcessChange::StartFailed { reason: "out of memory".to_owned() };
            return self.tell_soon(host, Event::Process { id, change });
        }
        self.pids += 1;
        let pid = self.pids;
        let slow = self.rng.chance(1, 20);
        let wait = match id {
            ProcessId::Gateway => self.draw_millis(5, 100),
            ProcessId::Replica(_) => self.draw_millis(10, if slow { 6000 } else { 1500 }),
        };
        let ready_at = self.now + wait;
        let at = ProcessLife { host, pid };
        let gate = (id == ProcessId::Gateway).then(|| {
            self.agenda.plan(ready_at, Happening::GateLoad { at });
            Box::new(Gate::new(ready_at, self.hosts[host].rate, self.rng.next_u64()))
        });
        let process = Process {
            pid,
            running: true,
            ready_at,
            port,
            stubborn: self.rng.chance(1, 20),
            gate,
            paused: false,
            held: Vec::new(),
            fit_since: ready_at,
        };
        self.hosts[host].processes.insert(id.clone(), process);
        self.transcript.line(self.now, format_args!("{}: {id} runs", self.names[host]));
        self.tell_soon(host, Event::Process { id, change: ProcessChange::Started { pid } });
    }

    pub(super) fn signal(
        &mut self,
        host: usize,
        id: &ProcessId,
        wait: Duration,
        kill: bool,
        status: ExitStatus,
    ) {
        let Some(process) = self.hosts[host].processes.get(id) else { return };
        // A process that is paused takes no SIGTERM.
        if process.running && (kill || !(process.stubborn || process.paused)) {
            let pid = process.pid;
            self.after(wait, Happening::Exit { host, pid, status });
        }
    }

    /// A process ends; its shim keeps the place.
    pub(super) fn end_process(&mut self, host: usize, pid: u32, status: ExitStatus) {
        let mut processes = self.hosts[host].processes.iter_mut();
        let Some((id, process)) =
            processes.find(|(_, process)| process.running && process.pid == pid)
        else {
            return;
        };
        let id = id.clone();
        process.running = false;
        process.gate = None;
        process.held.clear();
        self.transcript.line(self.now, format_args!("{}: {id} {status}", self.names[host]));
        self.break_calls(Unit::Process(ProcessLife { host, pid }));
        let change = ProcessChange::Exited(status);
        self.tell_soon(host, Event::Process { id, change });
    }

    /// A shim is killed, and what it holds with it.
    pub(super) fn lose_shim(&mut self, host: usize, id: &ProcessId) {
        let Some(process) = self.hosts[host].processes.remove(id) else { return };
        self.transcript.line(self.now, format_args!("{}: the shim of {id} dies", self.names[host]));
        self.break_calls(Unit::Process(ProcessLife { host, pid: process.pid }));
        self.tell_soon(host, Event::Process { id: id.clone(), change: ProcessChange::Lost });
    }
}
