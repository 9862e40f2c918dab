//! What must hold at every moment.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_control::hosts::HostState;
use evenkeel_control::plan::Plan;
use evenkeel_gateway_core::table::{RouteTable, UpstreamId};
use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::name::ServiceName;
use evenkeel_model::place::HostRole;
use evenkeel_node_core::process::ProcessId;

use super::World;

/// After this long without a fault every leader must see every host.
const CALM: Duration = Duration::from_secs(3);

/// Writes a plan in one line.
pub(super) fn describe(plan: &Plan) -> String {
    let text = |instance: &Instance| {
        let draining = if instance.phase == InstancePhase::Draining { "-" } else { "" };
        format!("{draining}{}@{}", instance.id, instance.host)
    };
    plan.instances.iter().map(text).collect::<Vec<_>>().join(" ")
}

impl World {
    /// No host ever goes back to a lower plan, also not across a restart.
    pub(super) fn check_host(&mut self, host: usize) {
        let plan = self.hosts[host].core.as_ref().and_then(|core| core.plan());
        let number = plan.map_or(0, |plan| plan.number);
        let before = self.hosts[host].plan_number_max;
        self.transcript.digest_number(number);
        if number < before {
            self.violate(format!("{} went back from plan {before} to {number}", self.names[host]));
        }
        self.hosts[host].plan_number_max = number;
    }

    /// Routes never go back, and name a replica of every service of which one is ready anywhere.
    pub(super) fn check_routes(&mut self, host: usize, routes: &RouteTable) {
        let name = self.names[host].clone();
        let before = self.hosts[host].generation_max;
        if routes.generation <= before {
            let generation = routes.generation;
            self.violate(format!("{name} writes routes {generation} after routes {before}"));
        }
        if let Err(error) = routes.validate() {
            self.violate(format!("{name} writes routes that are wrong: {error}"));
        }
        if self.hosts[host].plan_number_max == 0 {
            return;
        }
        for service in self.ready_services() {
            let upstream = routes.upstreams.get(&UpstreamId::Service(service.clone()));
            let serving = upstream.is_some_and(|upstream| {
                upstream.endpoints.iter().any(|endpoint| endpoint.phase == InstancePhase::Serving)
            });
            if !serving {
                self.violate(format!("{name} has no route to {service}, which is ready elsewhere"));
            }
        }
    }

    fn ready_services(&self) -> BTreeSet<ServiceName> {
        let processes = self.hosts.iter().flat_map(|host| &host.processes);
        let ready = processes.filter(|(_, process)| process.is_ready(self.now));
        ready
            .filter_map(|(id, _)| match id {
                ProcessId::Gateway => None,
                ProcessId::Replica(id) => Some(id.service.clone()),
            })
            .collect()
    }

    /// No process starts twice, or on a port of the range that another one uses. Returns whether
    /// its port is in use.
    pub(super) fn check_start(&mut self, host: usize, id: &ProcessId, port: Option<u16>) -> bool {
        let clash = self.hosts[host].processes.iter().find(|(other, process)| {
            process.running && (*other == id || (port.is_some() && process.port == port))
        });
        let Some((other, _)) = clash else { return false };
        // A fixed port is free only once the replica that had it before has ended.
        let fixed = port.is_none_or(|port| !self.system.ports.replicas.contains(&port));
        if other == id || !fixed {
            self.violate(format!("{} starts {id} while {other} runs", self.names[host]));
        }
        true
    }

    /// Every plan that is stored follows from the one before.
    pub(super) fn check_plan(&mut self, plan: &Plan) {
        let empty = Plan::empty();
        let before = self.store.plan.as_ref().unwrap_or(&empty);
        let mut violations = Vec::new();
        if plan.number <= before.number || plan.next_serial < before.next_serial {
            violations.push("a number went back".to_owned());
        }
        let mut ports = BTreeSet::new();
        for instance in &plan.instances {
            if !ports.insert((&instance.host, instance.port)) {
                violations.push(format!("two replicas get port {}", instance.port));
            }
            let host = self.system.hosts.get(&instance.host);
            if host.is_none_or(|host| host.role != HostRole::Full) {
                violations.push(format!("{} is placed on a witness", instance.id));
            }
            match before.instance(&instance.id) {
                Some(old) if old.host != instance.host || old.port != instance.port => {
                    violations.push(format!("{} changed its place", instance.id));
                }
                None if instance.id.serial < before.next_serial => {
                    violations.push(format!("{} was used before", instance.id));
                }
                Some(_) | None => {}
            }
        }
        for service in self.system.services.keys() {
            let serving = |plan: &Plan| {
                let serving = |instance: &&Instance| instance.phase == InstancePhase::Serving;
                plan.of_service(service).filter(serving).count()
            };
            if serving(before) > 0 && serving(plan) == 0 {
                violations.push(format!("{service} has no replica left"));
            }
        }
        if let Some(violation) = violations.first() {
            self.violate(format!("plan {}: {violation}", plan.number));
        }
    }

    /// While nothing is wrong, the leader takes nobody for lost.
    pub(super) fn check_leases(&mut self) {
        if self.now.since(self.disturbed_at) < CALM || self.storming {
            return;
        }
        let core = self.store.leader.and_then(|leader| self.hosts[leader].core.as_ref());
        let answer = core.and_then(|core| core.answer_for(u64::MAX, self.now));
        let lost = answer
            .and_then(|answer| answer.hosts.into_iter().find(|(_, state)| *state != HostState::Up));
        if let Some((host, state)) = lost {
            self.violate(format!("the leader takes {host} for {state}, and nothing is wrong"));
        }
    }

    /// Returns whether the leader reports full redundancy and every host follows the stored plan.
    pub(super) fn is_whole(&self) -> bool {
        let Some(leader) = self.store.leader else { return false };
        let Some(core) = &self.hosts[leader].core else { return false };
        let answer = core.answer_for(u64::MAX, self.now);
        let full = answer.is_some_and(|answer| answer.missing.is_empty());
        let number = self.store.plan.as_ref().map_or(0, |plan| plan.number);
        full && self.hosts.iter().all(|host| {
            let plan = host.core.as_ref().and_then(|core| core.plan());
            plan.is_some_and(|plan| plan.number == number)
        })
    }

    /// Says what is missing until then.
    pub(super) fn missing(&self) -> String {
        let core = self.store.leader.and_then(|leader| self.hosts[leader].core.as_ref());
        match core.and_then(|core| core.answer_for(u64::MAX, self.now)) {
            Some(answer) => answer.missing.join("; "),
            None => "nobody leads".to_owned(),
        }
    }
}
