//! What can happen, and to whom. What is meant for a process that is paused waits for it; what is
//! meant for one that is gone is lost.

use std::time::Duration;

use evenkeel_consensus::log::Snapshot;
use evenkeel_consensus::replica::Event as MemberEvent;
use evenkeel_consensus::settings::MemberId;
use evenkeel_gateway_core::balancer::EndpointKey;
use evenkeel_gateway_core::health::Finding;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event;
use evenkeel_node_core::process::ProcessSpec;
use evenkeel_supervisor_core::status::ExitStatus;

use super::World;
use super::calls::{CallId, Outcome};
use super::faults::Fault;
use super::host::File;

/// One life of a host's node process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLife {
    pub(super) host: usize,
    pub(super) life: u64,
}

/// One life of another process of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessLife {
    pub(super) host: usize,
    pub(super) pid: u32,
}

/// What lives and dies, runs and is paused, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Node(NodeLife),
    Process(ProcessLife),
}

/// Something that happens at some time.
#[derive(Debug)]
pub(super) enum Happening {
    /// Bytes reach a voter.
    Message {
        to: usize,
        bytes: Vec<u8>,
    },
    /// A voter learns what became of a snapshot that it sent.
    SnapshotSent {
        at: NodeLife,
        to: MemberId,
        ok: bool,
    },
    /// A voter takes in what has arrived.
    Step {
        at: NodeLife,
    },
    /// A voter's timer.
    MemberWake {
        at: NodeLife,
        due: Timestamp,
    },
    /// The log's disk is done with a write, or a snapshot.
    Written {
        at: NodeLife,
    },
    SnapshotSaved {
        at: NodeLife,
    },
    SnapshotEncoded {
        at: NodeLife,
        snapshot: Box<Snapshot>,
    },
    /// The log has no room, or has room again.
    LogSpace {
        at: NodeLife,
    },
    /// The host's loop asked to be woken, or is told something.
    Wake {
        at: NodeLife,
        due: Timestamp,
    },
    Tell {
        at: NodeLife,
        event: Box<Event>,
    },
    /// A probe reaches a host; its answer reaches the one that asked.
    Probe {
        from: NodeLife,
        to: usize,
        asked: Timestamp,
    },
    ProbeAnswer {
        at: NodeLife,
        from: usize,
        asked: Timestamp,
    },
    /// The loop looks at who leads.
    Announce {
        at: NodeLife,
    },
    /// A host that does not vote asks who leads.
    Follow {
        at: NodeLife,
    },
    /// A request to the store is looked at again.
    EffortDue {
        at: NodeLife,
        effort: u64,
        attempt: u64,
    },
    /// The host's disk is done with a file.
    Saved {
        at: NodeLife,
        file: File,
    },
    /// The plan in the store was seen to change.
    LookAtPlan {
        at: NodeLife,
    },
    /// A new leader reads the plan.
    TakeOffice {
        at: NodeLife,
        term: u64,
    },
    /// A shim has tried to start a process. A `power` is the time between two losses of power.
    Start {
        host: usize,
        power: u64,
        spec: Box<ProcessSpec>,
    },
    /// A process ends.
    Exit {
        host: usize,
        pid: u32,
        status: ExitStatus,
    },
    /// A connection is open; a question arrives; a call ends for the one that made it.
    Connect {
        call: CallId,
    },
    Arrive {
        call: CallId,
    },
    Settle {
        call: CallId,
        outcome: Outcome,
    },
    /// A gateway's timer, its look at the routes on disk, the end of a check, a request's timer.
    GateWake {
        at: ProcessLife,
        due: Timestamp,
    },
    GateLoad {
        at: ProcessLife,
    },
    Checked {
        at: ProcessLife,
        endpoint: EndpointKey,
        finding: Finding,
    },
    CheckMeets {
        at: ProcessLife,
        check: Check,
    },
    ExchangeDue {
        at: ProcessLife,
        exchange: u64,
        step: u64,
    },
    /// A client sends.
    Send {
        client: usize,
    },
    /// A node process starts, on a host that may have been without power.
    Boot {
        host: usize,
    },
    /// Something breaks, or ends to be broken.
    Break,
    Mend(Fault),
    Resume {
        unit: Unit,
    },
}

/// A health check on its way.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) endpoint: EndpointKey,
    pub(super) id: evenkeel_gateway_core::table::EndpointId,
    pub(super) to: usize,
    pub(super) port: u16,
    pub(super) times_out_at: Timestamp,
}

impl World {
    /// Lets something happen, unless it is meant for somebody who does not run now.
    pub(super) fn happen(&mut self, happening: Happening) {
        if let Some(unit) = self.unit_of(&happening)
            && let Some(held) = self.held_by(unit)
        {
            held.push(happening);
            return;
        }
        match happening {
            Happening::Message { .. }
            | Happening::SnapshotSent { .. }
            | Happening::Step { .. }
            | Happening::MemberWake { .. }
            | Happening::Written { .. }
            | Happening::SnapshotSaved { .. }
            | Happening::SnapshotEncoded { .. }
            | Happening::LogSpace { .. } => self.happen_to_voter(happening),
            Happening::GateWake { .. }
            | Happening::GateLoad { .. }
            | Happening::Checked { .. }
            | Happening::CheckMeets { .. }
            | Happening::ExchangeDue { .. } => self.happen_to_gateway(happening),
            Happening::Start { host, power, spec } => {
                if self.hosts[host].power == power {
                    self.start_process(host, &spec);
                }
            }
            Happening::Exit { host, pid, status } => self.end_process(host, pid, status),
            Happening::Connect { call } => self.connect(call),
            Happening::Arrive { call } => self.arrive_call(call),
            Happening::Settle { call, outcome } => self.settle(call, outcome),
            Happening::Send { client } => self.send(client),
            Happening::Boot { host } => self.boot(host),
            Happening::Break => self.break_something(),
            Happening::Mend(fault) => self.mend(fault),
            Happening::Resume { unit } => self.resume(unit),
            Happening::Wake { .. }
            | Happening::Tell { .. }
            | Happening::Probe { .. }
            | Happening::ProbeAnswer { .. }
            | Happening::Announce { .. }
            | Happening::Follow { .. }
            | Happening::EffortDue { .. }
            | Happening::Saved { .. }
            | Happening::LookAtPlan { .. }
            | Happening::TakeOffice { .. } => self.happen_to_node(happening),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is meant for others is sent elsewhere"
    )]
    fn happen_to_node(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { at, due } => self.wake(at, due),
            Happening::Tell { at, event } => {
                self.touch(at, |core, now| core.handle_event(*event, now));
            }
            Happening::Probe { from, to, asked } => self.answer_probe(from, to, asked),
            Happening::ProbeAnswer { at, from, asked } => self.take_probe_answer(at, from, asked),
            Happening::Announce { at } => self.announce(at),
            Happening::Follow { at } => self.follow(at),
            Happening::EffortDue { at, effort, attempt } => self.effort_due(at, effort, attempt),
            Happening::Saved { at, file } => self.saved(at, file),
            Happening::LookAtPlan { at } => self.look_at_plan(at),
            Happening::TakeOffice { at, term } => self.take_office(at, term),
            _ => {}
        }
    }

    /// Returns who must run for something to happen.
    fn unit_of(&self, happening: &Happening) -> Option<Unit> {
        match happening {
            Happening::SnapshotSent { at, .. }
            | Happening::Step { at }
            | Happening::MemberWake { at, .. }
            | Happening::Wake { at, .. }
            | Happening::Tell { at, .. }
            | Happening::ProbeAnswer { at, .. }
            | Happening::Announce { at }
            | Happening::Follow { at }
            | Happening::EffortDue { at, .. }
            | Happening::LookAtPlan { at }
            | Happening::TakeOffice { at, .. } => Some(Unit::Node(*at)),
            Happening::Message { to, .. } | Happening::Probe { to, .. } => {
                Some(Unit::Node(self.node_life(*to)))
            }
            Happening::GateWake { at, .. }
            | Happening::GateLoad { at }
            | Happening::Checked { at, .. }
            | Happening::ExchangeDue { at, .. } => Some(Unit::Process(*at)),
            Happening::Arrive { call } => self.callee(*call),
            Happening::Settle { call, .. } => self.caller(*call),
            // Connections are opened, and disks work, without the process that waits for it.
            Happening::Connect { .. }
            | Happening::CheckMeets { .. }
            | Happening::Written { .. }
            | Happening::SnapshotSaved { .. }
            | Happening::SnapshotEncoded { .. }
            | Happening::LogSpace { .. }
            | Happening::Saved { .. }
            | Happening::Start { .. }
            | Happening::Exit { .. }
            | Happening::Send { .. }
            | Happening::Boot { .. }
            | Happening::Break
            | Happening::Mend(_)
            | Happening::Resume { .. } => None,
        }
    }

    /// Returns where things wait for a unit that is paused.
    pub(super) fn held_by(&mut self, unit: Unit) -> Option<&mut Vec<Happening>> {
        match unit {
            Unit::Node(at) => {
                let node = self.hosts[at.host].node_mut(at.life)?;
                node.paused.then_some(&mut node.held)
            }
            Unit::Process(at) => {
                let process = self.hosts[at.host].process_mut(at.pid)?;
                process.paused.then_some(&mut process.held)
            }
        }
    }

    /// Stops a unit for a while.
    pub(super) fn pause(&mut self, unit: Unit, length: Duration) {
        match unit {
            Unit::Node(at) => {
                let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
                node.paused = true;
            }
            Unit::Process(at) => {
                let Some(process) = self.hosts[at.host].process_mut(at.pid) else { return };
                process.paused = true;
            }
        }
        self.after(length, Happening::Resume { unit });
    }

    /// Lets a unit run again: first comes what had waited, but timers may come before the rest.
    pub(super) fn resume(&mut self, unit: Unit) {
        let now = self.now;
        let mut held = match unit {
            Unit::Node(at) => {
                let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
                if node.paused {
                    node.fit_since = now;
                }
                node.paused = false;
                std::mem::take(&mut node.held)
            }
            Unit::Process(at) => {
                let Some(process) = self.hosts[at.host].process_mut(at.pid) else { return };
                if process.paused {
                    process.noticed_pause(now);
                }
                process.paused = false;
                std::mem::take(&mut process.held)
            }
        };
        if self.rng.chance(1, 2) {
            held.sort_by_key(|happening| !matches!(happening, Happening::Wake { .. }));
        }
        for happening in held {
            self.after(Duration::ZERO, happening);
        }
        if let Unit::Node(at) = unit {
            self.plan_step(at);
        }
    }

    /// Puts an event into a voter's inbox.
    pub(super) fn arrive(&mut self, host: usize, event: MemberEvent) {
        let at = self.node_life(host);
        let Some(process) = self.hosts[host].member_process() else { return };
        process.inbox.push_back(event);
        self.plan_step(at);
    }
}
