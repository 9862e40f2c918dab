//! A gateway process: the real balancer with its clock, its health checks and its requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Action, Balancer, Event};
use evenkeel_gateway_core::health::{Finding, Identity};
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::table::EndpointId;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use evenkeel_node_core::process::ProcessId;

use super::World;
use super::exchange::Exchange;
use super::happening::{Check, Happening, ProcessLife};
use crate::clock::Clock;

/// Longest sleep of a gateway.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a gateway process holds.
#[derive(Debug)]
pub(super) struct Gate {
    /// Once there are routes on disk.
    pub(super) balancer: Option<Balancer>,
    clock: Clock,
    seed: u64,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    wake_at: Option<Timestamp>,
    /// Since when it has run without a pause, with routes.
    pub(super) awake_since: Timestamp,
}

impl Gate {
    pub(super) const fn new(origin: Timestamp, rate: u64, seed: u64) -> Self {
        Self {
            balancer: None,
            clock: Clock { origin, rate },
            seed,
            exchanges: BTreeMap::new(),
            wake_at: None,
            awake_since: origin,
        }
    }

    pub(super) fn read(&self, now: Timestamp) -> Timestamp {
        self.clock.read(now)
    }

    /// Returns the world's time of a moment on the gateway's clock.
    pub(super) fn reaches(&self, reading: Timestamp) -> Timestamp {
        self.clock.reaches(reading)
    }
}

impl World {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is meant for others is sent elsewhere"
    )]
    pub(super) fn happen_to_gateway(&mut self, happening: Happening) {
        match happening {
            Happening::GateWake { at, due } => {
                let Some(gate) = self.gate_mut(at) else { return };
                if gate.wake_at == Some(due) {
                    gate.wake_at = None;
                    self.run_gate(at);
                }
            }
            Happening::GateLoad { at } => self.load_routes(at),
            Happening::Checked { at, endpoint, finding } => {
                let now = self.now;
                let Some(gate) = self.gate_mut(at) else { return };
                let reading = gate.read(now);
                if let Some(balancer) = &mut gate.balancer {
                    balancer.handle_event(endpoint, Event::CheckFinished(finding), reading);
                }
                self.run_gate(at);
                self.wake_choosing(at);
            }
            Happening::CheckMeets { at, check } => self.meet_check(at, &check),
            Happening::ExchangeDue { at, exchange, step } => self.exchange_due(at, exchange, step),
            _ => {}
        }
    }

    pub(super) fn gate_mut(&mut self, at: ProcessLife) -> Option<&mut Gate> {
        self.hosts[at.host].process_mut(at.pid)?.gate.as_deref_mut()
    }

    /// Returns whether the gateway of a host runs and has routes.
    pub(super) fn has_table(&self, host: usize) -> bool {
        let gateway = self.hosts[host].processes.get(&ProcessId::Gateway);
        let gate = gateway.filter(|process| process.running).and_then(|it| it.gate.as_ref());
        gate.is_some_and(|gate| gate.balancer.is_some())
    }

    /// Routes were written: a gateway that runs notices soon.
    pub(super) fn announce_routes(&mut self, host: usize) {
        if let Some(at) = self.process_life(host, &ProcessId::Gateway) {
            let wait = self.draw_millis(1, 60);
            self.after(wait, Happening::GateLoad { at });
        }
    }

    /// A gateway reads the routes on its host's disk.
    fn load_routes(&mut self, at: ProcessLife) {
        let Some(routes) = self.hosts[at.host].routes.clone() else { return };
        let defect = self.options.defect.and_then(super::Defect::of_gateway);
        let now = self.now;
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        let table = Arc::new(routes);
        let taken = match &mut gate.balancer {
            // The same once more, or an older one that a late look has found, is no fault.
            Some(balancer) => {
                drop(balancer.apply_table(table, reading));
                Ok(())
            }
            None => {
                let policy = Policy { defect, ..Policy::STANDARD };
                gate.awake_since = now;
                Balancer::new(policy, table, Rng::from_seed(gate.seed), reading)
                    .map(|balancer| gate.balancer = Some(balancer))
            }
        };
        if let Err(error) = taken {
            let name = &self.names[at.host];
            self.violate(format!("the gateway of {name} cannot use its routes: {error}"));
        }
        self.run_gate(at);
    }

    /// Lets the balancer do what is due.
    fn run_gate(&mut self, at: ProcessLife) {
        let now = self.now;
        let Some(gate) = self.gate_mut(at) else { return };
        let reading = gate.read(now);
        let Some(balancer) = &mut gate.balancer else { return };
        balancer.handle_timeout(reading);
        let actions: Vec<Action> = std::iter::from_fn(|| balancer.poll_action()).collect();
        let latest = reading + SLEEP_MAX;
        let next = balancer.poll_timeout().map_or(latest, |at| at.min(latest));
        let due = gate.reaches(next).max(now + Duration::from_micros(1));
        if gate.wake_at.is_none_or(|wake_at| due < wake_at) {
            gate.wake_at = Some(due);
            self.agenda.plan(due, Happening::GateWake { at, due });
        }
        for action in actions {
            match action {
                Action::Check { endpoint, id, address, timeout, .. } => {
                    let Some(to) = self.host_at(address.ip()) else { continue };
                    let times_out_at = now + timeout;
                    let port = address.port();
                    let check = Check { endpoint, id, to, port, times_out_at };
                    let wait = self.links.stream(at.host, to, &mut self.rng);
                    self.after(wait, Happening::CheckMeets { at, check });
                }
                Action::Announce { id, from, to } => {
                    let (name, from, to) = (&self.names[at.host], from.as_str(), to.as_str());
                    let line = format_args!("{name}: gateway: {id} was {from}, is {to}");
                    self.transcript.line(now, line);
                }
            }
        }
    }

    pub(super) fn host_at(&self, address: std::net::IpAddr) -> Option<usize> {
        self.system.hosts.values().position(|host| host.address == address)
    }

    /// A health check meets what is there.
    fn meet_check(&mut self, at: ProcessLife, check: &Check) {
        let finding = self.find(at.host, check);
        let back = self.links.stream(check.to, at.host, &mut self.rng);
        let wait = match finding {
            Finding::Silent => check.times_out_at.since(self.now),
            Finding::Passed(_) | Finding::Failed(_) | Finding::Refused => back,
        };
        let in_time = self.now + wait <= check.times_out_at;
        let finding = if in_time { finding } else { Finding::Silent };
        let endpoint = check.endpoint;
        self.after(wait, Happening::Checked { at, endpoint, finding });
    }

    fn find(&self, from: usize, check: &Check) -> Finding {
        let host = &self.hosts[check.to];
        if !host.on || !self.links.linked(from, check.to) {
            return Finding::Silent;
        }
        match &check.id {
            EndpointId::Api(_) => match &host.node {
                None => Finding::Refused,
                Some(node) if node.paused => Finding::Silent,
                Some(node) if node.view.leader.is_some() => Finding::Passed(Identity::Same),
                Some(_) => Finding::Failed(Identity::Same),
            },
            EndpointId::Replica(instance) => {
                let here = host
                    .processes
                    .iter()
                    .find(|(_, process)| process.running && process.port == Some(check.port));
                let Some((id, process)) = here else { return Finding::Refused };
                let own = *id == ProcessId::Replica(instance.clone());
                let identity = if own { Identity::Same } else { Identity::Other };
                if process.paused && process.listens(self.now) {
                    Finding::Silent
                } else if process.is_ready(self.now) {
                    Finding::Passed(identity)
                } else {
                    Finding::Refused
                }
            }
        }
    }
}
