//! A host: its node process with the real machines in it, its disk and its other processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_consensus::replica::Replica;
use evenkeel_consensus::settings::{Limits, Settings as MemberSettings, StateLimits};
use evenkeel_control::controller;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::event::Event;
use evenkeel_node_core::host_loop::HostLoop;
use evenkeel_node_core::process::ProcessId;
use evenkeel_node_core::settings::{Adopted, Restored, Settings, Timings};

use super::effort::Effort;
use super::follow::Follow;
use super::happening::{Happening, NodeLife, ProcessLife};
use super::processes::Process;
use super::{World, member_of};
use crate::clock::Clock;
use crate::member::{self, Member};

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    /// Its node process, while it runs.
    pub(super) node: Option<Node>,
    /// Counts its node processes.
    pub(super) life: u64,
    /// Counts the times it lost its power.
    pub(super) power: u64,
    /// Whether it has power.
    pub(super) on: bool,
    /// What its clocks count while 1000 pass.
    pub(super) rate: u64,
    /// The voter on it.
    pub(super) member: Option<Member>,
    /// On its disk.
    pub(super) plan: Option<Plan>,
    pub(super) routes: Option<RouteTable>,
    pub(super) disk_full: bool,
    /// How much longer its disk takes than usual.
    pub(super) slowness: u64,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// Ports that other programs hold.
    pub(super) ports_taken: BTreeSet<u16>,
    /// The highest number of a plan that was ever in force.
    pub(super) plan_number_max: u64,
    /// Since when each other host and this one have reached each other without a break.
    pub(super) linked_since: Vec<Timestamp>,
}

/// What a crash of the node process takes away.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) core: HostLoop,
    pub(super) clock: Clock,
    pub(super) wake_at: Option<Timestamp>,
    /// Who leads, as its coordinator sees it.
    pub(super) view: View,
    /// Whether its loop is about to look at that.
    pub(super) announcing: bool,
    pub(super) follow: Follow,
    pub(super) efforts: BTreeMap<u64, Effort>,
    /// What is to be written to its disk, and what is being written.
    pub(super) plan_file: Writer<Plan>,
    pub(super) routes_file: Writer<RouteTable>,
    pub(super) log_full: bool,
    pub(super) handover_at: Timestamp,
    /// Hosts that have reported since it leads.
    pub(super) heard: BTreeSet<usize>,
    pub(super) paused: bool,
    pub(super) held: Vec<Happening>,
    /// Since when it has answered without a break.
    pub(super) fit_since: Timestamp,
}

/// Who leads, as one host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) leader: Option<usize>,
    pub(super) term: u64,
    /// Whether this host leads and holds every change of the leaders before it.
    pub(super) is_self: bool,
    pub(super) since: Timestamp,
}

/// A file of which the newest of several versions is written.
#[derive(Debug)]
pub(super) struct Writer<T> {
    next: Option<T>,
    under_way: Option<T>,
}

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    Plan,
    Routes,
}

impl<T> Writer<T> {
    const fn new() -> Self {
        Self { next: None, under_way: None }
    }

    pub(super) fn write(&mut self, version: T) {
        self.next = Some(version);
    }

    /// Begins to write, unless it does so already or nothing waits.
    fn begin(&mut self) -> bool {
        if self.under_way.is_none() {
            self.under_way = self.next.take();
            return self.under_way.is_some();
        }
        false
    }

    const fn finish(&mut self) -> Option<T> {
        self.under_way.take()
    }
}

impl Host {
    pub(super) fn node_mut(&mut self, life: u64) -> Option<&mut Node> {
        self.node.as_mut().filter(|_| self.life == life)
    }

    pub(super) fn process_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.processes.values_mut().find(|process| process.running && process.pid == pid)
    }

    pub(super) fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.values().find(|process| process.running && process.pid == pid)
    }

    pub(super) fn member_process(&mut self) -> Option<&mut member::Process> {
        self.member.as_mut()?.process.as_mut()
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        Some(&self.member.as_ref()?.process.as_ref()?.replica)
    }

    pub(super) fn core(&self) -> Option<&HostLoop> {
        self.node.as_ref().map(|node| &node.core)
    }
}

impl World {
    /// Makes a host that was never started.
    pub(super) fn new_host(&mut self, host: usize) -> Host {
        let rate = self.habits.rate(&mut self.rng);
        let member = self.is_voter(host).then(|| {
            let settings = MemberSettings {
                member: member_of(host),
                voters: self.voters.iter().map(|voter| member_of(*voter)).collect(),
                heartbeat: self.heartbeat,
                election_min: self.election_min,
                seed: self.seed,
                limits: Limits {
                    state: StateLimits { idempotency_max: 8192, ..StateLimits::STANDARD },
                    compact_entries: if self.rng.chance(1, 2) { 20 } else { 200 },
                    tail_entries: self.rng.below(10),
                    ..Limits::STANDARD
                },
                defect: None,
            };
            let mut member = Member::new(settings, &mut self.rng);
            member.clock.rate = rate;
            member
        });
        Host {
            node: None,
            life: 0,
            power: 0,
            on: false,
            rate,
            member,
            plan: None,
            routes: None,
            disk_full: false,
            slowness: 1,
            processes: BTreeMap::new(),
            ports_taken: BTreeSet::new(),
            plan_number_max: 0,
            linked_since: vec![Timestamp::ZERO; self.names.len()],
        }
    }

    pub(super) fn node_life(&self, host: usize) -> NodeLife {
        NodeLife { host, life: self.hosts[host].life }
    }

    /// Starts a host's node process, with power or without.
    pub(super) fn boot(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            return;
        }
        let defect = self.options.defect;
        let seed = self.rng.next_u64();
        let now = self.now;
        let state = &mut self.hosts[host];
        state.on = true;
        state.life += 1;
        let clock = Clock { origin: now, rate: state.rate };
        if let Some(member) = &mut state.member
            && let Err(violation) = member.start(now)
        {
            return self.violate(format!("{}: {violation}", self.names[host]));
        }
        let settings = Settings {
            host: self.names[host].clone(),
            declaration: self.declaration.clone(),
            boot: state.life,
            seed,
            gateway_command: vec!["gateway".to_owned()],
            protected: false,
            timings: Timings::STANDARD,
            control: controller::Settings {
                defect: defect.and_then(super::Defect::of_control),
                ..controller::Settings::STANDARD
            },
            defect: defect.and_then(super::Defect::of_node),
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
        let view = View { leader: None, term: 0, is_self: false, since: now };
        state.node = Some(Node {
            core: HostLoop::new(settings, restored, Timestamp::ZERO),
            clock,
            wake_at: None,
            view,
            announcing: false,
            follow: Follow::default(),
            efforts: BTreeMap::new(),
            plan_file: Writer::new(),
            routes_file: Writer::new(),
            log_full: false,
            handover_at: now,
            heard: BTreeSet::new(),
            paused: false,
            held: Vec::new(),
            fit_since: now,
        });
        self.transcript.line(now, format_args!("{}: node starts", self.names[host]));
        let at = self.node_life(host);
        self.touch(at, |_, _| ());
        if self.is_voter(host) {
            self.after(Duration::from_millis(1), Happening::LogSpace { at });
            self.after(Duration::ZERO, Happening::Step { at });
        } else {
            self.after(Duration::from_millis(1), Happening::Follow { at });
        }
    }

    /// Lets a host's loop handle something, carries out what it wants, and checks what must
    /// always hold.
    pub(super) fn touch(&mut self, at: NodeLife, handle: impl FnOnce(&mut HostLoop, Timestamp)) {
        let now = self.now;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let reading = node.clock.read(now);
        handle(&mut node.core, reading);
        let mut actions = Vec::new();
        while let Some(action) = node.core.poll_action() {
            actions.push(action);
        }
        let next = node.core.poll_timeout().map(|next| node.clock.reaches(next).max(now));
        let wake = next.filter(|next| node.wake_at.is_none_or(|wake_at| *next < wake_at));
        if let Some(due) = wake {
            node.wake_at = Some(due);
            self.agenda.plan(due, Happening::Wake { at, due });
        }
        for action in actions {
            self.act(at, action);
        }
        self.begin_writes(at);
        self.check_host(at.host);
    }

    pub(super) fn wake(&mut self, at: NodeLife, due: Timestamp) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        if node.wake_at != Some(due) {
            return;
        }
        node.wake_at = None;
        self.touch(at, |core, now| core.handle_timeout(now));
    }

    /// Tells a host's loop something after a short while.
    pub(super) fn tell_soon(&mut self, host: usize, event: Event) {
        let at = self.node_life(host);
        let wait = self.draw_millis(0, 5);
        self.after(wait, Happening::Tell { at, event: Box::new(event) });
    }

    /// Begins to write what is to be written.
    fn begin_writes(&mut self, at: NodeLife) {
        let slowness = self.hosts[at.host].slowness;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let begun =
            [(File::Plan, node.plan_file.begin()), (File::Routes, node.routes_file.begin())];
        for (file, _) in begun.into_iter().filter(|(_, begun)| *begun) {
            let micros = self.rng.below(15_000) * slowness;
            let wait = Duration::from_micros(100 + micros).min(Duration::from_secs(3));
            self.after(wait, Happening::Saved { at, file });
        }
    }

    /// The disk is done with a file, unless its node process was killed before.
    pub(super) fn saved(&mut self, at: NodeLife, file: File) {
        let full = self.hosts[at.host].disk_full;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let reason = || "no space left on device".to_owned();
        let event = match file {
            File::Plan => {
                let Some(plan) = node.plan_file.finish() else { return };
                let number = plan.number;
                if full {
                    Event::PlanSaveFailed { number, reason: reason() }
                } else {
                    self.hosts[at.host].plan = Some(plan);
                    Event::PlanSaved { number }
                }
            }
            File::Routes => {
                let Some(routes) = node.routes_file.finish() else { return };
                let generation = routes.generation;
                if full {
                    Event::RoutesFailed { generation, reason: reason() }
                } else {
                    self.check_generation(at.host, generation);
                    self.hosts[at.host].routes = Some(routes);
                    self.announce_routes(at.host);
                    Event::RoutesWritten { generation }
                }
            }
        };
        self.begin_writes(at);
        self.tell_soon(at.host, event);
    }

    /// The node process dies; what it started lives on.
    pub(super) fn kill_node(&mut self, host: usize) {
        if self.hosts[host].node.is_none() {
            return;
        }
        let at = self.node_life(host);
        self.transcript.line(self.now, format_args!("{}: node dies", self.names[host]));
        let rng = &mut self.rng;
        let state = &mut self.hosts[host];
        state.node = None;
        state.life += 1;
        if let Some(member) = &mut state.member {
            member.crash(rng);
        }
        self.break_calls_of_node(at);
    }

    /// The host loses its power; its disk keeps what is durable.
    pub(super) fn power_off(&mut self, host: usize) {
        self.transcript.line(self.now, format_args!("{}: loses power", self.names[host]));
        let rng = &mut self.rng;
        let state = &mut self.hosts[host];
        state.on = false;
        if state.node.take().is_some() {
            state.life += 1;
            if let Some(member) = &mut state.member {
                member.crash(rng);
            }
        }
        state.power += 1;
        state.processes.clear();
        state.ports_taken.clear();
    }

    /// Returns the life of a running process.
    pub(super) fn process_life(&self, host: usize, id: &ProcessId) -> Option<ProcessLife> {
        let process = self.hosts[host].processes.get(id).filter(|process| process.running)?;
        Some(ProcessLife { host, pid: process.pid })
    }
}
